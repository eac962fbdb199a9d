"""Rules about operators and opsets that TensorRT's ONNX parser takes or refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgemed.graph.rules.base import Hit, View, rule
from edgemed.graph.values import attribute_str

if TYPE_CHECKING:
    import onnx_ir as ir

_INTEGER_OPERATORS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearAdd",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearMatMul",
        "QLinearMul",
        "QLinearSigmoid",
    }
)
_MODES = frozenset({"align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn"})
_MANY_TRANSPOSES = 2


@rule(
    "operator", "TensorRT's ONNX parser has no integer operators; INT8 is written as Q/DQ (onnx-tensorrt operators.md)."
)
def operator(view: View) -> Iterator[Hit]:
    for node in view.nodes:
        if node.op_type in _INTEGER_OPERATORS or node.op_type.startswith("QLinear"):
            yield Hit(node, f"{node.op_type} is not supported.")


@rule("resize-mode", "TensorRT's parser refuses these modes of Resize (parsed with TensorRT-RTX 1.7).")
def resize_mode(view: View) -> Iterator[Hit]:
    for node in view.nodes:
        if node.op_type == "Resize" and not node.domain and (breach := resize_breach(node)) is not None:
            yield Hit(node, breach)


def resize_breach(node: ir.Node) -> str | None:
    """What TensorRT's parser refuses of a Resize's coordinates, or None."""
    mode = attribute_str(node, "coordinate_transformation_mode", "half_pixel")
    nearest = attribute_str(node, "mode", "nearest") == "nearest"
    rounding = attribute_str(node, "nearest_mode", "round_prefer_floor")
    if mode not in _MODES:
        return f"The coordinate mode {mode} is not supported."
    if nearest and mode == "tf_half_pixel_for_nn" and rounding != "round_prefer_floor":
        return f"The coordinate mode {mode} is not supported with {rounding}."
    return None


@rule("opset-target", "Every TensorRT has a highest opset that its parser reads.")
def opset_target(view: View) -> Iterator[Hit]:
    if view.opset_max is not None and view.opset > view.opset_max:
        yield Hit(None, f"The graph has opset {view.opset}; the target reads up to {view.opset_max}.")


@rule("transposes", "Each Transpose moves a whole tensor through memory; a clean CNN has one or two.", "warning")
def transposes(view: View) -> Iterator[Hit]:
    found = [node for node in view.nodes if node.op_type == "Transpose"]
    if len(found) > _MANY_TRANSPOSES:
        yield Hit(None, f"The graph has {len(found)} Transposes.")
