"""Preprocessing in front of a graph: nodes by a name of their own, which every stage leaves in FP32.

Gray values of 12 and more bits do not fit FP16, and resampling is exact arithmetic that the rest of the build is
measured against: nothing of it is quantized or rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgemed.graph.model import infer_shapes
from edgemed.graph.values import PREFIX, is_preprocessing

if TYPE_CHECKING:
    import onnx_ir as ir


def prepared_only(model: ir.Model, name: str) -> ir.Model:
    """A copy that gives what the preprocessing of input `name` makes, and nothing of the model behind it."""
    copy = model.clone()
    graph = copy.graph
    value = next(v for node in graph for v in node.outputs if v.name == f"{name}/prepared")
    graph.outputs.clear()
    graph.outputs.append(value)
    behind = [node for node in graph if not is_preprocessing(node)]
    graph.remove(behind, safe=False)
    for key in [key for key, v in graph.initializers.items() if not v.uses()]:
        del graph.initializers[key]
    return copy


class Prefix:
    """Grows in front of one input of a graph: `add` nodes, then `close`.

    Args:
        model: changed in place.
        name: of the input. The new input takes it over; what the model read becomes `NAME/prepared`.
        dtype: of the new input: `uint8` or `float32`.
        shape: of the new input, without the batch.
    """

    def __init__(self, model: ir.Model, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        import onnx_ir as ir

        self._model, self._name, self._count = model, name, 0
        self._nodes: list[ir.Node] = []
        self._old = next(value for value in model.graph.inputs if value.name == name)
        assert self._old.shape is not None
        kind = {"uint8": ir.DataType.UINT8, "float32": ir.DataType.FLOAT}[dtype]
        fed = ir.Shape([self._old.shape[0], *shape])
        self._fed = ir.Value(name=name, type=ir.TensorType(kind), shape=fed)
        self.value = self._fed

    def add(self, op: str, *constants: np.ndarray | np.generic, front: bool = False, **attributes: object) -> None:
        """One node that reads the last one's output.

        Args:
            op: ONNX operator.
            constants: its other inputs.
            front: the constants stand before the data.
            attributes: of the node.
        """
        import onnx_ir as ir

        name = f"{PREFIX}/{self._count}/{op}"
        self._count += 1
        others = [self._constant(f"{name}/{i}", np.asarray(array)) for i, array in enumerate(constants)]
        inputs = [*others, self.value] if front else [self.value, *others]
        node = ir.node(op, inputs, attributes, outputs=[ir.Value(name=name)], name=name)  # type: ignore[arg-type]
        self._nodes.append(node)
        self.value = node.outputs[0]

    def close(self) -> ir.Model:
        """Join the nodes to the graph and infer its shapes anew."""
        graph, old, new = self._model.graph, self._old, self._fed
        graph.inputs[graph.inputs.index(old)] = new
        self.value.name = f"{self._name}/prepared"
        for node, index in list(old.uses()):
            if node not in self._nodes:
                node.replace_input_with(index, self.value)
        graph.insert_before(graph[0], self._nodes)
        return infer_shapes(self._model)

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        import onnx_ir as ir

        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        self._model.graph.register_initializer(value)
        return value
