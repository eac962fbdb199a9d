"""Messages of gRPC to what is asked for, and the answer back: raw contents, or typed ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec, dtype_name
from edgemed.runtime.contained.requests import Reply
from edgemed.serve.http.oip.infer import Asked, Desk, refuse_unsupported
from edgemed.serve.http.oip.tensors import check_declared, datatype, from_raw, to_raw
from edgemed.serve.models.served import Served, most_numbers

_FIELDS: Final = {
    "bool": "bool_contents",
    "int8": "int_contents",
    "int16": "int_contents",
    "int32": "int_contents",
    "int64": "int64_contents",
    "uint8": "uint_contents",
    "uint16": "uint_contents",
    "uint32": "uint_contents",
    "uint64": "uint64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
}
"""Where values of a type lie in typed contents; FP16 travels raw only."""


_LONGEST: Final = {
    "bool": 1,
    "int8": 10,  # a negative number, of whatever type, is written as one of 64 bits
    "int16": 10,
    "int32": 10,
    "int64": 10,
    "uint8": 2,
    "uint16": 3,
    "uint32": 5,
    "uint64": 10,
    "float16": 2,
    "float32": 4,
    "float64": 8,
}
"""Bytes of a value at most, in raw or in typed contents: those are varints of 7 bits a byte."""

_BESIDE: Final = 1 << 20
"""Bytes of all but the values: names, shapes, parameters."""


def most_message(served: Served) -> int | None:
    """Bytes of the longest request that a model can take; `None` where a size may be any."""
    numbers = most_numbers(served)
    if numbers is None:
        return None
    return _BESIDE + sum(n * _LONGEST[spec.dtype] for n, spec in zip(numbers, served.specs.inputs, strict=True))


def parameters_of(message: Any) -> dict[str, Any]:
    """Parameters as they are in JSON."""
    return {name: getattr(value, value.WhichOneof("parameter_choice") or "", None) for name, value in message.items()}


def asked_of(desk: Desk, served: Served, request: Any) -> Asked:
    """Read a `ModelInferRequest`.

    Raises:
        InputError: it is not as the protocol says, or not what the model takes.
        HttpError: it asks for what is not offered.
    """
    began_ns = time.monotonic_ns()
    deadline_ns, live = desk.schedule(parameters_of(request.parameters), began_ns)
    names = desk.wanted(served, [output.name for output in request.outputs])
    for tensor in (*request.inputs, *request.outputs):
        refuse_unsupported(parameters_of(tensor.parameters))
    return Asked(served, _feeds(served, request), names, request.id, deadline_ns, live, began_ns)


def _feeds(served: Served, request: Any) -> dict[str, NDArray[Any]]:
    specs = {spec.name: spec for spec in served.specs.inputs}
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InputError(
            f"There are {len(request.inputs)} inputs and {len(raw)} raw contents.", "Send one for each input, in order."
        )
    feeds: dict[str, NDArray[Any]] = {}
    for number, given in enumerate(request.inputs):
        if given.name not in specs or given.name in feeds:
            raise InputError(
                "An input is named that the model does not take, or is named twice.", f"It takes: {', '.join(specs)}."
            )
        spec = specs[given.name]
        shape = check_declared(spec, given.datatype, tuple(given.shape))
        if raw and given.HasField("contents"):
            raise InputError(f"Input {spec.name} has raw contents and typed ones.", "Send one of them.")
        feeds[spec.name] = from_raw(spec, shape, raw[number]) if raw else _typed(spec, shape, given.contents)
    if missing := specs.keys() - feeds.keys():
        raise InputError(f"The input {min(missing)} is missing.", f"The model takes: {', '.join(specs)}.")
    return feeds


def _typed(spec: TensorSpec, shape: tuple[int, ...], contents: Any) -> NDArray[Any]:
    field = _FIELDS.get(spec.dtype)
    if field is None:
        raise InputError(f"Input {spec.name} is FP16, which has no typed contents.", "Send it as raw contents.")
    values = getattr(contents, field)
    if len(values) != int(np.prod(shape, dtype=np.int64)):
        raise InputError(
            f"{field} of input {spec.name} hold {len(values)} values for the shape {list(shape)}.",
            "Send every element.",
        )
    wide = np.array(values, {"int_contents": np.int32, "uint_contents": np.uint32}.get(field, np.dtype(spec.dtype)))
    array = wide.astype(spec.dtype)
    if wide.dtype.kind in "iu" and not np.array_equal(array, wide):
        raise InputError(
            f"Input {spec.name} holds a value that is no {datatype(spec.dtype)}.", "Send what the model takes."
        )
    return array.reshape(shape)


def response_of(message: Any, asked: Asked, reply: Reply, *, raw: bool) -> Any:
    """Fill a `ModelInferResponse`, in the form in which the request came.

    Raises:
        HttpError: there is no right answer in the reply.
    """
    outputs = asked.answer(reply)
    raw = raw or any(dtype_name(array.dtype) not in _FIELDS for _, array in outputs)
    message.model_name, message.model_version, message.id = asked.served.name, asked.served.version, asked.identity
    for name, value in asked.about(reply).items():
        message.parameters[name].string_param = value
    for name, array in outputs:
        tensor = message.outputs.add(name=name, datatype=datatype(dtype_name(array.dtype)), shape=array.shape)
        if raw:
            message.raw_output_contents.append(to_raw(array))
        else:
            getattr(tensor.contents, _FIELDS[dtype_name(array.dtype)]).extend(array.ravel().tolist())
    return message


def fill_metadata(message: Any, metadata: Mapping[str, Any]) -> Any:
    """Metadata as REST tells them, as a message."""
    message.name, message.platform = metadata["name"], metadata["platform"]
    message.versions.extend(metadata["versions"])
    for kind in ("inputs", "outputs"):
        for tensor in metadata[kind]:
            getattr(message, kind).add(**tensor)
    return message
