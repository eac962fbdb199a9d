"""The lowest opset that carries a graph: old TensorRT parsers stop at 13, and most graphs need no more.

An opset number is a promise about every operator. Where a later version of an operator only admits more data types
(or an attribute that the node leaves at its default), the node means the same under the earlier number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnx_ir as ir

FLOOR: Final = 13
"""The first opset with per-channel Q/DQ, and the last that TensorRT 8.0 and 8.2 read."""

_SAME_FOR_FP32: Final[dict[tuple[str, int], int]] = {
    # (operator, version) -> the version that means the same for FP32. Source: the ONNX change log; all of them only
    # add bfloat16 or integer types, or an attribute whose default is the earlier behaviour.
    ("Add", 14): 13,
    ("Sub", 14): 13,
    ("Mul", 14): 13,
    ("Div", 14): 13,
    ("Relu", 14): 13,
    ("Identity", 14): 13,
    ("Identity", 16): 13,
    ("Reshape", 14): 13,
    ("LSTM", 14): 13,
    ("GRU", 14): 13,
    ("RNN", 14): 13,
    ("Pow", 15): 13,
    ("Shape", 15): 13,
    ("BatchNormalization", 15): 14,
    ("LeakyRelu", 16): 13,
    ("PRelu", 16): 13,
    ("Where", 16): 13,
    ("GreaterOrEqual", 16): 13,
    ("LessOrEqual", 16): 13,
}
_NEW_ATTRIBUTES: Final[dict[str, dict[str, int | None]]] = {
    "Reshape": {"allowzero": 0},
    "Shape": {"start": 0, "end": None},
    **{op: {"layout": 0} for op in ("LSTM", "GRU", "RNN")},
}
"""Attributes that came with those versions, and the value that means the same as their absence (`None`: no value)."""


def lowest_opset(model: ir.Model) -> int:
    """Lowest opset, at least `FLOOR`, under which every node of `model` means what it means now."""
    nodes = [node for graph in model.graphs() for node in graph]
    current = model.opset_imports[""]
    return min(
        current, max((_needed(node, current) for node in nodes if node.domain in ("", "ai.onnx")), default=FLOOR)
    )


def lower_opset(model: ir.Model) -> ir.Model:
    """Declare the lowest opset, in place, and drop attributes that it does not know yet."""
    target = lowest_opset(model)
    if target < model.opset_imports[""]:
        for node in _nodes(model):
            for name, default in _new_attributes(node):
                if node.attributes[name].as_int() == default:
                    del node.attributes[name]
        model.opset_imports[""] = target
    return model


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    return (node for graph in model.graphs() for node in graph if node.domain == "")


def _needed(node: ir.Node, current: int) -> int:
    from onnx import defs

    version: int = defs.get_schema(node.op_type, current, "").since_version
    same = _SAME_FOR_FP32.get((node.op_type, version), version)
    new = _new_attributes(node)
    return max(FLOOR, version if any(node.attributes[name].as_int() != default for name, default in new) else same)


def _new_attributes(node: ir.Node) -> list[tuple[str, int | None]]:
    known = _NEW_ATTRIBUTES.get(node.op_type, {})
    return [(name, default) for name, default in known.items() if name in node.attributes]
