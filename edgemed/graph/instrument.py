"""Add range observers to a graph as ordinary ONNX nodes, so that activations never leave the runtime.

For each tensor x, small results become graph outputs: `amax = max|x|`, `total = sum|x|` (a maximum may pass over NaN, a
sum cannot), the exponent e of the smallest power of two above amax, and (if asked) the counts of |x| in `bins` bins of
width `2**e / bins`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgemed.graph.values import static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

PREFIX = "edgemed_observer"
_MIN_EXPONENT = -100  # below it, 1 / width would leave the range of normal FP32 numbers
_SLACK = 1e-9  # on log2(amax): an exponent one too large halves the resolution, one too small would overflow the bins
_SCATTER_ADD_OPSET = 16


@dataclass(frozen=True)
class Probe:
    """Names of the outputs that observe one tensor; `counts` is `None` where no histogram was asked for."""

    tensor: str
    amax: str
    total: str
    exponent: str
    counts: str | None


def instrument(
    model: ir.Model, tensors: Sequence[str], *, bins: int, histograms: bool = True
) -> tuple[ir.Model, list[Probe]]:
    """A copy of `model` whose outputs are the observers of `tensors` (and no longer the model's own).

    Args:
        model: a graph of opset 16 or later (the first in which ScatterElements adds).
        tensors: names of floating-point values of the main graph.
        bins: number of bins; a power of two.
        histograms: also count; otherwise only `amax` and the exponent are observed.

    Returns:
        The new model, and one probe per tensor, in their order.
    """
    import onnx_ir as ir

    copy = model.clone()
    copy.opset_imports[""] = max(copy.opset_imports.get("", 0), _SCATTER_ADD_OPSET)
    graph = copy.graph
    values = ir.convenience.create_value_mapping(graph)
    builder = _Builder(graph, bins)
    graph.outputs.clear()
    # ONNX Runtime starts from the last leaf of the graph: with the first tensor's observer there, each tensor is
    # observed and freed as soon as it is made, instead of all of them waiting for the end
    backwards = reversed(list(enumerate(tensors)))
    probes = [builder.observe(values[name], index, histograms=histograms) for index, name in backwards]
    return copy, probes[::-1]


class _Builder:
    def __init__(self, graph: ir.Graph, bins: int) -> None:
        self._graph = graph
        self._bins = bins
        self._constants: dict[str, ir.Value] = {}
        self._ones: dict[int, ir.Value] = {}

    def observe(self, value: ir.Value, index: int, *, histograms: bool) -> Probe:
        import onnx_ir as ir

        base = f"{PREFIX}/{index}"
        flat = self._node("Reshape", [value, self._constant("flat", np.array([-1], np.int64))], f"{base}/flat")
        magnitude = self._node("Abs", [flat], f"{base}/abs")
        amax = self._output(
            self._node("ReduceMax", [magnitude], f"{base}/amax", keepdims=0), ir.DataType.FLOAT, ir.Shape([])
        )
        total = self._node("ReduceSum", [magnitude], f"{base}/total", keepdims=0)
        self._output(total, ir.DataType.FLOAT, ir.Shape([]))
        exponent = self._exponent(amax, base)
        counts = self._counts(magnitude, exponent, value, base) if histograms else None
        assert value.name is not None
        return Probe(
            value.name, f"{base}/amax", f"{base}/total", f"{base}/exponent", counts.name if counts is not None else None
        )

    def _exponent(self, amax: ir.Value, base: str) -> ir.Value:
        """floor(log2(amax) + slack) + 1 in double precision, at least `_MIN_EXPONENT`."""
        import onnx_ir as ir

        wide = self._node("Cast", [amax], f"{base}/wide", to=ir.DataType.DOUBLE)
        log = self._node("Log", [wide], f"{base}/log")
        log2 = self._node("Mul", [log, self._constant("1/ln2", np.float64(1 / math.log(2)))], f"{base}/log2")
        shifted = self._node("Add", [log2, self._constant("1+slack", np.float64(1 + _SLACK))], f"{base}/shifted")
        floor = self._node("Floor", [shifted], f"{base}/floor")
        low = self._constant("lowest", np.float64(_MIN_EXPONENT))
        exponent = self._node("Max", [floor, low], f"{base}/exponent")
        return self._output(exponent, ir.DataType.DOUBLE, ir.Shape([]))

    def _counts(self, magnitude: ir.Value, exponent: ir.Value, value: ir.Value, base: str) -> ir.Value:
        import onnx_ir as ir

        two = self._constant("two", np.float64(2))
        bits = self._constant("log2 bins", np.float64(math.log2(self._bins)))
        shift = self._node("Sub", [bits, exponent], f"{base}/shift")
        per_unit = self._node("Cast", [self._node("Pow", [two, shift], f"{base}/pow")], f"{base}/per_unit", to=1)
        scaled = self._node("Mul", [magnitude, per_unit], f"{base}/scaled")  # exact: a power of two
        truncated = self._node("Cast", [scaled], f"{base}/truncated", to=ir.DataType.INT32)
        # only infinity and NaN leave the bins; the reader of `amax` reports them, the scatter would only crash
        lowest, highest = (self._constant(f"bin {i}", np.int32(i)) for i in (0, self._bins - 1))
        bin_index = self._node("Clip", [truncated, lowest, highest], f"{base}/bin")
        zeros = self._constant("zeros", np.zeros(self._bins, np.int32))
        ones = self._ones_like(bin_index, value, base)
        counts = self._node("ScatterElements", [zeros, bin_index, ones], f"{base}/counts", axis=0, reduction="add")
        return self._output(counts, ir.DataType.INT32, ir.Shape([self._bins]))

    def _ones_like(self, bin_index: ir.Value, value: ir.Value, base: str) -> ir.Value:
        """Ones, shared by all tensors of one size where sizes are known."""
        import onnx_ir as ir

        shape = static_shape(value)
        size = None if shape is None else math.prod(shape)
        if size is not None and size in self._ones:
            return self._ones[size]
        fill = ir.tensor(np.array([1], np.int32))
        if size is None:
            return self._node(
                "ConstantOfShape", [self._node("Shape", [bin_index], f"{base}/n")], f"{base}/1", value=fill
            )
        count = self._constant(f"size {size}", np.array([size], np.int64))
        self._ones[size] = self._node("ConstantOfShape", [count], f"{PREFIX}/ones/{size}", value=fill)
        return self._ones[size]

    def _constant(self, key: str, array: np.ndarray | np.generic) -> ir.Value:
        import onnx_ir as ir

        if key not in self._constants:
            name = f"{PREFIX}/constant/{key}"
            value = ir.Value(name=name, const_value=ir.tensor(np.asarray(array), name=name))
            self._graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def _node(self, op: str, inputs: list[ir.Value], output: str, **attributes: object) -> ir.Value:
        import onnx_ir as ir

        node = ir.node(op, inputs, attributes, outputs=[ir.Value(name=output)], name=output)  # type: ignore[arg-type]
        self._graph.append(node)
        return node.outputs[0]

    def _output(self, value: ir.Value, dtype: ir.DataType, shape: ir.Shape) -> ir.Value:
        import onnx_ir as ir

        value.type, value.shape = ir.TensorType(dtype), shape
        self._graph.outputs.append(value)
        return value
