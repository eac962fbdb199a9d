"""Where Q/DQ goes, and the reason for every layer that stays in floating point.

The rules are those of explicit quantization in TensorRT (NvInfer.h, `IQuantizeLayer`) and of NVIDIA's own tools
(Model-Optimizer's `partitioning.py` and `ort_utils.py`, pytorch-quantization's ResNet50 tutorial): pairs stand on the
*inputs* of compute layers, weights are per channel, activations per tensor; biases, layer outputs, recurrent layers,
heads and pointwise constants are never quantized.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from edgemed.graph.heads import LAYERS, computed_from_heads
from edgemed.graph.values import attribute_int, attribute_str, constant_array, is_preprocessing, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

RECURRENT_OPS = frozenset({"LSTM", "GRU", "RNN"})
CONTROL_OPS = frozenset({"Loop", "If", "Scan"})

_SMALL_CHANNELS = 16  # INT8 tensor-core tiles hold 16 channels; below it padding costs more than INT8 gains
_CHANNEL_STEP = 8
_LONGEST_ATTENTION = 512
_SMALLEST_DEPTHWISE_KERNEL = 3
_PREPARING_OPS = frozenset(
    {"Add", "Cast", "Clip", "Div", "Identity", "Mul", "Pad", "Reshape", "Squeeze", "Sub", "Transpose", "Unsqueeze"}
)
"""What may stand between a model's input and its first layer: scaling and layout."""


@dataclass(frozen=True)
class LayerDecision:
    """What happens to one compute layer, and why."""

    node: str
    op: str
    quantized: bool
    reason: str


@dataclass(frozen=True)
class ActivationPair:
    """One Q/DQ pair on a tensor, for some of its consumers: (node, input index)."""

    tensor: ir.Value
    uses: tuple[tuple[ir.Node, int], ...]


@dataclass(frozen=True)
class WeightPair:
    """One per-channel Q/DQ pair on the weight of a node."""

    node: ir.Node
    index: int
    axis: int

    @property
    def weight(self) -> ir.Value:
        value = self.node.inputs[self.index]
        assert value is not None
        return value


@dataclass(frozen=True)
class Placement:
    """All pairs of a graph, the decision for every layer, and tensors that must share one scale."""

    activations: tuple[ActivationPair, ...]
    weights: tuple[WeightPair, ...]
    layers: tuple[LayerDecision, ...]
    shared_scales: tuple[tuple[str, ...], ...]

    @property
    def quantized_nodes(self) -> frozenset[str]:
        return frozenset(layer.node for layer in self.layers if layer.quantized)


def place(model: ir.Model) -> Placement:
    """Decide the placement for a clean graph (named nodes, folded BatchNorm, weights as initializers).

    Only the main graph is looked at: the bodies of Loop, If and Scan stay as they are.
    """
    return _Placer(model.graph).run()


class _Placer:
    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._uses: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
        self._weights: list[WeightPair] = []
        self._layers: list[LayerDecision] = []

    def run(self) -> Placement:
        for node in self._graph:
            if node.op_type in LAYERS and node.domain == "":
                self._decide(node)
            elif node.op_type in RECURRENT_OPS | CONTROL_OPS:
                why = "TensorRT takes recurrent layers in floating point only" if node.op_type in RECURRENT_OPS else ""
                reason = why or "bodies of control flow stay in floating point"
                self._layers.append(LayerDecision(node.name or "", node.op_type, False, reason))
        self._residual_adds()
        return Placement(
            tuple(ActivationPair(tensor, tuple(uses)) for tensor, uses in self._uses.items()),
            tuple(self._weights),
            tuple(self._layers),
            tuple(self._concat_groups()),
        )

    @cached_property
    def _quantized(self) -> set[ir.Node]:
        named = {layer.node for layer in self._layers if layer.quantized}
        return {node for node in self._graph if node.name in named}

    def _decide(self, node: ir.Node) -> None:
        layer = ComputeLayer(node, self._graph)
        reason = layer.exclusion()
        self._layers.append(LayerDecision(node.name or "", node.op_type, reason is None, reason or "INT8"))
        if reason is not None:
            return
        for index in layer.activation_inputs:
            self._use(node, index)
        if layer.weight_axis is not None:
            self._weights.append(WeightPair(node, 1, layer.weight_axis))

    def _use(self, node: ir.Node, index: int) -> None:
        """Put the pair on a node's input, or before the Pad in front of a Conv, so that the two can merge."""
        value = _value(node, index)
        pad = _pad_before(node) if node.op_type == "Conv" and index == 0 else None
        if pad is not None:
            self._use(pad, 0)
            return
        uses = self._uses.setdefault(value, [])
        if (node, index) not in uses:
            uses.append((node, index))

    def _residual_adds(self) -> None:
        """Of a residual Add, quantize the skip input only, so that Conv, Add and ReLU fuse into one INT8 kernel."""
        depth, answers = _depths(self._graph), computed_from_heads(self._graph)
        for node in self._graph:
            if node.op_type != "Add" or len(node.inputs) != 2:
                continue
            branches = [index for index, value in enumerate(node.inputs) if self._is_conv_branch(value)]
            if not branches or any(value is None or constant_array(value) is not None for value in node.inputs):
                continue
            # with a Conv on both sides (a projection shortcut) the longer path is the one that fuses
            conv = max(branches, key=lambda index: depth[_value(node, index)])
            skip = _value(node, 1 - conv)
            # a broadcast (a bias, a gate) is no residual: the fused kernel adds tensors of one shape
            if skip not in answers and static_shape(skip) == static_shape(_value(node, conv)) is not None:
                self._use(node, 1 - conv)

    def _is_conv_branch(self, value: ir.Value | None) -> bool:
        if value is None or len(value.uses()) != 1 or value.is_graph_output():
            return False
        producer = value.producer()
        return producer is not None and producer.op_type == "Conv" and producer in self._quantized

    def _concat_groups(self) -> Iterator[tuple[str, ...]]:
        """A Concat whose output is quantized: its inputs share that scale, so that no requantization is needed."""
        for value in self._uses:
            producer = value.producer()
            if producer is not None and producer.op_type == "Concat":
                names = [value.name, *(i.name for i in producer.inputs if i is not None and constant_array(i) is None)]
                yield tuple(dict.fromkeys(name for name in names if name))


@dataclass(frozen=True)
class ComputeLayer:
    """One Conv, ConvTranspose, Gemm or MatMul, seen by the placement rules."""

    node: ir.Node
    graph: ir.Graph

    @property
    def weight_shape(self) -> tuple[int, ...] | None:
        """Shape of a constant weight; `None` where both operands are activations."""
        array = constant_array(_value(self.node, 1))
        return None if array is None else array.shape

    @property
    def weight_axis(self) -> int | None:
        """Output-channel axis of the weight: Conv 0, ConvTranspose 1, Gemm and MatMul the output features."""
        if self.weight_shape is None:
            return None
        if self.node.op_type == "Gemm":
            return 0 if attribute_int(self.node, "transB", 0) else 1
        return {"Conv": 0, "ConvTranspose": 1, "MatMul": len(self.weight_shape) - 1}[self.node.op_type]

    @property
    def activation_inputs(self) -> tuple[int, ...]:
        return (0,) if self.weight_shape is not None else (0, 1)

    @property
    def _group(self) -> int:
        return attribute_int(self.node, "group", 1)

    def exclusion(self) -> str | None:
        """Why the layer stays in floating point, or `None` when it is quantized."""
        if is_preprocessing(self.node):
            return "prepares the image"
        data = _value(self.node, 0)
        if constant_array(data) is not None:
            return "its data input is a constant"
        if data.dtype is not None and data.dtype.name != "FLOAT":
            return f"it computes in {data.dtype.name.lower()}"
        rules: dict[str, Callable[[], str | None]] = {
            "Conv": self._conv,
            "ConvTranspose": self._conv_transpose,
            "Gemm": self._gemm,
            "MatMul": self._matmul,
        }
        return rules[self.node.op_type]()

    def _conv(self) -> str | None:
        pad = _pad_before(self.node)
        if pad is not None and not _can_move_before(pad, self.graph):
            return "a pair would stand between its Pad and itself"
        return self._conv_by_shape()

    def _conv_by_shape(self) -> str | None:
        shape = self.weight_shape
        if shape is None:
            return "its weight is not a constant"
        kernel, inputs, outputs = shape[2:], shape[1] * self._group, shape[0]
        if self._group > 1:
            if len(kernel) < 2 or outputs % _CHANNEL_STEP or min(kernel) < _SMALLEST_DEPTHWISE_KERNEL:
                return "grouped convolution without an INT8 kernel (needs 2-D, channels in eights, kernel 3 or more)"
            return None
        return self._few_channels(kernel, inputs, outputs)

    def _few_channels(self, kernel: tuple[int, ...], inputs: int, outputs: int) -> str | None:
        if min(inputs, outputs) >= _SMALL_CHANNELS:
            return None
        aligned = outputs % _CHANNEL_STEP == 0 or inputs % _CHANNEL_STEP == 0
        widens = self._reads_graph_input() or outputs // inputs >= _SMALL_CHANNELS
        if aligned and len(set(kernel)) == 1 and widens:
            return None
        return f"too few channels for INT8 tiles ({inputs} in, {outputs} out)"

    def _conv_transpose(self) -> str | None:
        shape = self.weight_shape
        if shape is None:
            return "its weight is not a constant"
        if self._group > 1:
            return "grouped transposed convolution: one scale per channel is ambiguous over groups"
        inputs, outputs = shape[0], shape[1]
        if min(inputs, outputs) < _SMALL_CHANNELS:
            return f"too few channels for INT8 tiles ({inputs} in, {outputs} out)"
        return None

    def _gemm(self) -> str | None:
        shape = self.weight_shape
        if shape is None:
            return "its weight is not a constant"
        inputs, outputs = reversed(shape) if attribute_int(self.node, "transB", 0) else shape
        rows = static_shape(_value(self.node, 0))
        if rows is not None:
            return self._matrix(rows[-1] if attribute_int(self.node, "transA", 0) else rows[0], inputs, outputs)
        return self._matrix(None, inputs, outputs)

    def _matmul(self) -> str | None:
        shape = self.weight_shape
        if shape is not None:
            if len(shape) != 2:
                return "its weight is not a matrix"
            return self._matrix(_rows(_value(self.node, 0)), shape[0], shape[1])
        left, right = _value(self.node, 0).shape, _value(self.node, 1).shape
        if left is None or right is None or len(left) < 2 or len(right) < 2:
            return "unknown shapes"
        sides = (left[-2], left[-1], right[-1])
        if any(isinstance(side, int) and side > _LONGEST_ATTENTION for side in (left[-2], right[-1])):
            return f"attention over more than {_LONGEST_ATTENTION} positions is slower in INT8"
        if any(isinstance(side, int) and side < _SMALL_CHANNELS for side in sides):
            return "matrices too small for INT8 tiles"
        return None

    @staticmethod
    def _matrix(rows: int | None, inputs: int, outputs: int) -> str | None:
        if rows == 1 or outputs == 1:
            return "matrix times vector, which gains nothing from INT8 kernels"
        if min(inputs, outputs) < _SMALL_CHANNELS:
            return f"too few features for INT8 tiles ({inputs} in, {outputs} out)"
        return None

    def _reads_graph_input(self) -> bool:
        """Whether this is a first layer: only scaling and layout stand before it."""
        value: ir.Value | None = self.node.inputs[0]
        for _ in range(len(self.graph)):
            if value is None or value.is_graph_input():
                return value is not None
            producer = value.producer()
            if producer is not None and is_preprocessing(producer):
                return True
            if producer is None or producer.op_type not in _PREPARING_OPS:
                return False
            data = [i for i in producer.inputs if i is not None and constant_array(i) is None]
            if len(data) != 1:
                return False
            value = data[0]
        return False


def _value(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None, f"{node.name} lacks input {index}"
    return value


def _rows(value: ir.Value) -> int | None:
    """Rows of the matrix a layer multiplies: the product of all dimensions but the last; `None` if unknown."""
    shape = static_shape(value)
    return None if shape is None else math.prod(shape[:-1])


def _pad_before(node: ir.Node) -> ir.Node | None:
    producer = _value(node, 0).producer()
    return producer if producer is not None and producer.op_type == "Pad" else None


def _can_move_before(pad: ir.Node, graph: ir.Graph) -> bool:
    """Whether the pair may stand in front of a Pad: it pads with zeros, for quantized Convs alone."""
    output = pad.outputs[0]
    readers = {use.node for use in output.uses()}
    return (
        _is_zero_pad(pad)
        and not output.is_graph_output()
        and all(r.op_type == "Conv" and ComputeLayer(r, graph)._conv_by_shape() is None for r in readers)
    )


def _is_zero_pad(node: ir.Node) -> bool:
    if attribute_str(node, "mode", "constant") != "constant":
        return False
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    fill = constant_array(node.inputs[2])
    return fill is not None and not fill.any()


def _depths(graph: ir.Graph) -> dict[ir.Value, int]:
    """Longest path, in compute layers, from the graph's inputs to each value; nodes are in topological order."""
    depths: dict[ir.Value, int] = {}
    for node in graph:
        before = max((depths.get(value, 0) for value in node.inputs if value is not None), default=0)
        own = 1 if node.op_type in LAYERS else 0
        depths.update(dict.fromkeys(node.outputs, before + own))
    return depths
