"""Small edits that the passes share."""

from __future__ import annotations

from itertools import chain, count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray


def add_initializer(graph: ir.Graph, base: str, array: NDArray[np.generic]) -> ir.Value:
    """Register `array` as an initializer under the first free name of `base`, `base_1`, `base_2`, ..."""
    import onnx_ir as ir

    taken = {v.name for v in graph.inputs} | set(graph.initializers) | {v.name for n in graph for v in n.outputs}
    names = chain([base], (f"{base}_{i}" for i in count(1)))
    name = next(candidate for candidate in names if candidate not in taken)
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def can_bypass(node: ir.Node) -> bool:
    """Return whether `bypass` can take the node out: not when both its ends are graph inputs or outputs."""
    source, result = node.inputs[0], node.outputs[0]
    return source is not None and not (
        result.is_graph_output() and (source.is_graph_output() or source.is_graph_input() or source.is_initializer())
    )


def bypass(node: ir.Node) -> None:
    """Take out a node of one output: its readers read its first input instead. Graph output names stay."""
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    replace_value(result, source)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of `old` read `new`; where `old` is a graph output, `new` takes its place and name."""
    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return
    name, shape, kind = old.name, old.shape, old.type
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = f"{name}_replaced"
    new.name, new.shape, new.type = name, shape, kind
