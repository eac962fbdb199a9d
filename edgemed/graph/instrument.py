"""Add range observers to a graph as ordinary ONNX nodes, so that activations never leave the runtime.

For each observed tensor x, small results become graph outputs: its largest and smallest value, `total = sum|x|` (an
extreme may pass over NaN, a sum cannot), and (if asked) the counts of x in `bins` bins on each side of zero.

Counting costs more than all else. So tensors that one count answers for share it: what only rearranges x holds the same
values, and relu(x) holds those above zero, for which bins as narrow as relu(x) itself would get are counted. And of a
large tensor every s-th value is counted, where s shares no divisor with its size: rows, columns and channels are met
alike; extremes and sum are those of all values. The choice depends on the size alone: neither the order of samples
nor a split over machines changes what is counted.
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
_COUNTED = 1 << 15
"""Values of one tensor that are counted per sample: 100 samples give some 3 million, of which 300 lie above 99.99 %."""
_REARRANGING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


@dataclass(frozen=True)
class Probe:
    """What one observer sees, and the names of its outputs.

    Attributes:
        same: tensors that hold the observed values.
        rectified: tensors that hold the observed values, with zero for what is below it.
        low: smallest value.
        high: largest value.
        total: sum of magnitudes.
        exponents: of the bins for magnitudes of all values, and for values above zero.
        counts: `2 * bins` of them; values above zero first, the others from the end; `None` where none were asked for.
    """

    same: tuple[str, ...]
    rectified: tuple[str, ...]
    low: str
    high: str
    total: str
    exponents: tuple[str, str] | None
    counts: str | None


def instrument(
    model: ir.Model, tensors: Sequence[str], *, bins: int, histograms: bool = True
) -> tuple[ir.Model, list[Probe]]:
    """A copy of `model` whose outputs are the observers of `tensors` (and no longer the model's own).

    Args:
        model: a graph of opset 16 or later (the first in which ScatterElements adds).
        tensors: names of floating-point values of the main graph.
        bins: number of bins; a power of two.
        histograms: also count; otherwise only extremes and sum are observed.

    Returns:
        The new model, and probes that see each tensor once, in the order of the first tensor of each.
    """
    import onnx_ir as ir

    copy = model.clone()
    copy.opset_imports[""] = max(copy.opset_imports.get("", 0), _SCATTER_ADD_OPSET)
    graph = copy.graph
    values = ir.convenience.create_value_mapping(graph)
    groups = _groups([values[name] for name in tensors])
    builder = _Builder(graph, bins, histograms=histograms)
    graph.outputs.clear()
    # ONNX Runtime starts from the last leaf of the graph: with the first tensor's observer there, each tensor is
    # observed and freed as soon as it is made, instead of all of them waiting for the end
    probes = [builder.observe(group, index) for index, group in reversed(list(enumerate(groups)))]
    return copy, probes[::-1]


@dataclass
class _Group:
    source: ir.Value
    same: list[str]
    rectified: list[str]


def _groups(values: Sequence[ir.Value]) -> list[_Group]:
    groups: dict[ir.Value, _Group] = {}
    wanted = set(values)
    for value in values:
        source, rectified = _source(value, wanted)
        group = groups.setdefault(source, _Group(source, [], []))
        assert value.name is not None
        (group.rectified if rectified else group.same).append(value.name)
    return list(groups.values())


def _source(value: ir.Value, wanted: set[ir.Value]) -> tuple[ir.Value, bool]:
    """The first of the wanted values that holds what `value` holds, and whether a Relu stands between the two."""
    rectified = False
    while (node := value.producer()) is not None and node.domain == "":
        before = node.inputs[0] if node.inputs else None
        if before not in wanted or node.op_type not in _REARRANGING | {"Relu"}:
            break
        rectified = rectified or node.op_type == "Relu"
        value = before
    return value, rectified


def stride(size: int | None) -> int:
    """Every how many-th value of a tensor of `size` values is counted; all where the size is not known."""
    step = 1 if size is None else max(1, size // _COUNTED)
    while size is not None and math.gcd(step, size) > 1:
        step += 1
    return step


def _size(value: ir.Value) -> int | None:
    shape = static_shape(value)
    return None if shape is None else math.prod(shape)


class _Builder:
    def __init__(self, graph: ir.Graph, bins: int, *, histograms: bool) -> None:
        self._graph = graph
        self._bins = bins
        self._histograms = histograms
        self._constants: dict[str, ir.Value] = {}
        self._ones: dict[int, ir.Value] = {}

    def observe(self, group: _Group, index: int) -> Probe:
        base, value = f"{PREFIX}/{index}", group.source
        flat = self._node("Reshape", [value, self._constant("flat", np.array([-1], np.int64))], f"{base}/flat")
        high = self._scalar(self._node("ReduceMax", [flat], f"{base}/high", keepdims=0))
        low = self._scalar(self._node("ReduceMin", [flat], f"{base}/low", keepdims=0))
        self._scalar(self._node("ReduceL1", [flat], f"{base}/total", keepdims=0))
        exponents = counts = None
        if self._histograms:
            amax = self._node("Max", [high, self._node("Neg", [low], f"{base}/-low")], f"{base}/amax")
            both = self._exponent(amax, base)
            above = self._exponent(high, f"{base}/above") if group.rectified else both
            part = self._sampled(flat, value, base)
            scaled = self._scaled(part, both, base)
            if above is not both:
                # of two values above zero the larger is that in narrower bins, of two below it that in wider ones
                scaled = self._node("Max", [scaled, self._scaled(part, above, f"{base}/above")], f"{base}/either")
            counts = self._counts(scaled, value, base).name
            exponents = (f"{both.name}", f"{above.name}")
        names = (f"{base}/low", f"{base}/high", f"{base}/total")
        return Probe(tuple(group.same), tuple(group.rectified), *names, exponents, counts)

    def _exponent(self, amax: ir.Value, base: str) -> ir.Value:
        """floor(log2(amax) + slack) + 1 in double precision, at least `_MIN_EXPONENT`, as for all amax below zero."""
        import onnx_ir as ir

        wide = self._node("Cast", [amax], f"{base}/wide", to=ir.DataType.DOUBLE)
        smallest = self._constant("smallest", np.float64(2.0 ** (_MIN_EXPONENT - 1)))
        log = self._node("Log", [self._node("Max", [wide, smallest], f"{base}/positive")], f"{base}/log")
        log2 = self._node("Mul", [log, self._constant("1/ln2", np.float64(1 / math.log(2)))], f"{base}/log2")
        shifted = self._node("Add", [log2, self._constant("1+slack", np.float64(1 + _SLACK))], f"{base}/shifted")
        return self._scalar(self._node("Floor", [shifted], f"{base}/exponent"), ir.DataType.DOUBLE)

    def _sampled(self, flat: ir.Value, value: ir.Value, base: str) -> ir.Value:
        step = stride(_size(value))
        if step == 1:
            return flat
        names = {"start": 0, "end": np.iinfo(np.int64).max, "axis": 0, f"step {step}": step}
        arguments = [self._constant(name, np.array([number], np.int64)) for name, number in names.items()]
        return self._node("Slice", [flat, *arguments], f"{base}/sampled")

    def _scaled(self, flat: ir.Value, exponent: ir.Value, base: str) -> ir.Value:
        """Values in widths of a bin; exact, as the width is a power of two."""
        two = self._constant("two", np.float64(2))
        bits = self._constant("log2 bins", np.float64(math.log2(self._bins)))
        shift = self._node("Sub", [bits, exponent], f"{base}/shift")
        per_unit = self._node("Cast", [self._node("Pow", [two, shift], f"{base}/pow")], f"{base}/per_unit", to=1)
        return self._node("Mul", [flat, per_unit], f"{base}/scaled")

    def _counts(self, scaled: ir.Value, value: ir.Value, base: str) -> ir.Value:
        import onnx_ir as ir

        truncated = self._node("Cast", [scaled], f"{base}/truncated", to=ir.DataType.INT32)
        # only infinity and NaN leave the bins; the reader of the sum reports them, the scatter would only crash
        lowest, highest = (self._constant(f"bin {i}", np.int32(i)) for i in (1 - self._bins, self._bins - 1))
        bin_index = self._node("Clip", [truncated, lowest, highest], f"{base}/bin")
        zeros = self._constant("zeros", np.zeros(2 * self._bins, np.int32))
        ones = self._ones_like(bin_index, value, base)
        # an index below zero counts from the end
        counts = self._node("ScatterElements", [zeros, bin_index, ones], f"{base}/counts", axis=0, reduction="add")
        return self._output(counts, ir.DataType.INT32, ir.Shape([2 * self._bins]))

    def _ones_like(self, bin_index: ir.Value, value: ir.Value, base: str) -> ir.Value:
        """Ones, shared by all tensors of one size where sizes are known."""
        import onnx_ir as ir

        size = _size(value)
        size = None if size is None else -(-size // stride(size))
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

    def _scalar(self, value: ir.Value, dtype: ir.DataType | None = None) -> ir.Value:
        import onnx_ir as ir

        return self._output(value, dtype or ir.DataType.FLOAT, ir.Shape([]))

    def _output(self, value: ir.Value, dtype: ir.DataType, shape: ir.Shape) -> ir.Value:
        import onnx_ir as ir

        value.type, value.shape = ir.TensorType(dtype), shape
        self._graph.outputs.append(value)
        return value
