"""Heads: the Softmax and Sigmoid nodes whose values are the model's answer, and what is computed from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgemed.graph.values import consumers

if TYPE_CHECKING:
    import onnx_ir as ir

LAYERS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_HEADS: Final = frozenset({"Softmax", "Sigmoid"})


def leading_to_layers(graph: ir.Graph) -> set[ir.Node]:
    """Nodes from which a Conv, ConvTranspose, Gemm or MatMul can be reached, themselves included."""
    found: set[ir.Node] = set()
    for node in reversed(graph):
        readers = [user for value in node.outputs for user, _ in consumers(value)]
        # a reader inside a body of Loop, If or Scan may compute anything
        if node.op_type in LAYERS or any(r in found or r.graph is not graph for r in readers):
            found.add(node)
    return found


def heads(graph: ir.Graph) -> set[ir.Node]:
    """Softmax and Sigmoid nodes that no layer follows."""
    followed = leading_to_layers(graph)
    return {node for node in graph if node.op_type in _HEADS and node not in followed}


def computed_from_heads(graph: ir.Graph) -> set[ir.Value]:
    """Values that depend on the output of a head."""
    own = heads(graph)
    found: set[ir.Value] = set()
    for node in graph:
        if node in own or any(value in found for value in node.inputs if value is not None):
            found.update(node.outputs)
    return found
