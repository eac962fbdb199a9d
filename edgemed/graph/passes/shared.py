"""Weights that several layers share get one copy per layer, so that each can have INT8 scales of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgemed.graph.passes.base import GraphPass, PassError, PassResult
from edgemed.graph.passes.rewrite import add_initializer
from edgemed.graph.values import constant_array, consumers

if TYPE_CHECKING:
    import onnx_ir as ir

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


class SplitSharedWeights(GraphPass):
    """Give every Conv, ConvTranspose, Gemm and MatMul a constant operand that nothing else reads."""

    name: ClassVar[str] = "split-shared-weights"

    def call(self, model: ir.Model) -> PassResult:
        """Copy in place; the first reader keeps the original."""
        modified = False
        for node in model.graph:
            if (index := _shared_operand(node)) is not None:
                array, value = constant_array(node.inputs[index]), node.inputs[index]
                assert array is not None
                assert value is not None
                node.replace_input_with(index, add_initializer(model.graph, f"{value.name}_for_{node.name}", array))
                modified = True
        return PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """Check that no weight is shared.

        Raises:
            PassError: one is.
        """
        for node in model.graph:
            if _shared_operand(node) is not None:
                raise PassError(f"The weights of '{node.name}' are still shared.")


def _shared_operand(node: ir.Node) -> int | None:
    """Return the index of a weight operand that another node reads too."""
    if node.op_type not in _LAYERS or node.domain:
        return None
    for index in (0, 1) if node.op_type == "MatMul" else (1,):
        value = node.inputs[index]
        if value is not None and constant_array(value) is not None and len(consumers(value)) > 1:
            return index
    return None
