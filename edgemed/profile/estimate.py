"""A bound before there is hardware: no engine on this device can be faster, if the data sheet is right.

Two bounds of one frame. The **floor** takes all arithmetic at the peak rate, and weights, inputs and outputs through
DRAM once; whatever is larger. The **roofline** goes layer by layer, one after another: each takes as long as its
arithmetic, or as its own weights and activations through DRAM, whatever is larger (S. Williams, A. Waterman,
D. Patterson, Roofline, CACM 52 (2009)). An engine that keeps activations in cache can be faster than the roofline, none
is faster than the floor. Neither is a measurement, and neither says how close an engine comes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from edgemed.base.errors import InputError
from edgemed.bundle.model import specs_of
from edgemed.bundle.read import Bundle
from edgemed.device.profile import DeviceProfile, Figure, PowerMode
from edgemed.profile.records import Count, Record, Share, Text
from edgemed.report.data import Report
from edgemed.report.units import digits

SCHEMA: Final = "edgemed/estimate/1"
Precision = Literal["int8", "fp16", "fp32"]
_BYTES: Final[Mapping[Precision, float]] = {"int8": 1.0, "fp16": 2.0, "fp32": 4.0}
_COSTS: Final = "costs.json"
_REPORT: Final = "report.json"
ASSUMPTIONS: Final = (
    "Arithmetic runs at the data sheet's peak rate, dense: edgemed's weights are not pruned 2:4.",
    "A layer without multiplications is fused into a neighbour and costs nothing.",
    "Weights come from DRAM for every frame; the roofline moves activations of each layer in and out once.",
    "Not counted: kernel launches, reformats, copies between host and device, preprocessing, waiting, and heat.",
)

Rate = Annotated[float, Field(gt=0)]


class LayerCost(Record):
    """One node of `costs.json`: of the float graph, with FP32 tensors."""

    node: str
    op: str
    macs: Count
    weight_bytes: Count
    input_bytes: Count
    output_bytes: Count


class OperatingPoint(Record):
    """Peak rates of a device under one condition."""

    condition: Text
    int8_tops: Rate | None = Field(description="dense")
    fp16_tflops: Rate | None = Field(description="dense")
    bandwidth_gbs: Rate
    derived: tuple[Text, ...] = Field(description="rates that no source states, and how they were computed")
    unverified: tuple[Text, ...] = Field(description="figures that no primary source confirms")


class LayerBound(Record):
    """One layer that multiplies."""

    node: Text
    op: Text
    precision: Precision
    macs: Count
    bytes: Count
    compute_us: float | None
    memory_us: float
    bound_by: Literal["compute", "memory"]


class Bound(Record):
    """One device under one condition."""

    device: Text
    name: Text
    point: OperatingPoint
    floor_ms: float
    roofline_ms: float
    compute_ms: float | None = Field(description="all arithmetic at the peak rate; null: no rate is known")
    memory_ms: float = Field(description="weights, inputs and outputs through DRAM, once")
    memory_share: Share = Field(description="of the roofline that layers bound by memory take")
    layers: tuple[LayerBound, ...]


class Estimate(Record):
    """Bounds of a bundle on devices. It is no measurement."""

    schema_: Literal["edgemed/estimate/1"] = Field(alias="schema")
    kind: Literal["lower bound of latency, not a measurement"] = "lower bound of latency, not a measurement"
    bundle: Text
    precision: Precision
    macs: Count
    int8_share: Share | None = Field(description="of the multiply-accumulates that are quantized")
    assumptions: tuple[Text, ...]
    bounds: tuple[Bound, ...]


def estimate(bundle: Bundle, devices: Sequence[DeviceProfile], precision: Precision) -> Estimate:
    """Bound the latency of one frame of a bundle.

    Args:
        bundle: with `costs.json`; placement is read from `report.json`.
        devices: profiles.
        precision: of the engine.

    Raises:
        InputError: the bundle does not tell its costs, or nothing is known of a device.
    """
    costs = read_costs(bundle)
    quantized = _quantized(bundle) if precision == "int8" else frozenset()
    crossing = _crossing(bundle)
    bounds = [each for device in devices for each in bound_device(device, costs, quantized, crossing, precision)]
    macs = sum(cost.macs for cost in costs)
    int8 = sum(cost.macs for cost in costs if cost.node in quantized)
    return Estimate(
        schema_=SCHEMA,
        bundle=bundle.manifest.name,
        precision=precision,
        macs=macs,
        int8_share=int8 / macs if macs and precision == "int8" else None,
        assumptions=ASSUMPTIONS,
        bounds=tuple(bounds),
    )


def read_costs(bundle: Bundle) -> tuple[LayerCost, ...]:
    """`costs.json` of a bundle.

    Raises:
        InputError: there is none, or it is not by its schema.
    """
    if _COSTS not in bundle.manifest.files:
        raise InputError(f"{bundle.path.name} does not tell what its layers cost.", "Build it anew.")
    try:
        data = json.loads(bundle.read(_COSTS))
        if data["schema"] != "edgemed/costs/1":
            raise ValueError(data["schema"])
        return TypeAdapter(tuple[LayerCost, ...]).validate_python(data["layers"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise InputError(f"{_COSTS} of {bundle.path.name} is not by its schema.", "Build the bundle anew.") from error


def _quantized(bundle: Bundle) -> frozenset[str]:
    """Nodes that run in INT8; all, where the bundle does not tell: a bound may be too low, not too high."""
    if _REPORT in bundle.manifest.files:
        try:
            report = Report.model_validate_json(bundle.read(_REPORT))
        except ValidationError as error:
            raise InputError(f"{_REPORT} of {bundle.path.name} is not by its schema.", "Build it anew.") from error
        if report.int8 is not None:
            return frozenset(layer.node for layer in report.int8.layers if layer.quantized)
    return frozenset(cost.node for cost in read_costs(bundle))


def _crossing(bundle: Bundle) -> int:
    """Bytes of all inputs and outputs of one frame; open sizes count as 1."""
    specs = specs_of(bundle)
    return sum(
        math.prod(dim or 1 for dim in tensor.shape) * np.dtype(tensor.dtype).itemsize
        for tensor in (*specs.inputs, *specs.outputs)
    )


def bound_device(
    device: DeviceProfile, costs: Sequence[LayerCost], quantized: frozenset[str], crossing: int, precision: Precision
) -> Iterator[Bound]:
    """A bound for each condition that the profile states rates for.

    Args:
        device: its profile.
        costs: of all nodes.
        quantized: names of those that run in INT8.
        crossing: bytes of the inputs and outputs of a frame.
        precision: of the engine.

    Raises:
        InputError: the profile states no memory bandwidth, or the device has no INT8.
    """
    if precision == "int8" and not device.int8:
        raise InputError(f"{device.name} has no INT8 kernels in TensorRT.", "Give --precision fp16.")
    points = operating_points(device)
    if not points:
        raise InputError(f"The profile of {device.name} states no memory bandwidth.", "Choose another --device.")
    for point in points:
        yield _bound(device, point, costs, quantized, crossing, precision)


def _bound(
    device: DeviceProfile,
    point: OperatingPoint,
    costs: Sequence[LayerCost],
    quantized: frozenset[str],
    crossing: int,
    precision: Precision,
) -> Bound:
    layers = tuple(_layer(point, cost, quantized, precision) for cost in costs if cost.macs)
    times = [max(layer.compute_us or 0.0, layer.memory_us) for layer in layers]
    arithmetic = [layer.compute_us for layer in layers]
    compute_ms = None if None in arithmetic else sum(us for us in arithmetic if us is not None) / 1e3
    weights = sum(_scaled(cost.weight_bytes, cost, quantized, precision) for cost in costs)
    memory_ms = (weights + crossing) / point.bandwidth_gbs / 1e6
    roofline = sum(times) / 1e3
    memory_bound = sum(time for time, layer in zip(times, layers, strict=True) if layer.bound_by == "memory") / 1e3
    floor = max(compute_ms or 0.0, memory_ms)
    return Bound(
        device=device.id,
        name=device.name,
        point=point,
        floor_ms=floor,
        roofline_ms=max(roofline, floor),
        compute_ms=compute_ms,
        memory_ms=memory_ms,
        memory_share=min(1.0, memory_bound / roofline) if roofline else 0.0,
        layers=layers,
    )


def _layer(point: OperatingPoint, cost: LayerCost, quantized: frozenset[str], precision: Precision) -> LayerBound:
    runs = _runs_in(cost, quantized, precision)
    moved = _scaled(cost.weight_bytes + cost.input_bytes + cost.output_bytes, cost, quantized, precision)
    rate = {"int8": point.int8_tops, "fp16": point.fp16_tflops, "fp32": None}[runs]
    compute = None if rate is None else 2 * cost.macs / rate / 1e6
    memory = moved / point.bandwidth_gbs / 1e3
    return LayerBound(
        node=cost.node or "unnamed",
        op=cost.op,
        precision=runs,
        macs=cost.macs,
        bytes=round(moved),
        compute_us=compute,
        memory_us=memory,
        bound_by="compute" if compute is not None and compute > memory else "memory",
    )


def _runs_in(cost: LayerCost, quantized: frozenset[str], precision: Precision) -> Precision:
    """What an INT8 engine leaves in float is taken as FP16."""
    if precision != "int8":
        return precision
    return "int8" if cost.node in quantized else "fp16"


def _scaled(size: int, cost: LayerCost, quantized: frozenset[str], precision: Precision) -> float:
    """Bytes of FP32 tensors in the precision that the layer runs in."""
    return size * _BYTES[_runs_in(cost, quantized, precision)] / _BYTES["fp32"]


def operating_points(device: DeviceProfile) -> tuple[OperatingPoint, ...]:
    """Conditions that a profile states rates for, and power modes that it states clocks for.

    Only what the GPU does is taken: DLA cores run another engine. A rate is taken as stated for the highest clock.
    """
    conditions: dict[str, list[Figure]] = {}
    for figure in device.figures:
        if figure.quantity in ("int8_tops", "fp16_tflops") and not figure.condition.endswith(", DLA"):
            conditions.setdefault(_plain(figure.condition), []).append(figure)
    if not conditions:
        conditions[""] = []
    points = []
    for condition, figures in conditions.items():
        bandwidth = device.figure("memory_bandwidth_gbs", condition) or device.figure("memory_bandwidth_gbs")
        if bandwidth is not None:
            point = _point(condition, figures, bandwidth)
            points += [point, *_modes(device, condition, point)]
    return tuple(points)


def _plain(condition: str) -> str:
    return "" if condition == "dense" else condition.removesuffix(", dense")


def _point(condition: str, figures: Sequence[Figure], bandwidth: Figure) -> OperatingPoint:
    derived: list[str] = []
    used = [bandwidth]
    int8 = _dense([figure for figure in figures if figure.quantity == "int8_tops"], "INT8", derived, used)
    fp16 = _dense([figure for figure in figures if figure.quantity == "fp16_tflops"], "FP16", derived, used)
    if fp16 is None and int8 is not None:
        fp16 = int8 / 2
        derived.append("FP16: half of the dense INT8 rate, as tensor cores have it")
    if int8 is None and fp16 is None:
        derived.append("no rate of arithmetic is known: memory alone bounds it")
    if "DLA" in condition:
        derived.append(f"the rates are of {condition} together: more than the GPU alone has")
    return OperatingPoint(
        condition=condition or "as stated",
        int8_tops=int8,
        fp16_tflops=fp16,
        bandwidth_gbs=bandwidth.value,
        derived=tuple(derived),
        unverified=tuple(dict.fromkeys(figure.quantity for figure in used if not figure.verified)),
    )


def _dense(figures: Sequence[Figure], name: str, derived: list[str], used: list[Figure]) -> float | None:
    """The dense rate: as stated, or half of the one that counts zeros of 2:4 weights as done."""
    if not figures:
        return None
    sparse = next((figure for figure in figures if figure.sparsity == "2:4"), None)
    stated = next((figure for figure in figures if figure.sparsity != "2:4"), None)
    # the sparse figure is what is published; where it is confirmed, half of it is surer than a rounded dense one
    if sparse is not None and (stated is None or (sparse.verified and not stated.verified)):
        used.append(sparse)
        derived.append(f"{name}: half of the {sparse.value:g} TOPS stated for 2:4 sparse weights")
        return sparse.value / 2
    assert stated is not None
    used.append(stated)
    return stated.value


def _modes(device: DeviceProfile, condition: str, full: OperatingPoint) -> Iterator[OperatingPoint]:
    """Power modes of the condition with a GPU clock below the highest: rates go with the clocks."""
    modes = [
        mode for mode in device.power_modes if mode.gpu_mhz and ("super" in mode.name.lower()) == ("super" in condition)
    ]
    top = max((mode.gpu_mhz or 0.0 for mode in modes), default=0.0)
    memory = max((mode.emc_mhz or 0.0 for mode in modes), default=0.0)
    for mode in modes:
        if mode.gpu_mhz and mode.gpu_mhz < top:
            yield _slower(mode, full, mode.gpu_mhz / top, mode.emc_mhz / memory if mode.emc_mhz and memory else 1.0)


def _slower(mode: PowerMode, full: OperatingPoint, gpu: float, memory: float) -> OperatingPoint:
    derived = f"{mode.name}: rates times {gpu:.2f} (GPU clock)"
    derived += f", bandwidth times {memory:.2f}" if memory != 1 else ", bandwidth as at full clock"
    doubtful = [
        f"{mode.name} {each}" for each in ("gpu_mhz", "emc_mhz") if not mode.is_verified(each) and getattr(mode, each)
    ]
    return OperatingPoint(
        condition=mode.name,
        int8_tops=None if full.int8_tops is None else full.int8_tops * gpu,
        fp16_tflops=None if full.fp16_tflops is None else full.fp16_tflops * gpu,
        bandwidth_gbs=full.bandwidth_gbs * memory,
        derived=(*full.derived, derived),
        unverified=(*full.unverified, *doubtful),
    )


def bound_rows(result: Estimate) -> list[tuple[str, ...]]:
    """Device, condition, rates, the two bounds, and by what; `*` marks figures that no primary source confirms."""
    return [
        (
            bound.device,
            bound.point.condition + ("*" if bound.point.unverified else ""),
            _rate(bound.point, result.precision),
            f"{bound.point.bandwidth_gbs:.4g}",
            f"≥ {digits(bound.floor_ms)}",
            digits(bound.roofline_ms),
            f"{bound.memory_share:.0%}",
        )
        for bound in result.bounds
    ]


def _rate(point: OperatingPoint, precision: Precision) -> str:
    value = {"int8": point.int8_tops, "fp16": point.fp16_tflops, "fp32": None}[precision]
    return "n/a" if value is None else f"{value:.4g}"
