"""Tensors as the Open Inference Protocol writes them: names of types, JSON, raw bytes (little-endian, row-major)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec, dtype_name

DATATYPES: Final = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
"""Names of numpy's types to names of the protocol's."""

_KINDS: Final = {"b": "b", "u": "iu", "i": "iu", "f": "fiu"}
"""What JSON may hold for a kind of type, by the kind that numpy makes of it."""


def datatype(dtype: str) -> str:
    """The protocol's name of a numpy type."""
    return DATATYPES[dtype]


def wire(dtype: str) -> np.dtype[Any]:
    """A type as its bytes travel."""
    return np.dtype(dtype).newbyteorder("<")


def shown(spec: TensorSpec) -> list[int]:
    """A shape for metadata: -1 where it may vary."""
    return [-1 if size is None else size for size in spec.shape]


def check_declared(spec: TensorSpec, declared: object, shape: object) -> tuple[int, ...]:
    """The shape that a client declares for an input, where it and the type fit.

    Raises:
        InputError: they do not.
    """
    wanted = datatype(spec.dtype)
    if declared != wanted:
        raise InputError(f"Input {spec.name} is {wanted}, and got {_quoted(declared)}.", "Give what the model takes.")
    if not isinstance(shape, (list, tuple)) or not all(type(size) is int and size >= 0 for size in shape):
        raise InputError(f"The shape of input {spec.name} is not a list of sizes.", "Give one number per dimension.")
    sizes = tuple(shape)
    if not spec.admits(spec.dtype, sizes):
        raise InputError(f"Input {spec} got the shape {list(sizes)[:16]}.", "Give what the model takes.")
    return sizes


def from_raw(spec: TensorSpec, shape: Sequence[int], data: bytes | bytearray | memoryview) -> NDArray[Any]:
    """A view on raw bytes.

    Raises:
        InputError: there are more or fewer than the shape holds.
    """
    dtype = wire(spec.dtype)
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise InputError(
            f"Input {spec.name} of the shape {list(shape)} has {wanted} bytes, and got {len(data)}.",
            "Send every element, and nothing else.",
        )
    array = np.frombuffer(data, dtype).reshape(shape)
    if spec.dtype == "bool" and array.view(np.uint8).max(initial=0) > 1:
        raise InputError(f"Input {spec.name} has a BOOL that is neither 0 nor 1.", "Send one byte, 0 or 1, for each.")
    return array.astype(spec.dtype, copy=False)


def from_json(spec: TensorSpec, shape: Sequence[int], data: object) -> NDArray[Any]:
    """An array of what JSON holds, nested or flat.

    Raises:
        InputError: it is no array of numbers, or holds others, or does not fill the shape.
    """
    if spec.dtype == "float16":
        raise InputError(f"Input {spec.name} is FP16, which JSON cannot carry.", "Send it as binary data.")
    if not isinstance(data, list):
        raise InputError(f"The data of input {spec.name} are not an array.", "Send them nested, or flat.")
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"The data of input {spec.name} are ragged.", "Send them nested, or flat.") from error
    if array.shape != tuple(shape) and array.shape != (math.prod(shape),):
        raise InputError(
            f"The data of input {spec.name} do not fill the shape {list(shape)}.", "Send them nested, or flat."
        )
    return _cast(spec, array).reshape(shape)


def _cast(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    dtype = np.dtype(spec.dtype)
    no = InputError(f"Input {spec.name} holds a value that is no {datatype(spec.dtype)}.", "Send what the model takes.")
    if array.size == 0:
        return array.astype(dtype)
    if array.dtype.kind not in _KINDS[dtype.kind]:
        raise no
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise no
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(cast).all():  # 1e300 is a number of JSON, and none of FP32
        raise no
    return cast


def to_raw(array: NDArray[Any]) -> bytes:
    """All bytes of an array."""
    return np.ascontiguousarray(array, wire(dtype_name(array.dtype))).tobytes()


def finite(array: NDArray[Any]) -> bool:
    """Whether it holds numbers only."""
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _quoted(value: object) -> str:
    return repr(value[:32]) if isinstance(value, str) else "none"
