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


RAISABLE: Final = 19
_AXES_OPSET = 18
_AXES_TO_INPUT = frozenset(
    {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"}
    | {"ReduceSumSquare"}
)


def lowest_opset(model: ir.Model) -> int:
    """Lowest opset, at least `FLOOR`, under which every node of `model` means what it means now."""
    current = model.opset_imports[""]
    return min(current, max(needed_opsets(model).values(), default=FLOOR))


def needed_opsets(model: ir.Model) -> dict[ir.Node, int]:
    """The lowest opset, at least `FLOOR`, under which each ONNX node of `model` means what it means now."""
    current = model.opset_imports[""]
    nodes = [node for graph in model.graphs() for node in graph]
    return {node: _needed(node, current) for node in nodes if node.domain in ("", "ai.onnx")}


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


def raise_opset(model: ir.Model, target: int) -> ir.Model:
    """Declare opset `target`, in place, and rewrite the nodes that mean something else under it.

    Between `FLOOR` and 19, all changes but those named here add types, or attributes whose default is the earlier
    behaviour (ONNX change log).

    Args:
        model: a graph of opset `FLOOR` or later.
        target: 19 at most.
    """
    current = model.opset_imports[""]
    assert current >= FLOOR, f"opset {current}"
    assert target <= RAISABLE, f"opset {target}"
    if current >= target:
        return model
    for graph in model.graphs():
        for node in list(graph):
            if node.domain == "":
                _raise_node(node, current, target)
    model.opset_imports[""] = target
    return model


def _raise_node(node: ir.Node, current: int, target: int) -> None:
    import onnx_ir as ir

    if node.op_type in _AXES_TO_INPUT and current < _AXES_OPSET <= target and "axes" in node.attributes:
        axes = node.attributes.pop("axes").as_ints()
        value = ir.Value(
            name=f"{node.outputs[0].name}/axes", const_value=ir.tensor(list(axes), dtype=ir.DataType.INT64)
        )
        value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([len(axes)])
        assert node.graph is not None
        node.graph.register_initializer(value)
        node.resize_inputs(2)
        node.replace_input_with(1, value)
    if node.op_type == "Split" and current < _AXES_OPSET <= target and len(node.inputs) < 2:
        node.attributes.add(ir.AttrInt64("num_outputs", len(node.outputs)))
    if node.op_type == "RoiAlign" and current < 16 <= target:
        node.attributes.add(ir.AttrString("coordinate_transformation_mode", "output_half_pixel"))


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
