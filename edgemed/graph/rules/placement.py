"""Rules about where Q/DQ pairs stand: what stops a fusion, costs accuracy, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgemed.graph.rules.base import (
    CONVOLUTIONS,
    ELEMENTWISE,
    LAYERS,
    RECURRENT,
    Hit,
    View,
    is_weight,
    made_by,
    quantized_value,
    readers,
    rule,
    scale_of_node,
)
from edgemed.graph.values import consumers, producer

if TYPE_CHECKING:
    import onnx_ir as ir

_ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Softplus"}
)
_MOVING = frozenset(
    {"DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Resize", "Slice", "SpaceToDepth"}
    | {"Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_POOLING = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"})
_NORMS = frozenset({"LayerNormalization", "InstanceNormalization"})
_MAY_READ_INT8 = LAYERS | _MOVING | _POOLING | _NORMS | {"Add", "Concat", "Cast", "QuantizeLinear"}


@rule("quantized-bias", "A quantized bias is INT32, which TensorRT's parser rejects; TensorRT quantizes biases itself.")
def quantized_bias(view: View) -> Iterator[Hit]:
    for node in view.dequantizers:
        if any(_is_bias(node, user, index) for user, index in readers(node)):
            yield Hit(node, "It feeds a bias.")


def _is_bias(node: ir.Node, user: ir.Node, index: int) -> bool:
    if user.op_type in LAYERS and index == 2:
        return True
    other = user.inputs[1 - index] if user.op_type == "Add" else None
    return other is not None and is_weight(node) and made_by(other, LAYERS)


@rule("graph-output", "An INT8 pair at the output costs accuracy where it is seen, and no layer gains by it.")
def graph_output(view: View) -> Iterator[Hit]:
    return (Hit(node, "It makes a graph output.") for node in view.both if node.outputs[0].is_graph_output())


@rule("recurrent", "TensorRT runs LSTM, GRU and RNN in FP32 or FP16 only (onnx-tensorrt operators.md).")
def recurrent(view: View) -> Iterator[Hit]:
    for node in view.dequantizers:
        for user, _ in readers(node):
            if user.op_type in RECURRENT:
                yield Hit(node, f"It feeds {user.op_type} '{user.name}'.")


@rule("subgraph", "Bodies of Loop, If and Scan run once per step; pairs in them are not fused.")
def subgraph(view: View) -> Iterator[Hit]:
    return (Hit(node, "It is inside a body.") for node in view.both if node.graph is not view.model.graph)


@rule("elementwise-constant", "TensorRT rejects quantized constants that feed anything but a layer's weights.")
def elementwise_constant(view: View) -> Iterator[Hit]:
    for node in view.weights:
        for user, index in readers(node):
            if user.op_type in ELEMENTWISE and not _is_bias(node, user, index):
                yield Hit(node, f"It is a constant of {user.op_type} '{user.name}'.")


@rule("pad-conv", "A pair between Pad and Conv keeps TensorRT from merging the two (TensorRT issue 2592).")
def pad_conv(view: View) -> Iterator[Hit]:
    for node in view.activations:
        if made_by(quantized_value(node), {"Pad"}) and any(user.op_type in CONVOLUTIONS for user, _ in readers(node)):
            yield Hit(node, "It stands between Pad and Conv.")


@rule("head", "Softmax and Sigmoid heads give the answer; INT8 in front or behind them ruins its calibration.")
def head(view: View) -> Iterator[Hit]:
    for node in view.activations:
        for user, _ in readers(node):
            if user in view.heads:
                yield Hit(node, f"It feeds the head '{user.name}'.")
    for node in view.quantizers:
        if node.inputs[0] in view.from_heads:
            yield Hit(node, "It quantizes the output of a head.")


@rule("fusion", "A pair between a layer and its activation keeps TensorRT from fusing the two.")
def fusion(view: View) -> Iterator[Hit]:
    for node in view.activations:
        if not made_by(quantized_value(node), LAYERS):
            continue
        for user, _ in readers(node):
            if user.op_type in _ACTIVATIONS and user not in view.heads:
                yield Hit(node, f"It stands between a layer and its {user.op_type}.")


@rule(
    "residual", "Conv, Add and Relu fuse when only the skip input is quantized (pytorch-quantization, quant_resnet50)."
)
def residual(view: View) -> Iterator[Hit]:
    for add in (node for node in view.model.graph if node.op_type == "Add"):
        pairs = [v for v in add.inputs if made_by(v, {"DequantizeLinear"}) and not is_weight(_made(v))]
        others = [v for v in add.inputs if v not in pairs]
        if len(pairs) == 2:
            yield Hit(add, "Both inputs are quantized; the branch that ends in a layer must not be.")
        elif pairs and not _from_convolution(others[0] if others else None):
            yield Hit(add, "The input that is not quantized does not come from a convolution.")


def _from_convolution(value: ir.Value | None) -> bool:
    """Whether a convolution makes `value`; in a typed graph a Cast may follow it, where the sum needs FP32."""
    maker = producer(value)
    if maker is not None and maker.op_type == "Cast":
        value = maker.inputs[0]
    return made_by(value, CONVOLUTIONS)


def _made(value: ir.Value | None) -> ir.Node:
    maker = producer(value)
    assert maker is not None
    return maker


@rule("int8-reader", "A pair pays only where its reader runs in INT8 or passes values on.")
def int8_reader(view: View) -> Iterator[Hit]:
    for node in view.activations:
        from_layer = made_by(quantized_value(node), LAYERS)
        for user, _ in readers(node):
            has_own_rule = user in view.heads or user.op_type in RECURRENT
            has_own_rule = has_own_rule or (from_layer and user.op_type in _ACTIVATIONS)
            if user.op_type not in _MAY_READ_INT8 and not has_own_rule:
                yield Hit(node, f"It feeds {user.op_type} '{user.name}', which gains nothing by INT8.")


@rule("half-layer", "A layer runs in INT8 only when its data and its weight are both quantized.")
def half_layer(view: View) -> Iterator[Hit]:
    for node in (n for n in view.model.graph if n.op_type in LAYERS):
        data, weight = (_is_restored(value) for value in node.inputs[:2])
        if data != weight and not made_by(node.inputs[0], {"Pad"}):
            yield Hit(node, f"Its {'data' if data else 'weight'} alone is quantized.")


def _is_restored(value: ir.Value | None) -> bool:
    maker = producer(value)
    if maker is not None and maker.op_type == "Cast":
        return made_by(maker.inputs[0], {"DequantizeLinear"})
    return made_by(value, {"DequantizeLinear"})


@rule("concat-scales", "A Concat whose tensors have different scales is requantized by extra kernels.", "warning")
def concat_scales(view: View) -> Iterator[Hit]:
    for node in (n for n in view.nodes if n.op_type == "Concat"):
        quantizers = [m for v in node.inputs if (m := _quantizer_of(v)) is not None]
        quantizers += [m for m, _ in readers(node) if m.op_type == "QuantizeLinear"]
        scales = {float(s.ravel()[0]) for m in quantizers if (s := scale_of_node(m)) is not None and s.size}
        if len(scales) > 1:
            yield Hit(node, f"Its tensors have {len(scales)} different scales.")


def _quantizer_of(value: ir.Value | None) -> ir.Node | None:
    """The pair that `value` comes from, or the one that stands on it for other readers."""
    if value is None:
        return None
    maker = producer(value)
    if maker is not None and maker.op_type == "DequantizeLinear":
        return maker
    return next((user for user, _ in consumers(value) if user.op_type == "QuantizeLinear"), None)
