"""Constant folding, dead code and Conv fusions by onnxslim, run in this process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from edgemed.base.lazy import require
from edgemed.graph.model import set_ir_version, to_proto, weight_bytes
from edgemed.graph.passes.base import GraphPass, PassError, PassResult, count_nodes
from edgemed.graph.store import EXTERNAL_ABOVE, LARGE_TENSOR

if TYPE_CHECKING:
    import onnx_ir as ir


class Slim(GraphPass):
    """Fold constants and fuse Conv with the Mul and Add of a BatchNorm, as far as onnxslim can.

    It also ties equal weights, so passes that need weights of their own come later.
    """

    name: ClassVar[str] = "onnxslim"

    def __init__(self, *, fold_only: bool = False) -> None:
        """With `fold_only`, what is computed keeps its names: constants are folded, and nothing else is done."""
        self._fold_only = fold_only
        self._interface: tuple[list[str | None], list[str | None]] = ([], [])

    def requires(self, model: ir.Model) -> None:
        """Remember what the graph takes and gives."""
        self._interface = _interface(model)

    def call(self, model: ir.Model) -> PassResult:
        """Run `onnxslim.slim` on a copy: of a large model without its weights, as it copies every byte many times."""
        import onnx_ir as ir

        onnxslim = require("onnxslim", extra="build", purpose="simplify models")
        before = count_nodes(model)
        set_ir_version(model)
        _quiet()
        large = weight_bytes(model) > EXTERNAL_ABOVE
        apart = _take_out(model) if large else {}
        skipped = ["graph_fusion"] if large else []  # it wants the weights' values; `FoldChannelAffine` needs none
        if self._fold_only:
            skipped = ["graph_fusion", "subexpression_elimination", "weight_tying"]
        slimmed = ir.from_proto(onnxslim.slim(to_proto(model), skip_optimizations=skipped))
        _put_back(slimmed, apart)
        set_ir_version(slimmed)
        return PassResult(slimmed, count_nodes(slimmed) != before)

    def ensures(self, model: ir.Model) -> None:
        """Check that the graph's inputs and outputs kept their names and order.

        Raises:
            PassError: one of them changed.
        """
        if _interface(model) != self._interface:
            raise PassError("onnxslim changed the names of the graph's inputs or outputs.")


def _take_out(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Make large weights inputs of the graph, and return their values by name."""
    import onnx_ir as ir

    taken: dict[str, ir.TensorProtocol] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes < LARGE_TENSOR or value.is_graph_output() or value.is_graph_input():
            continue
        taken[name] = tensor
        value.dtype, value.shape = tensor.dtype, ir.Shape(tensor.shape.numpy())
        del model.graph.initializers[name]
        value.const_value = None
        model.graph.inputs.append(value)
    return taken


def _put_back(model: ir.Model, taken: dict[str, ir.TensorProtocol]) -> None:
    for value in [value for value in model.graph.inputs if value.name in taken]:
        model.graph.inputs.remove(value)
        if value.uses():
            assert value.name is not None
            value.const_value = taken[value.name]
            model.graph.register_initializer(value)


def _interface(model: ir.Model) -> tuple[list[str | None], list[str | None]]:
    return [v.name for v in model.graph.inputs], [v.name for v in model.graph.outputs]


def _quiet() -> None:
    """Give onnxslim's logger a handler, so that it does not add its own and print warnings on stderr."""
    logger = logging.getLogger("onnxslim")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
