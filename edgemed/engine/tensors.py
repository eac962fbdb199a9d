"""How the bindings speak of tensors, in numpy's words."""

from __future__ import annotations

from typing import Final

from edgemed.engine.bridge import Native

NUMPY_NAMES: Final = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


def dtype_name(dtype: Native) -> str:
    """Name of a `DataType`: numpy's own where numpy has it, else TensorRT's in small letters (`bf16`, `fp8`)."""
    name: str = dtype.name
    return NUMPY_NAMES.get(name, "bfloat16" if name == "BF16" else name.lower())


def varying(dims: Native) -> tuple[int | None, ...]:
    """`Dims` as a shape; -1 becomes `None`."""
    return tuple(None if size < 0 else int(size) for size in dims)


def shape_text(shape: tuple[int | None, ...]) -> str:
    """`8×3×?`, for messages."""
    return "×".join("?" if size is None else str(size) for size in shape) or "scalar"
