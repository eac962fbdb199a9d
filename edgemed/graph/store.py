"""Graphs as files: whole while they are small; the weights of large ones in one file beside them.

Protobuf holds 2 GiB in one message, and every copy of it costs memory. A Q/DQ graph has the same FP32 weights as the
float graph it came from, so both refer to one file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgemed.base.errors import os_errors_as_resource
from edgemed.graph.model import set_ir_version, to_bytes, weight_bytes

if TYPE_CHECKING:
    import onnx_ir as ir

EXTERNAL_ABOVE: Final = 150 << 20
"""Bytes of weights above which the large ones leave the graph."""
LARGE_TENSOR: Final = 1 << 20
"""Bytes of a tensor that leaves it."""


@dataclass(frozen=True)
class GraphFile:
    """A graph on disk, and the names of the files beside it that hold its large weights."""

    path: Path
    opset: int
    ir_version: int
    data: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that makes up the graph."""
        return (self.path, *(self.path.parent / name for name in self.data))


def write_graph(model: ir.Model, path: Path, *, external_above: int = EXTERNAL_ABOVE) -> GraphFile:
    """Write a graph; its IR version becomes the lowest that the opset allows.

    The large weights of a large model are written to `path` + `.data`, and `model` refers to that file afterwards, as
    do its copies: writing one of them into the same folder writes no weight again.

    Raises:
        ResourceError: disk full, no permission, and the like.
    """
    set_ir_version(model)
    assert model.ir_version is not None
    with os_errors_as_resource(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        data: tuple[str, ...] = ()
        if weight_bytes(model) > external_above:
            _move_out(model, path)
            data = tuple(sorted({str(tensor.location) for _, tensor in _external(model)}))
            path.write_bytes(_referring(model))
        else:
            path.write_bytes(to_bytes(model))
    return GraphFile(path, model.opset_imports[""], model.ir_version, data)


@contextmanager
def runnable(model: ir.Model) -> Iterator[bytes | Path]:
    """What a Runner loads: the bytes of a model, or, where its weights lie in a file, one beside it that goes again.

    Raises:
        ResourceError: disk full, no permission, and the like.
    """
    folder = next((Path(tensor.base_dir) for _, tensor in _external(model)), None)
    if folder is None or weight_bytes(model) <= EXTERNAL_ABOVE:
        yield to_bytes(model)
        return
    with os_errors_as_resource(folder), tempfile.NamedTemporaryFile(dir=folder, suffix=".onnx") as file:
        path = Path(file.name)
        try:
            yield write_graph(model, path).path
        finally:
            path.with_name(f"{path.name}.data").unlink(missing_ok=True)


def _move_out(model: ir.Model, path: Path) -> None:
    """Put the large weights that do not lie in this folder yet into `path` + `.data`; small ones go into memory."""
    import onnx_ir as ir

    here = {value for value, tensor in _external(model) if Path(tensor.base_dir) == path.parent}
    for value, tensor in _external(model):
        if value not in here and tensor.nbytes < LARGE_TENSOR:
            value.const_value = ir.tensor(tensor.numpy().copy(), name=tensor.name)
    large = [v for v in _initializers(model) if v not in here and _nbytes(v) >= LARGE_TENSOR]
    tensors = [v.const_value for v in large if v.const_value is not None]
    used = {str(tensor.location) for value, tensor in _external(model) if value in here}
    names = chain([f"{path.name}.data"], (f"{path.name}.{i}.data" for i in count(1)))
    name = next(candidate for candidate in names if candidate not in used)
    moved = ir.external_data.convert_tensors_to_external(tensors, path.parent, name, alignment=4096) if large else ()
    for value, tensor in zip(large, moved, strict=True):
        value.const_value = tensor


def _referring(model: ir.Model) -> bytes:
    """The model as bytes, large weights by reference."""
    import onnx_ir as ir

    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return data


def _external(model: ir.Model) -> Iterator[tuple[ir.Value, ir.ExternalTensor]]:
    import onnx_ir as ir

    for value in _initializers(model):
        if isinstance(value.const_value, ir.ExternalTensor):
            yield value, value.const_value


def _initializers(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.initializers.values()


def _nbytes(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.nbytes
