"""Resize nodes that runtimes misread or refuse, rewritten to equal ones that they take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from edgemed.graph.model import infer_shapes, opset
from edgemed.graph.passes.base import GraphPass, PassError, PassResult
from edgemed.graph.passes.rewrite import add_initializer
from edgemed.graph.values import attribute_str, constant_array, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

_TF_MODE = "tf_half_pixel_for_nn"
_SIZES_OPSET = 13  # where empty roi and scales may be left out


class ResizeSizes(GraphPass):
    """Give Resize its output sizes where its FP32 scales stand for sizes that they miss by rounding.

    tf2onnx writes scales only: 12 to 7 pixels becomes 0.58333331. ONNX says the output has floor(12 * 0.58333331) = 6
    pixels, ONNX Runtime multiplies in FP32 and makes 7. With sizes all readers agree.
    """

    name: ClassVar[str] = "resize-sizes"

    def call(self, model: ir.Model) -> PassResult:
        """Replace the scales in place, from the inputs onwards: each output's shape decides about the next Resize."""
        modified = False
        if (opset(model) or 0) >= _SIZES_OPSET and any(node.op_type == "Resize" for node in model.graph):
            infer_shapes(model, strict=False)
            while (
                found := next(((n, s) for n in model.graph if (s := _meant_sizes(n)) is not None), None)
            ) is not None:
                _use_sizes(model, *found)
                infer_shapes(model, strict=False)
                modified = True
        return PassResult(model, modified)


def _meant_sizes(node: ir.Node) -> tuple[int, ...] | None:
    """Return the output shape that the scales of a Resize were computed from, where they yield another."""
    import numpy as np

    if node.op_type != "Resize" or len(node.inputs) != 3:
        return None
    source, scales = static_shape(node.inputs[0]), constant_array(node.inputs[2])
    if source is None or scales is None or len(scales) != len(source):
        return None
    meant = tuple(round(d * float(s)) for d, s in zip(source, scales, strict=True))
    exact = all(np.float32(m / d) == s for m, d, s in zip(meant, source, scales, strict=True))
    said = tuple(math.floor(d * float(s)) for d, s in zip(source, scales, strict=True))
    return meant if exact and meant != said else None


def _use_sizes(model: ir.Model, node: ir.Node, sizes: tuple[int, ...]) -> None:
    import numpy as np

    value = add_initializer(model.graph, f"{node.name}_sizes", np.array(sizes, dtype=np.int64))
    node.resize_inputs(4)
    node.replace_input_with(2, None)
    node.replace_input_with(3, value)


class NearestResizeMode(GraphPass):
    """Rewrite `tf_half_pixel_for_nn` + `floor` to `half_pixel` + `round_prefer_ceil`.

    Both read input index floor((x + 0.5) / scale): half_pixel subtracts 0.5 and rounding half up adds it again.
    TensorRT's parser takes the first mode only with `round_prefer_floor`. Where (x + 0.5) / scale is a whole number
    but for FP32 rounding, the two may read neighbouring pixels; with the factors of upsampling they never do.
    """

    name: ClassVar[str] = "nearest-resize-mode"

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the attributes in place."""
        import onnx_ir as ir

        found = [node for node in model.graph.all_nodes() if _is_refused(node)]
        for node in found:
            node.attributes["coordinate_transformation_mode"] = ir.AttrString(
                "coordinate_transformation_mode", "half_pixel"
            )
            node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "round_prefer_ceil")
        return PassResult(model, bool(found))

    def ensures(self, model: ir.Model) -> None:
        """Check that none is left.

        Raises:
            PassError: one is.
        """
        if any(_is_refused(node) for node in model.graph.all_nodes()):
            raise PassError("A nearest Resize with half pixel centres and floor is left.")


def _is_refused(node: ir.Node) -> bool:
    return (
        node.op_type == "Resize"
        and attribute_str(node, "mode", "nearest") == "nearest"
        and attribute_str(node, "coordinate_transformation_mode", "half_pixel") == _TF_MODE
        and attribute_str(node, "nearest_mode", "round_prefer_floor") == "floor"
    )
