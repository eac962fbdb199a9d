"""What each node of a graph costs: multiply-accumulates, weights, activations. Counted from shapes, not measured."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgemed.base.errors import InputError
from edgemed.graph.model import infer_shapes
from edgemed.graph.values import attribute_int, attribute_str, constant_array, constant_values, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_MOST_ROUNDS = 1 << 20


@dataclass(frozen=True)
class LayerCost:
    """Cost of one node for one inference.

    `macs` counts one multiplication with its addition as one. The bytes are those of the types in the graph: weights
    as stored, activations as read and written once.
    """

    node: str
    op: str
    macs: int
    weight_bytes: int
    input_bytes: int
    output_bytes: int


def costs(model: ir.Model) -> tuple[LayerCost, ...]:
    """Count the cost of every node of the top-level graph, in graph order.

    Nodes that only handle constants are left out. A Loop of a known number of rounds counts what is known of its body
    (a recurrent layer with a mask, a ConvLSTM), which is a lower bound; If, Scan and other Loops count as 0 MACs.

    Args:
        model: a graph of static shapes; they are inferred here where they are not known.

    Raises:
        InputError: a layer with weights has an unknown shape (fix the batch size and the image size).
    """
    if any(static_shape(value) is None for node in model.graph for value in node.outputs):
        infer_shapes(model)
    constants = constant_values(model)
    return tuple(_cost(node, constants) for node in model.graph if not all(v in constants for v in node.outputs))


def _cost(node: ir.Node, constants: set[ir.Value]) -> LayerCost:
    inputs = [value for value in node.inputs if value is not None]
    weights = {value for value in inputs if value in constants}
    return LayerCost(
        node=node.name or "",
        op=node.op_type,
        macs=_macs(node),
        weight_bytes=sum(_stored_bytes(value) for value in weights),
        input_bytes=sum(_bytes(value) for value in inputs if value not in weights),
        output_bytes=sum(_bytes(value) for value in node.outputs),
    )


def _macs(node: ir.Node) -> int:
    if node.domain:
        return 0
    if node.op_type == "Conv":
        # Every output element sums over (in channels / groups) x kernel, which are the weight's axes 1 and up.
        return _size(node, node.outputs[0]) * math.prod(_shape(node, node.inputs[1])[1:])
    if node.op_type == "ConvTranspose":
        # Every input element is spread over (out channels / groups) x kernel.
        return _size(node, node.inputs[0]) * math.prod(_shape(node, node.inputs[1])[1:])
    if node.op_type == "MatMul":
        return _size(node, node.outputs[0]) * _shape(node, node.inputs[0])[-1]
    if node.op_type == "Gemm":
        left = _shape(node, node.inputs[0])
        return _size(node, node.outputs[0]) * left[0 if attribute_int(node, "transA", 0) else 1]
    if node.op_type == "Loop":
        return _loop_macs(node)
    return _recurrent_macs(node) if node.op_type in _GATES else 0


def _loop_macs(node: ir.Node) -> int:
    rounds = None if node.inputs[0] is None else constant_array(node.inputs[0])
    if rounds is None or rounds.size != 1 or not 0 < int(rounds.item()) <= _MOST_ROUNDS:
        return 0  # tf2onnx writes the largest integer where a condition ends the loop
    total = 0
    for inner in node.attributes["body"].as_graph():
        with suppress(InputError):  # shapes inside a body are not all known
            total += _macs(inner)
    return int(rounds.item()) * total


def _recurrent_macs(node: ir.Node) -> int:
    """Per step, direction and gate: (inputs + hidden) x hidden; W is (directions, gates x hidden, inputs)."""
    steps, batch = _shape(node, node.inputs[0])[:2]
    if attribute_int(node, "layout", 0):
        steps, batch = batch, steps
    directions = 2 if attribute_str(node, "direction", "forward") == "bidirectional" else 1
    inputs = _shape(node, node.inputs[1])[2]
    hidden = attribute_int(node, "hidden_size", 0) or _shape(node, node.inputs[2])[2]
    return steps * batch * directions * _GATES[node.op_type] * hidden * (inputs + hidden)


def _shape(node: ir.Node, value: ir.Value | None) -> tuple[int, ...]:
    shape = static_shape(value)
    if shape is None:
        name = value.name if value is not None else "?"
        what = f"The shape of '{name}' at {node.op_type} '{node.name}' is not known."
        raise InputError(what, "Fix all input dimensions with --input NAME=1x512x512x1.")
    return shape


def _size(node: ir.Node, value: ir.Value | None) -> int:
    return math.prod(_shape(node, value))


def _bytes(value: ir.Value) -> int:
    shape = static_shape(value)
    return 0 if shape is None or value.dtype is None else math.ceil(math.prod(shape) * value.dtype.itemsize)


def _stored_bytes(value: ir.Value) -> int:
    """Bytes of a weight where it is stored: behind a dequantizer that is the INT8 constant with its scales."""
    if value.const_value is not None:
        return value.const_value.nbytes
    node = value.producer()
    if node is None or node.op_type == "Constant":
        return _bytes(value)
    return sum(_stored_bytes(v) for v in node.inputs if v is not None)
