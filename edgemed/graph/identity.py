"""The digest of a graph: what a scale table or a result belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgemed.base.hashing import canonical_json, sha256_bytes

if TYPE_CHECKING:
    import onnx_ir as ir


def digest(model: ir.Model) -> str:
    """Hex SHA-256 of structure and weights: the same for equal models, wherever they are stored.

    Covered: opsets, inputs, outputs, nodes with their attributes, value names, initializers. Not covered: node
    names, documentation, metadata, producer, IR version.
    """
    parts = [sorted(model.opset_imports.items()), _graph_identity(model.graph)]
    parts += [[str(key), _nodes_identity(function)] for key, function in sorted(model.functions.items())]
    return sha256_bytes(canonical_json(parts))


def _graph_identity(graph: ir.Graph) -> list[Any]:
    def typed(values: Sequence[ir.Value]) -> list[Any]:
        return [[v.name, str(v.dtype), str(v.shape)] for v in values]

    weights = [[name, _tensor_identity(v.const_value)] for name, v in sorted(graph.initializers.items())]
    return [typed(graph.inputs), typed(graph.outputs), weights, _nodes_identity(graph)]


def _nodes_identity(nodes: Sequence[ir.Node]) -> list[Any]:
    def names(values: Sequence[ir.Value | None]) -> list[str]:
        return [v.name or "" if v is not None else "" for v in values]

    return [
        [
            n.domain,
            n.op_type,
            names(n.inputs),
            names(n.outputs),
            [[name, _attribute_identity(attribute)] for name, attribute in sorted(n.attributes.items())],
        ]
        for n in nodes
    ]


def _attribute_identity(attribute: ir.Attr) -> Any:
    import onnx_ir as ir

    kind, value = attribute.type, attribute.value
    if kind == ir.AttributeType.GRAPH:
        return _graph_identity(attribute.as_graph())
    if kind == ir.AttributeType.GRAPHS:
        return [_graph_identity(graph) for graph in attribute.as_graphs()]
    if kind == ir.AttributeType.TENSOR:
        return _tensor_identity(attribute.as_tensor())
    if kind == ir.AttributeType.FLOAT:
        return attribute.as_float().hex()
    if kind == ir.AttributeType.FLOATS:
        return [number.hex() for number in attribute.as_floats()]
    return [str(kind), str(attribute.ref_attr_name or value)]


def _tensor_identity(tensor: ir.TensorProtocol | None) -> list[Any]:
    if tensor is None:
        return []
    return [str(tensor.dtype), [int(d) for d in tensor.shape.numpy()], hashlib.sha256(tensor.tobytes()).hexdigest()]
