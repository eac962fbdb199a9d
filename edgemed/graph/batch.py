"""Graphs whose batch varies: one dimension by one name, pinned to a number wherever sizes must be known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgemed.graph.model import infer_shapes
from edgemed.graph.values import static_shape, values_by_name

if TYPE_CHECKING:
    import onnx_ir as ir

BATCH: Final = "batch"
"""Name of the first dimension of inputs and outputs where it varies."""


def pinned(model: ir.Model, batch: int) -> ir.Model:
    """A copy whose inputs and outputs have that batch, with all shapes that follow; the nodes are the same.

    Raises:
        InputError: some shape contradicts it.
    """
    copy = model.clone()
    sizes: dict[str | None, int | str] = {
        v.name: batch for v in (*copy.graph.inputs, *copy.graph.outputs) if _first(v) == BATCH
    }
    return _resolve(_with_first(copy, sizes))


def _resolve(model: ir.Model) -> ir.Model:
    """Fill in shapes that a graph computes by arithmetic which shape inference does not follow, in place.

    With the batch fixed, all of that arithmetic is constant: it is folded in a copy, and the copy's shapes are taken.
    """
    from edgemed.graph.passes.slim import Slim

    open_ = [v for node in model.graph for v in node.outputs if static_shape(v) is None]
    if open_:
        known = values_by_name(infer_shapes(Slim(fold_only=True).call(model.clone()).model))
        for value in open_:
            found = known.get(value.name or "")
            if found is not None and static_shape(found) is not None:
                value.shape = found.shape
    return model


def released(model: ir.Model, like: ir.Model) -> ir.Model:
    """A copy in which the batch varies wherever it does in `like`, the graph that was pinned to make `model`."""
    varying = {v.name for v in (*like.graph.inputs, *like.graph.outputs) if _first(v) == BATCH}
    return _with_first(model.clone(), dict.fromkeys(varying, BATCH))


def _with_first(model: ir.Model, first: dict[str | None, int | str]) -> ir.Model:
    """Set the first dimension of inputs and outputs by name, and infer the rest anew, in place."""
    import onnx_ir as ir

    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name in first and value.shape is not None:
            value.shape = ir.Shape([first[value.name], *value.shape[1:]])
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    return infer_shapes(model)


def _first(value: ir.Value) -> int | str | None:
    if value.shape is None or not len(value.shape):
        return None
    dim = value.shape[0]
    return dim if isinstance(dim, int) else dim.value
