"""What a strongly typed FP16 graph computes, as an FP32 graph that rounds every FP16 tensor.

ONNX Runtime's CPU provider has few FP16 kernels: it runs chains of FP16 nodes in FP32 and drops the Casts between
them, so that a tensor which overflows FP16 on a GPU looks fine (measured with 1.31: a chain through 1e5 stays finite).
Casts that stand in the graph are kept, so here they stand. Products are summed in FP32, as tensor cores do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def rounded(model: ir.Model) -> ir.Model:
    """An FP32 copy of a typed graph in which every tensor that was FP16 is rounded to FP16.

    Args:
        model: a graph from `to_fp16`; its types are known.
    """
    import onnx_ir as ir

    copy = model.clone()
    nodes = list(copy.graph)
    for value in list(copy.graph.initializers.values()):
        if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT16:
            _widen(copy.graph, value)  # by a Cast, which ONNX Runtime folds: a copy would be twice the weight
    for node in nodes:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT16:
                _round(copy.graph, node, value)
    copy.graph.sort()
    return copy


def _widen(graph: ir.Graph, value: ir.Value) -> None:
    import onnx_ir as ir

    readers = list(value.uses())
    name, kind = f"{value.name}/as_fp32", ir.DataType.FLOAT
    result = ir.Value(name=name, type=ir.TensorType(kind), shape=value.shape)
    graph.append(ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(kind))], outputs=[result], name=name))
    for user, index in readers:
        user.replace_input_with(index, result)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Put Cast to FP16 and back behind `value`, which a node now gives in FP32."""
    import onnx_ir as ir

    readers, last = list(value.uses()), value
    steps = {"as_fp16": ir.DataType.FLOAT16, "as_fp32": ir.DataType.FLOAT}
    if node.op_type == "Cast":
        del steps["as_fp16"]  # it rounds by itself, whatever it reads
    else:
        value.type = ir.TensorType(ir.DataType.FLOAT)  # the old type is shared with the original
    for suffix, kind in steps.items():
        name = f"{value.name}/{suffix}"
        result = ir.Value(name=name, type=ir.TensorType(kind), shape=value.shape)
        graph.append(ir.Node("", "Cast", [last], [ir.AttrInt64("to", int(kind))], outputs=[result], name=name))
        last = result
    for user, index in readers:
        user.replace_input_with(index, last)
