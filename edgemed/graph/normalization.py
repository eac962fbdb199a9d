"""Find normalizations that are written out as single operators: mean, variance, root, division, affine part."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgemed.graph.values import constant_array, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "GlobalAveragePool"})
_SHAPING = frozenset({"Cast", "Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_ARITHMETIC = frozenset({"Abs", "Add", "Div", "Max", "Mul", "Neg", "Pow", "Reciprocal", "Sqrt", "Sub"})
_INSIDE = _REDUCTIONS | _SHAPING | _ARITHMETIC


def normalizations(graph: ir.Graph) -> set[ir.Node]:
    """Nodes that compute a statistic whose root is taken, and those that apply it.

    A root over a reduction is a standard deviation or a norm. Backwards, everything between the first reduction and
    the root belongs to it, and the squares that are reduced. Forwards, the arithmetic on statistics does, the
    division, and the affine part behind it.
    """
    found: set[ir.Node] = set()
    for root in graph:
        if _is_root(root):
            found |= _statistic(root)
    for node in graph:  # in topological order, so that both inputs of a node are known
        if node not in found and node.op_type in _ARITHMETIC | _SHAPING and _applies(node, found):
            found.add(node)
    return found


def _is_root(node: ir.Node) -> bool:
    if node.op_type != "Pow":
        return node.op_type == "Sqrt"
    exponent = constant_array(node.inputs[1])
    return exponent is not None and exponent.size == 1 and abs(float(exponent.item())) == 0.5


def _statistic(root: ir.Node) -> set[ir.Node]:
    """Nodes between the reductions behind `root` and `root`, with the squares; empty where nothing is reduced."""
    cone, border = {root}, [root]
    while border:
        node = border.pop()
        makers = {value.producer() for value in node.inputs if value is not None}
        new = {maker for maker in makers if maker is not None and maker.op_type in _INSIDE and maker not in cone}
        cone |= new
        border += new
    reductions = {node for node in cone if node.op_type in _REDUCTIONS}
    if not reductions:
        return set()
    squares = {maker for node in reductions if (maker := _square(node.inputs[0])) is not None}
    after = set(reductions)
    border = list(reductions)
    while border:
        node = border.pop()
        new = {user for value in node.outputs for user, _ in value.uses() if user in cone and user not in after}
        after |= new
        border += new
    return after | squares


def _square(value: ir.Value | None) -> ir.Node | None:
    maker = None if value is None else value.producer()
    if maker is None:
        return None
    same = maker.op_type == "Mul" and maker.inputs[0] is maker.inputs[1]
    return maker if same or maker.op_type in ("Pow", "Abs") else None


def _applies(node: ir.Node, found: set[ir.Node]) -> bool:
    """Whether `node` works on a statistic, divides by it, or does the affine part on what was normalized."""
    inputs = [value for value in node.inputs if value is not None]
    derived = [value for value in inputs if value.producer() in found]
    others = [value for value in inputs if value not in derived and constant_array(value) is None]
    if not derived or not others:
        return bool(derived)
    divides = node.op_type in ("Mul", "Div") and all(_is_normalized(value, found) for value in others)
    return divides or any(_is_statistic(value, node) for value in derived)


def _is_normalized(value: ir.Value, found: set[ir.Node]) -> bool:
    """Whether a statistic is taken of `value`."""
    return any(user in found for user, _ in value.uses())


def _is_statistic(value: ir.Value, node: ir.Node) -> bool:
    """Whether `value` is smaller than what comes of it: one number for many."""
    size, result = static_shape(value), static_shape(node.outputs[0])
    return size is not None and result is not None and math.prod(size) < math.prod(result)
