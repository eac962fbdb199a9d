"""The restrictions of TensorRT's operator lists that can be seen in a graph, by the keywords of the table.

`scripts/make_operator_table.py` says which sentence of the lists each keyword stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgemed.graph.rules.operators import resize_breach
from edgemed.graph.values import (
    attribute_int,
    attribute_ints,
    attribute_str,
    constant_array,
    constant_values,
    static_shape,
)

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["LIMITS", "Limit", "Surroundings"]

_FIXED = (
    "Give every input a fixed shape (--input NAME=1x512x512x1), so that it becomes a constant, or replace the layer."
)
_NEWER = "Replace the layer, or choose a JetPack with a newer TensorRT."


class Surroundings:
    """A graph, and which of its values are constants: stored, or computed from constants alone."""

    def __init__(self, model: ir.Model) -> None:
        self._constants = constant_values(model)

    def is_constant(self, value: ir.Value) -> bool:
        """Whether a value is known before the model runs; weights behind a Q/DQ pair are."""
        return value in self._constants or constant_array(value) is not None


Check = Callable[[Surroundings, "ir.Node", str], str | None]


@dataclass(frozen=True)
class Limit:
    """One restriction: `check` gives what breaks it, or None; `remedy` is what to change."""

    check: Check
    remedy: str


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _constant(around: Surroundings, node: ir.Node, argument: str) -> str | None:
    value = _input(node, int(argument))
    if value is None or around.is_constant(value):
        return None
    return f"Its input '{value.name}' is computed; it must be a constant."


def _constant_float(around: Surroundings, node: ir.Node, _: str) -> str | None:
    import onnx_ir as ir

    floats = [v for v in node.inputs if v is not None and v.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)]
    return None if all(map(around.is_constant, floats)) else "Its floating-point inputs must be constants."


def _outputs(_: Surroundings, node: ir.Node, argument: str) -> str | None:
    used = [v for v in node.outputs[int(argument) :] if v.uses() or v.is_graph_output()]
    return f"Its output '{used[0].name}' is used; only the first is supported." if used else None


def _ranks(_: Surroundings, node: ir.Node, argument: str) -> str | None:
    low, high = map(int, argument.split("-"))
    rank = _rank(_input(node, 0))
    if rank is None or low <= rank <= high:
        return None
    wanted = str(low) if low == high else f"{low} to {high}"
    return f"Its input has {rank} dimensions; {wanted} are supported."


def _spatial(around: Surroundings, node: ir.Node, _: str) -> str | None:
    return _ranks(around, node, "3-5")  # one spatial axis is widened to two by the importer


def _dilations(_: Surroundings, node: ir.Node, __: str) -> str | None:
    dilations = attribute_ints(node, "dilations", [])
    return f"Its dilations are {dilations}; pooling knows none." if any(d != 1 for d in dilations) else None


def _attribute(_: Surroundings, node: ir.Node, argument: str) -> str | None:
    value = attribute_int(node, argument, 0)
    return f"Its attribute {argument} is {value}; only 0 is supported." if value else None


def _activations(_: Surroundings, node: ir.Node, __: str) -> str | None:
    attribute = node.attributes.get("activations")
    names = [] if attribute is None else list(attribute.as_strings())
    half = len(names) // 2
    if attribute_str(node, "direction", "forward") != "bidirectional" or names[:half] == names[half:]:
        return None
    return f"Its two directions have different activations: {', '.join(names)}."


def _sorted(_: Surroundings, node: ir.Node, __: str) -> str | None:
    return None if attribute_int(node, "sorted", 1) else "Its results are not sorted; only sorted ones are supported."


def _k(_: Surroundings, node: ir.Node, argument: str) -> str | None:
    wanted = constant_array(_input(node, 1))
    if wanted is None or not wanted.size or int(wanted.ravel()[0]) <= int(argument):
        return None
    return f"It asks for the {int(wanted.ravel()[0])} largest; up to {argument} are supported."


def _reduction(_: Surroundings, node: ir.Node, __: str) -> str | None:
    reduction = attribute_str(node, "reduction", "none")
    return None if reduction == "none" else f"Its reduction is {reduction}; only none is supported."


def _einsum(_: Surroundings, node: ir.Node, __: str) -> str | None:
    equation = attribute_str(node, "equation", "")
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    if "..." in equation or any(len(set(term)) < len(term) for term in terms):
        return f"Its equation '{equation}' has an ellipsis or a diagonal."
    return None


def _training(_: Surroundings, node: ir.Node, __: str) -> str | None:
    value = _input(node, 2)
    array = constant_array(value)
    if value is None or (array is not None and not array.any()):
        return None
    return "It is in training mode, or may be."


def _pad(_: Surroundings, node: ir.Node, __: str) -> str | None:
    if (mode := attribute_str(node, "mode", "constant")) != "constant":
        return f"It pads by {mode}; only zeros are supported."
    filling, pads = constant_array(_input(node, 2)), constant_array(_input(node, 1))
    if filling is not None and filling.any():
        return "It pads with a value other than zero."
    if pads is not None:
        rank = pads.size // 2
        padded = [axis for axis in range(rank) if pads[axis] or pads[axis + rank]]
        if len(padded) > 2:
            return f"It pads {len(padded)} axes; two are supported."
    return None


def _indices(_: Surroundings, node: ir.Node, __: str) -> str | None:
    indices = constant_array(_input(node, 1))
    negative = indices is not None and bool((indices.astype("int64") < 0).any())
    return "It counts from the end; only indices from 0 on are supported." if negative else None


def _static(_: Surroundings, node: ir.Node, __: str) -> str | None:
    return None if static_shape(_input(node, 0)) is not None else "The shape of its input is not fixed."


def _constant_kind(_: Surroundings, node: ir.Node, __: str) -> str | None:
    odd = sorted({"sparse_value", "value_string", "value_strings"} & set(node.attributes))
    return f"It holds a {odd[0]}." if odd else None


def _attention(_: Surroundings, node: ir.Node, __: str) -> str | None:
    ranks = [_rank(value) for value in node.inputs[:4]]
    if any(rank not in (None, 4) for rank in ranks):
        return "Query, key, value and mask must have 4 dimensions."
    if any(_input(node, index) is not None for index in (4, 5, 6)) or "softcap" in node.attributes:
        return "It has a cache of past keys or a softcap."
    return _outputs(_, node, "1")


def _resize(_: Surroundings, node: ir.Node, __: str) -> str | None:
    return resize_breach(node)


def _resize_cubic(_: Surroundings, node: ir.Node, __: str) -> str | None:
    return "It interpolates by cubic curves." if attribute_str(node, "mode", "nearest") == "cubic" else None


def _resize_18(_: Surroundings, node: ir.Node, __: str) -> str | None:
    """What came with Resize of opset 18."""
    if attribute_int(node, "antialias", 0):
        return "It smooths against aliasing."
    policy = attribute_str(node, "keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        return f"Its aspect ratio policy is {policy}; only stretch is supported."
    axes, rank = attribute_ints(node, "axes", []), _rank(_input(node, 0))
    if axes and _input(node, 2) is not None and rank is not None and axes != list(range(rank)):
        return f"Its scales are for the axes {axes} only; scales of all axes are supported."
    return None


LIMITS: Final[dict[str, Limit]] = {
    "activations": Limit(_activations, "Use the same activations in both directions."),
    "attention": Limit(_attention, "Write the attention as MatMul, Softmax, MatMul."),
    "attribute": Limit(_attribute, "Convert the model with edgemed, which writes it so, or replace the layer."),
    "constant": Limit(_constant, _FIXED),
    "constant-float": Limit(_constant_float, _FIXED),
    "constant-kind": Limit(_constant_kind, "Keep text and sparse weights out of the model."),
    "dilations": Limit(_dilations, "Use strides in place of dilations."),
    "einsum": Limit(
        _einsum, "Write the sum with MatMul, Transpose and Reshape, or choose a JetPack with a newer TensorRT."
    ),
    "indices": Limit(_indices, "Count indices from the front."),
    "k": Limit(_k, "Ask for fewer."),
    "outputs": Limit(_outputs, "Keep the other outputs out of the model."),
    "pad": Limit(_pad, _NEWER),
    "rank": Limit(_ranks, _NEWER),
    "reduction": Limit(_reduction, _NEWER),
    "resize": Limit(_resize, "Use UpSampling2D or Resizing of Keras with nearest or bilinear interpolation."),
    "resize-18": Limit(_resize_18, "Resize without antialiasing and to a fixed size."),
    "resize-cubic": Limit(_resize_cubic, "Use bilinear interpolation, or choose JetPack 5 or later (TensorRT 8.5)."),
    "sorted": Limit(_sorted, "Ask for sorted results."),
    "spatial": Limit(_spatial, "Use at most three spatial axes."),
    "static": Limit(_static, _FIXED),
    "training": Limit(_training, "Save the model for inference."),
}
"""By keyword of the table; what stands behind the keyword's colon is the argument of the check."""
