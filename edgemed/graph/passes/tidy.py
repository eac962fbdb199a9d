"""Passes kept by onnx-ir: constants as initializers, nothing unused, unique names, no documentation strings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from edgemed.base.errors import InputError
from edgemed.graph.passes.base import GraphPass, PassError, PassResult
from edgemed.graph.values import constant_array

if TYPE_CHECKING:
    import onnx_ir as ir


class FiniteWeights(GraphPass):
    """Refuse models whose weights hold NaN or infinity; nothing that is measured on them would mean anything."""

    name: ClassVar[str] = "finite-weights"

    def requires(self, model: ir.Model) -> None:
        """Look at every floating-point initializer.

        Raises:
            InputError: one is not finite.
        """
        import numpy as np

        for graph in model.graphs():
            for name, value in graph.initializers.items():
                array = constant_array(value)
                # -inf masks of attention are legal; a layer's weights (two axes or more, many values) are not.
                if array is None or array.dtype.kind != "f":
                    continue
                if np.isnan(array).any() or (array.size > 1 and np.isinf(array).any() and _is_weight(value)):
                    raise InputError(f"The weights '{name}' hold NaN or infinity.", "Train or export the model again.")

    def call(self, model: ir.Model) -> PassResult:
        """Change nothing."""
        return PassResult(model, False)


def _is_weight(value: ir.Value) -> bool:
    return any(
        u.node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN") for u in value.uses()
    )


class LiftConstants(GraphPass):
    """Turn Constant nodes into initializers, and initializers that are also inputs into constants."""

    name: ClassVar[str] = "lift-constants"

    def call(self, model: ir.Model) -> PassResult:
        """Lift in place, subgraphs included."""
        from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveInitializersFromInputsPass

        fixed = RemoveInitializersFromInputsPass()(model)
        lifted = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        return PassResult(model, fixed.modified or lifted.modified)


class RemoveIdentity(GraphPass):
    """Take out Identity nodes, so that weights and activations are seen where they are used."""

    name: ClassVar[str] = "remove-identity"

    def call(self, model: ir.Model) -> PassResult:
        """Remove in place; graph outputs keep their names."""
        from onnx_ir.passes.common import IdentityEliminationPass

        return PassResult(model, IdentityEliminationPass()(model).modified)


class RemoveUnused(GraphPass):
    """Remove nodes, initializers, functions and opset imports that nothing uses."""

    name: ClassVar[str] = "remove-unused"

    def call(self, model: ir.Model) -> PassResult:
        """Remove in place."""
        from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

        nodes = RemoveUnusedNodesPass()(model)
        functions = RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        opsets = RemoveUnusedOpsetsPass()(model)
        return PassResult(model, nodes.modified or functions.modified or opsets.modified)


class UniqueNames(GraphPass):
    """Name every node and value, each name once; names that are unique already stay."""

    name: ClassVar[str] = "unique-names"

    def call(self, model: ir.Model) -> PassResult:
        """Name in place, in graph order, so that equal graphs get equal names."""
        from onnx_ir.passes.common import NameFixPass

        unnamed = False
        for index, node in enumerate(model.graph.all_nodes()):
            if not node.name:
                node.name, unnamed = f"{node.op_type}_{index}", True
        return PassResult(model, NameFixPass()(model).modified or unnamed)

    def ensures(self, model: ir.Model) -> None:
        """Check the names of the top-level graph.

        Raises:
            PassError: one is missing or occurs twice.
        """
        nodes = [node.name for node in model.graph]
        values = [value.name for node in model.graph for value in node.outputs]
        if not all(nodes) or len(set(nodes)) != len(nodes) or len(set(values)) != len(values):
            raise PassError("Some nodes or values have no name of their own.")


class StripDocumentation(GraphPass):
    """Remove documentation strings and metadata, in which exporters leave paths of the training machine."""

    name: ClassVar[str] = "strip-documentation"

    def call(self, model: ir.Model) -> PassResult:
        """Strip in place."""
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass

        modified = ClearMetadataAndDocStringPass()(model).modified
        documented: list[ir.Model | ir.Value] = [model, *(v for graph in model.graphs() for v in _values(graph))]
        for item in documented:
            modified = modified or bool(item.doc_string or item.metadata_props)
            item.doc_string = None
            item.metadata_props.clear()
        for value in (v for graph in model.graphs() for v in graph.initializers.values()):
            modified = _strip_tensor(value) or modified
        return PassResult(model, modified)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    yield from (value for node in graph for value in node.outputs)


def _strip_tensor(value: ir.Value) -> bool:
    """Replace a documented tensor by a bare one; tensors read from a file cannot be edited."""
    import onnx_ir as ir

    tensor = value.const_value
    if tensor is None or not (tensor.doc_string or tensor.metadata_props):
        return False
    value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
    return True
