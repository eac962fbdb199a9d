"""Shape inference as a pass, so that later passes and calibration find types and shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgemed.graph.model import infer_shapes
from edgemed.graph.passes.base import GraphPass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


class InferShapes(GraphPass):
    """Fill in the type and shape of every value; the nodes stay as they are."""

    name: ClassVar[str] = "infer-shapes"

    def call(self, model: ir.Model) -> PassResult:
        """Infer in place."""
        return PassResult(infer_shapes(model), False)
