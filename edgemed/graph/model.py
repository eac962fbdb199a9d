"""ONNX models in memory: read, write, identity, shapes, constants.

A *graph* here is an `onnx_ir.Model`. This module is the only place where ONNX files are opened or written, and its
limits are the ones that every model file meets, whoever made it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgemed.base.errors import InputError, os_errors_as_resource
from edgemed.base.lazy import require
from edgemed.base.store import fsync_path, write_atomic
from edgemed.graph.identity import digest
from edgemed.graph.values import (
    constant_array,
    constant_values,
    consumers,
    float_values,
    only_consumer,
    producer,
    static_shape,
    values_by_name,
)

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = [
    "constant_array",
    "constant_values",
    "consumers",
    "digest",
    "float_values",
    "infer_shapes",
    "load",
    "only_consumer",
    "opset",
    "producer",
    "save",
    "set_ir_version",
    "static_shape",
    "to_bytes",
    "to_proto",
    "values_by_name",
    "weight_bytes",
]

MAX_FILE_BYTES = 1 << 31  # protobuf cannot hold more in one message
MAX_NODES = 200_000  # the largest Keras application has about 2 000 nodes
_LARGE_BYTES = 1 << 10  # no shape argument is larger
_PURPOSE = "read ONNX models"
_EXPORT_HINT = "Give an ONNX file that was exported whole, with its external data beside it."


def load(path: Path) -> ir.Model:
    """Read and check an ONNX file.

    External data is mapped, not copied, and accepted only from files inside the model's own folder.

    Args:
        path: an `.onnx` file (protobuf).

    Raises:
        InputError: it is no ONNX model, breaks the ONNX rules, is too large, or points outside its folder.
        ResourceError: it cannot be read.
        MissingSoftwareError: onnx or onnx-ir is not installed.
    """
    require("onnx_ir", extra="build", purpose=_PURPOSE)
    import onnx_ir as ir

    if not path.is_file():
        raise InputError(f"There is no file {path}.", "Give the path of an .onnx file.")
    proto = _parse(path)
    _check_external(proto, path.parent)
    _check_rules(path)
    try:
        model = ir.from_proto(proto)
    except Exception as error:
        raise InputError(f"{path} is not a valid ONNX model: {_first_line(error)}.", _EXPORT_HINT) from error
    ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def _parse(path: Path) -> onnx.ModelProto:
    import onnx

    with os_errors_as_resource(path):
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path} is larger than 2 GiB.", "Store its weights as external data.")
        data = path.read_bytes()
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:
        raise InputError(f"{path} is not an ONNX model.", "Give an .onnx file.") from error
    # Any bytes may happen to parse as protobuf, none at all always do; a model has at least these.
    if not (proto.ir_version and proto.opset_import and proto.graph.node and proto.graph.output):
        raise InputError(f"{path} is not an ONNX model, or is cut short.", "Give an .onnx file.")
    if len(proto.graph.node) > MAX_NODES:
        raise InputError(f"{path} has {len(proto.graph.node)} nodes, more than {MAX_NODES}.", "Simplify the model.")
    return proto


def _check_external(proto: onnx.ModelProto, folder: Path) -> None:
    root = folder.resolve()
    for tensor in _tensors(proto.graph):
        if not tensor.external_data:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        target = (root / location).resolve()
        if not location or not target.is_relative_to(root):
            raise InputError(f"Tensor '{tensor.name}' refers to a file outside the model's folder.", _EXPORT_HINT)
        if not target.is_file():
            raise InputError(f"The external data file '{location}' of tensor '{tensor.name}' is missing.", _EXPORT_HINT)
        _check_extent(tensor.name, entries, target)


def _check_extent(name: str, entries: dict[str, str], target: Path) -> None:
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
    except ValueError as error:
        raise InputError(
            f"The external data of tensor '{name}' has no valid offset and length.", _EXPORT_HINT
        ) from error
    if offset < 0 or length < 0 or offset + length > target.stat().st_size:
        raise InputError(f"The external data file of tensor '{name}' is cut short.", _EXPORT_HINT)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for inner in attribute.graphs:
                yield from _tensors(inner)


def _check_rules(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        raise InputError(f"{path} breaks the ONNX rules: {_first_line(error)}.", "Export the model again.") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def save(model: ir.Model, path: Path, *, external_data: str | None = None) -> None:
    """Write a model atomically; the bytes depend on nothing but the model.

    The IR version is set to the lowest that the opset allows, so that old runtimes read the file too.

    Args:
        model: the model; its `ir_version` is updated.
        path: the `.onnx` file to write.
        external_data: file name beside `path` for the weights; needed above 2 GiB.

    Raises:
        InputError: the model is larger than 2 GiB and `external_data` is not given, or it names no ONNX opset.
        ResourceError: disk full, no permission, and the like.
    """
    set_ir_version(model)
    if external_data is not None:
        _save_external(model, path, external_data)
        return
    write_atomic(path, to_bytes(model))


def _save_external(model: ir.Model, path: Path, name: str) -> None:
    import onnx_ir as ir

    if Path(name).name != name:
        raise InputError(f"'{name}' is not a plain file name.", "Name the external data file without a folder.")
    with (
        os_errors_as_resource(path),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".partial") as folder,
    ):
        staging = Path(folder)
        ir.save(model, staging / path.name, external_data=name)
        # Weights first: a model file whose weights are missing is refused, weights without a model are harmless.
        for part in (name, path.name):
            fsync_path(staging / part)
            (staging / part).replace(path.parent / part)
        fsync_path(path.parent)


def to_bytes(model: ir.Model) -> bytes:
    """Serialise a model deterministically, weights included.

    Raises:
        InputError: the model is larger than 2 GiB, the limit of protobuf.
    """
    if weight_bytes(model) >= MAX_FILE_BYTES:
        raise InputError("The model's weights exceed 2 GiB.", "Save it with external data.")
    data: bytes = to_proto(model).SerializeToString(deterministic=True)
    return data


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Return the model as a protobuf message that holds all weights itself."""
    import onnx_ir as ir

    ir.external_data.load_to_model(model)
    return ir.to_proto(model)


def weight_bytes(model: ir.Model, *, without: str | None = None) -> int:
    """Bytes of all initializers, subgraphs included; not of those whose name begins with `without`."""
    return sum(
        v.const_value.nbytes
        for g in model.graphs()
        for name, v in g.initializers.items()
        if v.const_value is not None and not (without and name.startswith(without))
    )


def set_ir_version(model: ir.Model) -> None:
    """Set the lowest IR version that the model's opsets allow, and drop nothing else.

    Raises:
        InputError: the model imports no ONNX opset.
    """
    from onnx import helper

    if opset(model) is None:
        raise InputError("The model imports no ONNX opset.", "Export the model again.")
    imports = [helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    model.ir_version = helper.find_min_ir_version_for(imports, ignore_unknown=True)


def opset(model: ir.Model) -> int | None:
    """Version of the default ONNX opset that the model imports."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx"))


def infer_shapes(model: ir.Model, *, strict: bool = True) -> ir.Model:
    """Infer the type and shape of every value in place, and return the model.

    Shapes that the model declares for its intermediate values are only believed where none can be inferred.

    Args:
        model: the model.
        strict: raise on contradictions; otherwise infer as far as possible.

    Raises:
        InputError: types or shapes in the model contradict each other.
    """
    import onnx
    import onnx_ir as ir

    try:
        inferred = onnx.shape_inference.infer_shapes(
            ir.to_proto(_undeclared(model)), check_type=strict, strict_mode=strict, data_prop=True
        )
    except Exception as error:
        what = f"The types or shapes in the model contradict each other: {_first_line(error)}."
        raise InputError(what, "Export the model again.") from error
    for graph, other in zip(model.graphs(), ir.from_proto(inferred).graphs(), strict=True):
        known = ir.convenience.create_value_mapping(other, include_subgraphs=False)
        for name, value in ir.convenience.create_value_mapping(graph, include_subgraphs=False).items():
            # What is inferred in spite of contradictions must not become the declared shape of an output.
            if name in known and known[name].type is not None and (strict or not value.is_graph_output()):
                inferred_shape = known[name].shape
                value.type, value.shape = known[name].type, value.shape if inferred_shape is None else inferred_shape
    return model


def _undeclared(model: ir.Model) -> ir.Model:
    """Copy a model without the shapes of intermediate values, and with its large weights turned into inputs.

    Shape inference copies every byte of the model several times.
    """
    import onnx_ir as ir

    light = model.clone()
    for value in (v for node in light.graph for v in node.outputs if not v.is_graph_output()):
        value.shape = None
    for name, value in list(light.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and (tensor.nbytes > _LARGE_BYTES or isinstance(tensor, ir.ExternalTensor)):
            value.dtype, value.shape = tensor.dtype, ir.Shape(tensor.shape.numpy())
            del light.graph.initializers[name]
            value.const_value = None
            if not value.is_graph_input():
                light.graph.inputs.append(value)
    return light
