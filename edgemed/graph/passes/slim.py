"""Constant folding, dead code and Conv fusions by onnxslim, run in this process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from edgemed.base.errors import InputError
from edgemed.base.lazy import require
from edgemed.graph.model import MAX_FILE_BYTES, set_ir_version, to_proto, weight_bytes
from edgemed.graph.passes.base import GraphPass, PassError, PassResult, count_nodes

if TYPE_CHECKING:
    import onnx_ir as ir


class Slim(GraphPass):
    """Fold constants and fuse Conv with the Mul and Add of a BatchNorm, as far as onnxslim can.

    It also ties equal weights, so passes that need weights of their own come later.
    """

    name: ClassVar[str] = "onnxslim"

    def __init__(self) -> None:
        self._interface: tuple[list[str | None], list[str | None]] = ([], [])

    def requires(self, model: ir.Model) -> None:
        """Refuse models above 2 GiB, which onnxslim cannot serialise.

        Raises:
            InputError: the weights exceed 2 GiB.
        """
        if weight_bytes(model) >= MAX_FILE_BYTES:
            raise InputError("The model's weights exceed 2 GiB.", "Use a smaller model: INT8 graphs stay below it.")
        self._interface = _interface(model)

    def call(self, model: ir.Model) -> PassResult:
        """Run `onnxslim.slim` on a copy."""
        import onnx_ir as ir

        onnxslim = require("onnxslim", extra="build", purpose="simplify models")
        before = count_nodes(model)
        set_ir_version(model)
        _quiet()
        slimmed = ir.from_proto(onnxslim.slim(to_proto(model)))
        set_ir_version(slimmed)
        return PassResult(slimmed, count_nodes(slimmed) != before)

    def ensures(self, model: ir.Model) -> None:
        """Check that the graph's inputs and outputs kept their names and order.

        Raises:
            PassError: one of them changed.
        """
        if _interface(model) != self._interface:
            raise PassError("onnxslim changed the names of the graph's inputs or outputs.")


def _interface(model: ir.Model) -> tuple[list[str | None], list[str | None]]:
    return [v.name for v in model.graph.inputs], [v.name for v in model.graph.outputs]


def _quiet() -> None:
    """Give onnxslim's logger a handler, so that it does not add its own and print warnings on stderr."""
    logger = logging.getLogger("onnxslim")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
