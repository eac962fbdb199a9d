"""The conversion route: trace, freeze, tf2onnx, check. Runs in the child.

Freezing first is what makes it work where tf2onnx's own entrances fail: constants captured by a trace do not
leak as inputs, Sequential models need no names, and a function that XLA would compile can be inlined.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.convert import fixes, large, recurrent
from edgemed.convert.load import Loaded
from edgemed.convert.types import IR_VERSIONS, Activation, LayerInfo
from edgemed.graph.batch import BATCH

if TYPE_CHECKING:
    import onnx


def to_onnx(loaded: Loaded, opset: int, path: Path, external_above: int) -> tuple[TensorSpec, ...]:
    """Convert a loaded model and write it to `path`; return its outputs.

    Raises:
        InputError: an operation has no ONNX equivalent, or the model is too large; the Keras layer is named.
    """
    import onnx

    if opset not in IR_VERSIONS:
        raise InputError(f"Opset {opset} cannot be written.", f"Give one of {', '.join(map(str, IR_VERSIONS))}.")
    frozen = freeze(loaded, apart=loaded.parameter_bytes > external_above)
    _refuse(frozen.graph_def, loaded.layers)
    model = _convert(frozen, loaded, opset)
    model.ir_version = IR_VERSIONS[opset]
    _drop_unused_opsets(model)
    _complete_outputs(model, frozen)
    _name_batch(model, loaded)
    large.data_path(path).unlink(missing_ok=True)  # of an earlier conversion
    try:
        if frozen.variables:
            large.attach(model, frozen.variables, path)
        onnx.save_model(model, str(path))
        _check(model, path, loaded)
    except BaseException:
        for written in (path, large.data_path(path)):
            written.unlink(missing_ok=True)
        raise
    return tuple(_output_spec(value) for value in model.graph.output)


@dataclass(frozen=True)
class Frozen:
    """A model as a TensorFlow graph of constants."""

    graph_def: Any
    inputs: dict[str, str]
    """Wanted ONNX name by TensorFlow tensor name."""
    outputs: dict[str, str]
    shapes: list[tuple[int | None, ...]]
    """Of the outputs, as traced."""
    variables: dict[str, Any]
    """Large weights that are inputs of the graph instead of constants, by ONNX name."""


def freeze(loaded: Loaded, *, apart: bool) -> Frozen:
    """Trace the model and make its variables constants; with `apart`, the large ones inputs."""
    import tensorflow as tf

    signature = [tf.TensorSpec(s.shape, s.dtype, name=f"edgemed_in_{i}") for i, s in enumerate(loaded.inputs)]

    @tf.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator, unused-ignore]
    def traced(*values: Any) -> dict[str, Any]:
        # zero-padded keys: TensorFlow sorts a dictionary's outputs by key, the model's own order must survive
        return {f"out_{i:06d}": tf.identity(value) for i, value in enumerate(loaded.call(values))}

    with fixes.nearest_upsampling_as_resize(), recurrent.as_single_nodes():
        function = traced.get_concrete_function()
    weights: dict[str, str] = {}
    variables: dict[str, Any] = {}
    if apart:
        graph_def, weights, variables = large.freeze_apart(function)
    else:
        graph_def = large.constants_for_variables(function)
    fixes.strip_xla_attributes(graph_def)
    inputs = {tensor.name: spec.name for tensor, spec in zip(function.inputs, loaded.inputs, strict=False)}
    outputs = {tensor.name: name for tensor, name in zip(function.outputs, loaded.outputs, strict=True)}
    shapes = [tuple(tensor.shape) for tensor in function.outputs]
    return Frozen(graph_def, inputs | weights, outputs, shapes, variables)


def _refuse(graph_def: Any, layers: tuple[LayerInfo, ...]) -> None:
    """Refuse what would convert to a graph that cannot be calibrated."""
    half = {19: "float16", 14: "bfloat16"}  # DataType in TensorFlow's types.proto
    for node in graph_def.node:
        kind = next((half[a.type] for a in node.attr.values() if a.type in half), None)
        if kind is not None:  # too coarse a reference for INT8
            raise InputError(
                f"{layer_of(node.name, layers)} computes in {kind}.",
                "Give the model's .h5 or .keras file, which is computed in float32, or export it with that policy.",
            )
        if node.op == "ResizeBicubic":
            what = f"{layer_of(node.name, layers)} resizes bicubically, which ONNX Runtime cannot do on this layout."
            raise InputError(what, _RESIZE)


def _convert(frozen: Frozen, loaded: Loaded, opset: int) -> onnx.ModelProto:
    fixes.register_erfc()
    recurrent.register_handler()
    fixes.restore_numpy_product()
    with fixes.constants_copied_once(), fixes.tf2onnx_errors() as log:
        try:
            with fixes.optimized_in_place():
                model = _tf2onnx(frozen, opset)
        except MemoryError:
            raise
        except Exception:
            _raise_logged(log, loaded.layers)
            model = _convert_again(frozen, opset)
    _raise_logged(log, loaded.layers)
    return model


def _convert_again(frozen: Frozen, opset: int) -> onnx.ModelProto:
    """Slower, but an optimizer pass that raises is left out."""
    try:
        return _tf2onnx(frozen, opset)
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(
            f"The model cannot be converted to ONNX: {str(error)[:300]}.", "Report it with --debug's output."
        ) from error


def _tf2onnx(frozen: Frozen, opset: int) -> onnx.ModelProto:
    import tf2onnx

    model: onnx.ModelProto
    model, _ = tf2onnx.convert.from_graph_def(
        frozen.graph_def,
        name="model",
        input_names=list(frozen.inputs),
        output_names=list(frozen.outputs),
        opset=opset,
        tensors_to_rename=frozen.inputs | frozen.outputs,
    )
    return model


def _raise_logged(log: fixes.ErrorLog, layers: tuple[LayerInfo, ...]) -> None:
    if log.unsupported:
        node, operation = log.unsupported[0]
        what = f"{layer_of(node, layers)} uses the TensorFlow operation {operation}, which has no ONNX equivalent."
        raise InputError(what, _way_out(node, layers))
    if log.failed:
        what = f"{layer_of(log.failed[0], layers)} cannot be converted to ONNX."
        raise InputError(what, _way_out(log.failed[0], layers))


_RESIZE = "Use interpolation='bilinear' without antialias, or resize in the recipe."
_LOOKUP = "Take the layer out of the model, do its work where the values come from, and feed its output."
_WAYS_OUT = {
    "Resizing": _RESIZE,
    **dict.fromkeys(
        ("CategoryEncoding", "Discretization", "HashedCrossing", "Hashing", "IntegerLookup", "StringLookup",
         "TextVectorization"),
        _LOOKUP,
    ),
}  # fmt: skip


def _way_out(node: str, layers: tuple[LayerInfo, ...]) -> str:
    layer = _find_layer(node, layers)
    generic = "Replace it by layers that have one, or take it out of the model and do its work in the recipe."
    return _WAYS_OUT.get(layer.class_name, generic) if layer else generic


def _find_layer(node: str, layers: tuple[LayerInfo, ...]) -> LayerInfo | None:
    by_name = {layer.name: layer for layer in layers}
    parts = node.split("/")
    for end in range(len(parts), 0, -1):
        for start in range(end):  # layer names may hold slashes themselves (conv1/conv)
            name = "/".join(parts[start:end])
            layer = by_name.get(name) or by_name.get(re.sub(r"_\d+$", "", name))  # a second trace counts its scopes on
            if layer is not None:
                return layer
    return None


def layer_of(node: str, layers: tuple[LayerInfo, ...]) -> str:
    """Words for the Keras layer whose name stands in a TensorFlow node name, else for the part of the model."""
    layer = _find_layer(node, layers)
    if layer is not None:
        return f"The layer '{layer.name}' ({layer.class_name})"
    scope, _, _ = re.sub(r"^(StatefulPartitionedCall/)+", "", node).rpartition("/")
    return f"The part '{scope}' of the model" if scope else f"The node '{node}'"


def _drop_unused_opsets(model: onnx.ModelProto) -> None:
    used = {node.domain for node in model.graph.node} | {""}
    for entry in [e for e in model.opset_import if e.domain not in used]:
        model.opset_import.remove(entry)


def _check(model: onnx.ModelProto, path: Path, loaded: Loaded) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        bad = next((n for n in model.graph.node if f'"{n.op_type}"' in str(error) or n.op_type in str(error)), None)
        where = layer_of(bad.name, loaded.layers) if bad is not None else "A part of the model"
        raise InputError(f"{where} does not convert to valid ONNX.", "Replace that layer.") from error
    inputs = [(v.name, _dims(v)) for v in model.graph.input]
    wanted = [(spec.name, spec.shape) for spec in loaded.inputs]
    if inputs != wanted:
        raise InputError(f"The converted graph takes {inputs}, not {wanted}.", "Report it with --debug's output.")
    outputs = [v.name for v in model.graph.output]
    if outputs != list(loaded.outputs):
        raise InputError(
            f"The converted graph gives {outputs}, not {list(loaded.outputs)}.", "Report it with --debug's output."
        )


def _complete_outputs(model: onnx.ModelProto, frozen: Frozen) -> None:
    for value, shape in zip(model.graph.output, frozen.shapes, strict=True):
        _complete_shape(value, shape)


def _complete_shape(value: Any, shape: tuple[int | None, ...]) -> None:
    """Write the traced static shape of an output where tf2onnx lost it."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(shape):
        del dims[:]
        dims.extend(type(value.type.tensor_type.shape).Dimension() for _ in shape)
    for dim, size in zip(dims, shape, strict=True):
        if size is not None:
            dim.dim_value = size


def _name_batch(model: onnx.ModelProto, loaded: Loaded) -> None:
    """Call a batch that varies by one name in all inputs and outputs; tf2onnx numbers unknown dimensions."""
    if not any(None in spec.shape for spec in loaded.inputs):
        return
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if len(dims) and not dims[0].HasField("dim_value"):
            dims[0].dim_param = BATCH
    del model.graph.value_info[:]  # they still carry the numbers


def _dims(value: Any) -> tuple[int | None, ...]:
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)


def _output_spec(value: Any) -> TensorSpec:
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
    return TensorSpec(value.name, dtype, _dims(value))


_LOOK_THROUGH = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten", "Cast"})


def output_activations(path: Path) -> dict[str, Activation]:
    """The activation that each output of an ONNX file ends with, looking through pure data movement."""
    import onnx

    graph = onnx.load_model(str(path), load_external_data=False).graph
    producers = {output: node for node in graph.node for output in node.output}
    kinds: dict[str, Activation] = {"Sigmoid": "sigmoid", "Softmax": "softmax"}
    found: dict[str, Activation] = {}
    for output in graph.output:
        node = producers.get(output.name)
        while node is not None and node.op_type in _LOOK_THROUGH:
            node = producers.get(node.input[0])
        found[output.name] = kinds.get(node.op_type, "none") if node is not None else "none"
    return found


def graph_rescales(path: Path) -> bool:
    """Whether an ONNX graph begins with arithmetic by constants: for a SavedModel, whose layers are unknown."""
    import onnx

    graph = onnx.load_model(str(path), load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    frontier = {value.name for value in graph.input}
    for node in graph.node:
        if not frontier & set(node.input):
            continue
        if node.op_type in _LOOK_THROUGH or node.op_type == "Resize":
            frontier |= set(node.output)
        elif node.op_type in ("Mul", "Div", "Sub", "Add") and constants & set(node.input):
            return "batch_norm" not in node.name.lower()
    return False
