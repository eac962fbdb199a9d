"""Which nodes of a graph stay in FP32 while the rest becomes FP16, and the reason for each.

FP16 ends at 65504, has 11 bits, and below 2^-14 loses those too. What a number can do to a model is seen on real
samples (`seen`) where it is known, and follows from the operator where it is not. Operators are listed, not excluded:
one that nobody has thought about stays in FP32.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from edgemed.base.errors import InputError
from edgemed.graph.normalization import normalizations
from edgemed.graph.pairs import LARGEST, LEVELS, SMALLEST_NORMAL, half_scale
from edgemed.graph.rules.base import LAYERS, RECURRENT, View, is_weight, quantized_value
from edgemed.graph.values import attribute_ints, constant_array, constant_values, is_preprocessing, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

HALF_ULP: Final = 2.0**-11
"""Largest relative rounding error of FP16's normal numbers."""
LIMIT: Final = LARGEST / 4
"""Largest magnitude on real samples with which a tensor becomes FP16: other images may reach more than these did."""

_EXACT_INTEGERS = 2048.0  # the integers up to here are FP16 numbers
_WEIGHT_ERROR = 2.0**-10  # relative, root mean square: twice the worst of normal numbers, so some of it was flushed

_BLOCK = 1 << 20

_MOVING = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Resize", "Slice"}
    | {"SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"}
)
_POINTWISE = frozenset(
    {"Abs", "Add", "Celu", "Clip", "Div", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min"}
    | {"Mul", "Neg", "PRelu", "Relu", "Selu", "Sigmoid", "Softsign", "Sub", "Tanh", "ThresholdedRelu"}
)
_POOLING = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
_REDUCING = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"})
FP16_OPS: Final = LAYERS | _MOVING | _POINTWISE | _POOLING | _REDUCING | {"BatchNormalization", "Cast"}
"""Operators that TensorRT's parser takes in FP16 and whose result FP16 does not spoil by itself."""

NEUTRAL: Final = frozenset({"Shape", "Size", "QuantizeLinear", "DequantizeLinear"})
"""Operators without a type of their own here: they read any type, or stand in a pair that has its own rules."""

_REASONS: dict[str, str] = {
    **dict.fromkeys(("Softmax", "LogSoftmax"), "exponentials and their sum leave the range of FP16"),
    **dict.fromkeys(("Exp", "Log", "Pow", "Softplus", "Mish", "Sqrt", "Reciprocal"), "leaves the range of FP16 early"),
    **dict.fromkeys(
        (
            *("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"),
            *("LpNormalization", "MeanVarianceNormalization", "ReduceSumSquare", "ReduceL2"),
        ),
        "squares leave the range of FP16, and variances lose their digits",
    ),
    **dict.fromkeys(RECURRENT, "rounding of the state would add up over the steps"),
    **dict.fromkeys(("If", "Loop", "Scan"), "bodies of control flow stay in FP32"),
    **dict.fromkeys(("ArgMax", "ArgMin", "TopK"), "rounded values tie, and a tie changes the index"),
}
_OTHER = "not known to be safe in FP16"
_ADDITIVE = {"Conv": (2,), "ConvTranspose": (2,), "Gemm": (2,)}
_MULTIPLICATIVE = LAYERS | {"Div", "Mul", "PRelu"}


@dataclass(frozen=True)
class KeptFloat:
    """A node that stays in FP32, and why; `tensor` is the one whose values are the reason, where one is."""

    node: str
    op: str
    reason: str
    tensor: str | None = None


class Precision:
    """The type of every node of the main graph.

    Args:
        model: a graph whose types and shapes are known.
        keep_float: names of nodes that must stay in FP32.
        seen: largest magnitude of each tensor on real samples; a tensor that is not there is not judged by it.

    Raises:
        InputError: `keep_float` names a node that the graph has not.
    """

    def __init__(self, model: ir.Model, keep_float: Collection[str], seen: Mapping[str, float]) -> None:
        self._view = View(model)
        self._graph = model.graph
        self._constants = constant_values(model)
        self._keep = _known(keep_float, model)
        self._seen, self._source = _with_dequantized(self._view, seen)
        self._normalizing = normalizations(model.graph)
        self.kept: dict[ir.Node, KeptFloat] = {}
        self.half: set[ir.Node] = set()
        for node in filter(self._computes, self._graph):
            reason = self._reason(node)
            if reason is None:
                self.half.add(node)
            else:
                self.kept[node] = reason
        self._drop_idle_islands()

    def is_constant(self, value: ir.Value) -> bool:
        """Whether a value depends on no graph input."""
        return value in self._constants

    def _computes(self, node: ir.Node) -> bool:
        """Whether a node has FP32 data in or out, and depends on an input."""
        if node.op_type in NEUTRAL or all(value in self._constants for value in node.outputs):
            return False
        if node.op_type == "Cast":  # reads any type; only what it gives matters
            return _is_float(node.outputs[0])
        return any(_is_float(value) for value in (*self._data(node), *node.outputs))

    def _data(self, node: ir.Node) -> list[ir.Value]:
        return [v for v in node.inputs if v is not None and v not in self._constants and _is_float(v)]

    def _reason(self, node: ir.Node) -> KeptFloat | None:
        for rule in (self._by_operator, self._by_range, self._by_scales, self._by_constants):
            found = rule(node)
            if found is not None:
                reason, tensor = found
                return KeptFloat(node.name or "", node.op_type, reason, tensor)
        return None

    def _by_operator(self, node: ir.Node) -> tuple[str, None] | None:
        if node.name in self._keep:
            return "asked for", None
        if is_preprocessing(node):
            return "prepares the image: FP16 holds 11 bits of a gray value", None
        if node in self._normalizing:
            return "part of a normalization: squares leave the range of FP16, and variances lose their digits", None
        if node.domain not in ("", "ai.onnx") or node.op_type not in FP16_OPS:
            return _REASONS.get(node.op_type, _OTHER), None
        if node in self._view.heads:
            return "gives the answer: in FP16, probabilities near 1 would tie", None
        if node in self._index_makers:
            return "computes an index", None
        if node in self._recurrent_feeds:
            return "feeds a recurrent layer, which reads FP32", None
        if node.op_type == "Div" and _computed(node.inputs[1], self._constants):
            return "its divisor is computed, and FP16 flushes small ones to zero", None
        if node.op_type == "Cast" and not self._exact_cast(node):
            return "casts numbers that FP16 cannot hold", None
        return None

    @cached_property
    def _recurrent_feeds(self) -> set[ir.Node]:
        """What stands between a recurrent layer and the layer, pooling or sum before it.

        It gains little by FP16, and TensorRT-RTX 1.7 fails on a Cast right in front of a recurrence that it unrolls.
        """
        found: set[ir.Node] = set()
        waiting = [node.inputs[0] for node in self._graph if node.op_type in RECURRENT]
        while waiting:
            value = waiting.pop()
            node = None if value is None else value.producer()
            ends = LAYERS | RECURRENT | _POOLING | _REDUCING | NEUTRAL
            if node is not None and node not in found and node.op_type not in ends:
                found.add(node)
                waiting += node.inputs
        return found

    def _exact_cast(self, node: ir.Node) -> bool:
        import onnx_ir as ir

        source = node.inputs[0]
        assert source is not None
        small = {ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.UINT8}
        largest = self._seen.get(node.outputs[0].name or "", math.inf)
        return source.dtype in small or (not _is_any_float(source) and largest <= _EXACT_INTEGERS)

    @cached_property
    def _index_makers(self) -> set[ir.Node]:
        """Nodes behind a cast to integers: coordinates, lengths, positions, which FP16 holds up to 2048 only."""
        found: set[ir.Node] = set()
        for node in reversed(self._graph):
            readers = [user for value in node.outputs for user, _ in value.uses()]
            starts = any(user.op_type == "Cast" and _is_integer(user.outputs[0]) for user in readers)
            if node.op_type not in LAYERS and (starts or any(reader in found for reader in readers)):
                found.add(node)
        return found

    def _by_range(self, node: ir.Node) -> tuple[str, str] | None:
        for value in (*node.outputs, *self._data(node)):
            largest = self._seen.get(value.name or "") if _is_float(value) else None
            name = self._source.get(value.name or "", value.name or "")
            if largest is None or largest == 0:
                continue
            if largest > LIMIT:
                largest = self._seen.get(name, largest)
                near = (
                    "; FP16 ends at"
                    if largest > LARGEST
                    else f", less than {LARGEST / LIMIT:.0f} times below FP16's end at"
                )
                return f"{name} reaches {largest:.3g} on real samples{near} {LARGEST:.0f}", name
            if largest < SMALLEST_NORMAL:
                return f"{name} stays below {largest:.1g} on real samples, where FP16 loses precision", name
        return self._by_sum(node)

    def _by_sum(self, node: ir.Node) -> tuple[str, str] | None:
        """A mean of numbers in range can have a sum beyond it, if a kernel adds in FP16."""
        terms = _terms(node)
        data = node.inputs[0]
        if terms is None or data is None or data.name is None or data.name not in self._seen:
            return None
        bound = terms * self._seen[data.name]
        if bound <= LARGEST:
            return None
        return f"the sum of {terms} values of {data.name} may reach {bound:.3g}; FP16 ends at {LARGEST:.0f}", data.name

    def _by_scales(self, node: ir.Node) -> tuple[str, str] | None:
        """A layer between FP32 pairs still runs in INT8; a Cast between pair and layer might hinder their fusion."""
        for value in node.inputs:
            maker = None if value is None else value.producer()
            if maker is None or maker.op_type != "DequantizeLinear":
                continue
            scale, source = constant_array(maker.inputs[1]), quantized_value(maker)
            if scale is None or half_scale(scale.astype(np.float32), weight=is_weight(maker)) is None:
                name = (source.name if source is not None else None) or ""
                return f"the INT8 scale of {name} is outside FP16's normal range", name
        return None

    def _by_constants(self, node: ir.Node) -> tuple[str, str] | None:
        for index, value in enumerate(node.inputs):
            array = constant_array(value)
            if value is None or array is None or array.dtype != np.float32 or index in fp32_inputs(node):
                continue
            fault = self._fault(node, index, array)
            if fault is not None:
                name = value.name or ""
                return f"{name} {fault}", name
        return None

    def _fault(self, node: ir.Node, index: int, array: NDArray[np.generic]) -> str | None:
        """What FP16 would do to a constant, or None where it does no harm."""
        found = _rounding_of(node, index, array)
        if found.largest > LARGEST:
            return f"reaches {found.largest:.3g}; FP16 ends at {LARGEST:.0f}"
        if node.op_type in _MULTIPLICATIVE and index not in _ADDITIVE.get(node.op_type, ()):
            harmful = math.sqrt(found.noise) > _WEIGHT_ERROR * math.sqrt(found.signal)
        else:  # what is added need only be as exact as the sum
            largest = self._seen.get(node.outputs[0].name or "", found.largest)
            harmful = found.largest_error > HALF_ULP * max(largest, found.largest)
        return "would lose precision: its values are below FP16's normal range" if harmful else None

    def _drop_idle_islands(self) -> None:
        """Leave groups of FP16 nodes in FP32 where no layer is among them and no pair touches them.

        All they would gain is a Cast on either side.
        """
        for island in self._islands():
            touching = {n for node in island for n in _neighbours(node)}
            if not any(n.op_type in LAYERS for n in island) and not any(
                n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in touching
            ):
                self.half -= island

    def _islands(self) -> Iterable[set[ir.Node]]:
        left = set(self.half)
        for start in self._graph:
            if start not in left:
                continue
            island, border = {start}, [start]
            while border:
                new = {n for n in _neighbours(border.pop()) if n in left and n not in island}
                island |= new
                border += new
            left -= island
            yield island


def fp32_inputs(node: ir.Node) -> tuple[int, ...]:
    """Float inputs of a node that keep their type when the node becomes FP16."""
    return {"Resize": (1, 2), "BatchNormalization": (1, 2, 3, 4), "Cast": (0,)}.get(node.op_type, ())


@dataclass
class _Rounding:
    """What FP16 does to the finite values of a constant: largest magnitude and error, sums of squares of both."""

    largest: float = 0.0
    largest_error: float = 0.0
    signal: float = 0.0
    noise: float = 0.0


def _rounding_of(node: ir.Node, index: int, array: NDArray[np.generic]) -> _Rounding:
    found, flat = _Rounding(), array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):  # in double precision at once, a weight would take several times itself
        part = flat[start : start + _BLOCK]
        numbers, exact = to_half(node, index, part).astype(np.float64), part.astype(np.float64)
        if node.op_type == "Clip":
            exact = np.clip(exact, -LARGEST, LARGEST)
        finite = np.isfinite(exact)
        error, exact = (numbers - exact)[finite & np.isfinite(numbers)], exact[finite]
        found.largest = max(found.largest, float(np.abs(exact).max(initial=0)))
        found.largest_error = max(found.largest_error, float(np.abs(error).max(initial=0)))
        found.signal += float(exact @ exact)
        found.noise += float(error @ error)
    return found


def to_half(node: ir.Node, index: int, array: NDArray[np.generic]) -> NDArray[np.float16]:
    """A constant of `node` in FP16; the bounds of Clip saturate, as no FP16 number lies beyond them."""
    if node.op_type == "Clip" and index > 0:
        array = np.clip(array, -LARGEST, LARGEST)
    with np.errstate(over="ignore", under="ignore"):
        return array.astype(np.float16)


def _known(names: Collection[str], model: ir.Model) -> frozenset[str]:
    known = {node.name for node in model.graph}
    for name in names:
        if name not in known:
            raise InputError(f"There is no node {name} to keep in FP32.", "Give names of nodes of the float graph.")
    return frozenset(names)


def _with_dequantized(view: View, seen: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """`seen` with a bound for what dequantizers give, and the tensor each of those stands for."""
    bounds, source = dict(seen), {}
    for node in view.dequantizers:
        scale, quantizer = constant_array(node.inputs[1]), node.inputs[0].producer() if node.inputs[0] else None
        name = node.outputs[0].name
        if scale is None or name is None or is_weight(node) or quantizer is None:
            continue
        bounds[name] = LEVELS * float(scale.max())
        source[name] = (quantizer.inputs[0].name if quantizer.inputs[0] else None) or name
    return bounds, source


def _terms(node: ir.Node) -> int | None:
    """How many values a mean or sum adds for one result; None for other operators and unknown shapes."""
    if node.op_type == "AveragePool":
        return math.prod(attribute_ints(node, "kernel_shape", ()))
    shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if node.op_type not in ("GlobalAveragePool", "ReduceMean", "ReduceSum") or shape is None or result is None:
        return None
    return math.prod(shape) // max(math.prod(result), 1)


def _neighbours(node: ir.Node) -> set[ir.Node]:
    makers = {value.producer() for value in node.inputs if value is not None}
    users = {user for value in node.outputs for user, _ in value.uses()}
    return {n for n in makers | users if n is not None}


def _computed(value: ir.Value | None, constants: Collection[ir.Value]) -> bool:
    return value is not None and value not in constants


def _is_float(value: ir.Value) -> bool:
    import onnx_ir as ir

    return value.dtype == ir.DataType.FLOAT


def _is_any_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _is_integer(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_integer()
