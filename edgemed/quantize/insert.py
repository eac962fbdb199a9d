"""Write Q/DQ pairs into a graph: FP32 weights and activations, symmetric int8, zero point 0.

Weights keep their FP32 values behind a Q/DQ pair, the form that every TensorRT since 8.0 takes (weights stored as
int8 behind a lone DequantizeLinear are a later addition).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.graph.scales import INT8_MAX, SMALLEST_SCALE, ScaleTable, TensorScale, scale_of
from edgemed.graph.values import constant_array, values_by_name
from edgemed.quantize.placement import ActivationPair, Placement, WeightPair

if TYPE_CHECKING:
    import onnx_ir as ir

_ZERO_POINT = "edgemed/zero_point"


_LARGEST_SHARED_RATIO = 4.0
"""Sharing costs a tensor log2(ratio) of its 8 bits. Up to 2 bits it is cheaper than a kernel that requantizes."""


def share_scales(table: ScaleTable, placement: Placement) -> ScaleTable:
    """The table with one common range, the largest, for tensors that should share their scale.

    A Concat input whose range is below a quarter of the Concat's keeps its own: another branch may read it.
    """
    tensors = dict(table.tensors)
    groups = tuple(_comparable(group, table) for group in placement.shared_scales)
    for group in _merged(groups):
        known = [name for name in group if name in tensors]
        amax = max((tensors[name].amax for name in known), default=0.0)
        tensors.update({name: TensorScale(amax=amax, scale=scale_of(amax), seen=tensors[name].seen) for name in known})
    return table.model_copy(update={"tensors": tensors})


def _comparable(group: tuple[str, ...], table: ScaleTable) -> tuple[str, ...]:
    amax = {name: table.tensors[name].amax for name in group if name in table.tensors}
    largest = max(amax.values(), default=0.0)
    return tuple(name for name, value in amax.items() if value * _LARGEST_SHARED_RATIO >= largest)


def _merged(groups: tuple[tuple[str, ...], ...]) -> list[set[str]]:
    """Groups that have a tensor in common become one."""
    merged: list[set[str]] = []
    for group in groups:
        joined = set(group)
        rest = []
        for other in merged:
            if joined & other:
                joined |= other
            else:
                rest.append(other)
        merged = [*rest, joined]
    return merged


def weight_scales(weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Per-channel scales `max|w| / 127` along `axis`; an all-zero channel gets the smallest scale."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    amax = np.abs(weight).max(axis=others)
    scales: NDArray[np.float32] = np.maximum(amax / np.float32(INT8_MAX), np.float32(SMALLEST_SCALE))
    return scales.astype(np.float32)


def weight_sqnr_db(weight: NDArray[np.float32], axis: int) -> float | None:
    """Signal-to-quantization-noise ratio of a weight, per-channel int8; `None` where nothing is lost."""
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    scale = weight_scales(weight, axis).reshape(shape)
    noise = float(((np.rint(weight / scale) * scale - weight).astype(np.float64) ** 2).sum())
    signal = float((weight.astype(np.float64) ** 2).sum())
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else None


def insert(model: ir.Model, placement: Placement, table: ScaleTable) -> ir.Model:
    """Insert all pairs of `placement` into `model`, in place, and return it.

    Args:
        model: the clean graph that `placement` was made for.
        placement: where the pairs go.
        table: scale of every activation tensor that gets a pair.

    Raises:
        InputError: a tensor that needs a scale is not in the table (it belongs to another graph).
    """
    writer = _Writer(model)
    for activation in placement.activations:
        writer.activation(activation, table)
    for weight in placement.weights:
        writer.weight(weight)
    model.graph.sort()
    return model


class _Writer:
    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._taken = set(values_by_name(model))
        self._zero = self._initializer(_ZERO_POINT, np.zeros((), np.int8))

    def activation(self, pair: ActivationPair, table: ScaleTable) -> None:
        name = pair.tensor.name or ""
        if name not in table.tensors:
            raise InputError(f"The scale table has no tensor {name}.", "Calibrate this graph anew.")
        scale = self._initializer(f"{name}/scale", np.float32(table.tensors[name].scale))
        restored = self._pair(pair.tensor, scale, self._zero, name, {})
        for node, index in pair.uses:
            node.replace_input_with(index, restored)

    def weight(self, pair: WeightPair) -> None:
        array = constant_array(pair.weight)
        assert array is not None
        name = pair.weight.name or f"{pair.node.name}/weight"
        scales = weight_scales(array.astype(np.float32), pair.axis)
        scale = self._initializer(f"{name}/scale", scales)
        zero = self._initializer(f"{name}/zero_point", np.zeros(scales.shape, np.int8))
        pair.node.replace_input_with(pair.index, self._pair(pair.weight, scale, zero, name, {"axis": pair.axis}))

    def _pair(
        self, value: ir.Value, scale: ir.Value, zero: ir.Value, name: str, attributes: dict[str, int]
    ) -> ir.Value:
        import onnx_ir as ir

        quantized = ir.Value(name=self._fresh(f"{name}/int8"), type=ir.TensorType(ir.DataType.INT8), shape=value.shape)
        restored = ir.Value(
            name=self._fresh(f"{name}/restored"), type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape
        )
        q = ir.node("QuantizeLinear", [value, scale, zero], attributes, outputs=[quantized], name=f"{name}/Q")
        dq = ir.node("DequantizeLinear", [quantized, scale, zero], attributes, outputs=[restored], name=f"{name}/DQ")
        self._graph.extend([q, dq])
        return restored

    def _initializer(self, name: str, array: NDArray[np.generic] | np.generic) -> ir.Value:
        import onnx_ir as ir

        name = self._fresh(name)
        value = ir.Value(name=name, const_value=ir.tensor(np.asarray(array), name=name))
        self._graph.register_initializer(value)
        return value

    def _fresh(self, name: str) -> str:
        """`name`, or the first of `name_1`, `name_2`, ... that no value of the graph has."""
        unique, count = name, 0
        while unique in self._taken:
            count += 1
            unique = f"{name}_{count}"
        self._taken.add(unique)
        return unique
