"""Questions about the values and nodes of a graph: constants, shapes, who makes and who reads a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

PREFIX: Final = "edgemed_preprocessing"
"""What names of nodes in front of the model begin with, see `graph.prefix`."""


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Shape of a value as integers, or None where any dimension is unknown."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(d) for d in value.shape.numpy())


def constant_array(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Array of an initializer or of a Constant node's output; None for anything that is computed or fed."""
    import onnx_ir as ir

    if value is None or value.is_graph_input():
        return None  # an initializer that is also an input is a default that the caller may override
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def constant_values(model: ir.Model) -> set[ir.Value]:
    """Return the top-level values that do not depend on any graph input: constants and what is computed from them."""
    constants = {v for v in model.graph.initializers.values() if not v.is_graph_input()}
    for node in model.graph:
        inputs = [v for v in node.inputs if v is not None]
        if _has_body(node):
            continue  # what a body captures is no input of its node
        if node.op_type == "Constant" or (inputs and all(v in constants for v in inputs)):
            constants.update(node.outputs)
    return constants


def _has_body(node: ir.Node) -> bool:
    import onnx_ir as ir

    return any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())


def is_preprocessing(node: ir.Node) -> bool:
    """Whether a node stands in front of the model that was trained, see `graph.prefix`."""
    return (node.name or "").startswith(PREFIX)


def float_values(model: ir.Model) -> list[str]:
    """Names of all FP32 tensors of the top-level graph that depend on an input, in graph order.

    Graph inputs and outputs are among them; weights and other constants are not, nor what preprocessing in front of the
    model computes. Types must be known: run `infer_shapes` first.
    """
    import onnx_ir as ir

    constants = constant_values(model)
    values = [
        v
        for v in (*model.graph.inputs, *(v for node in model.graph for v in node.outputs))
        if not v.uses() or not all(map(is_preprocessing, (node for node, _ in v.uses())))
    ]
    return [v.name for v in values if v.name and v.dtype == ir.DataType.FLOAT and v not in constants]


def values_by_name(model: ir.Model) -> dict[str, ir.Value]:
    """All values of the top-level graph by name."""
    import onnx_ir as ir

    return dict(ir.convenience.create_value_mapping(model.graph, include_subgraphs=False))


def producer(value: ir.Value | None) -> ir.Node | None:
    """Return the node that computes `value`, or None for inputs and initializers."""
    return None if value is None else value.producer()


def consumers(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Nodes that read `value`, each with the index of the input it reads it by; subgraphs included."""
    return [(usage.node, usage.idx) for usage in value.uses()]


def only_consumer(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads `value`, or None where there are more, none, or it is a graph output."""
    users = consumers(value)
    return users[0][0] if len(users) == 1 and not value.is_graph_output() else None


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """Integer attribute of a node, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def attribute_ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    """Integer-list attribute of a node, or its default."""
    attribute = node.attributes.get(name)
    return list(default) if attribute is None else list(attribute.as_ints())


def attribute_str(node: ir.Node, name: str, default: str) -> str:
    """String attribute of a node, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()
