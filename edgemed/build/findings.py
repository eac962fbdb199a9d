"""Fill the report: plain data from what the stages returned."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgemed import __version__
from edgemed.build.fidelity import PARITY_LIMIT
from edgemed.build.options import BuildOptions
from edgemed.build.samples import Samples
from edgemed.build.stages import AheadOfTime, CleanGraph, Parity, Quantized, share
from edgemed.build.timing import StageRecord
from edgemed.build.typed import Typed
from edgemed.bundle.manifest import OutputFidelity, OutputTensor, Source
from edgemed.calibrate.observers import Histogram, amax_of, noise_of
from edgemed.convert import Converted
from edgemed.graph.layers import KerasLayers
from edgemed.graph.model import weight_bytes
from edgemed.graph.values import PREFIX, constant_array
from edgemed.quantize.insert import weight_sqnr_db
from edgemed.report import data

if TYPE_CHECKING:
    from edgemed.quantize.placement import Placement

_WORST_TENSORS = 12
_FILES_SHOWN = 5
_PACKAGES = ("numpy", "tensorflow-cpu", "tensorflow", "keras", "tf2onnx", "onnx", "onnx-ir", "onnxslim", "onnxruntime")
_SUSPECT_ERROR = 0.10
_SUSPECT_SQNR_DB = 20.0


def report_of(
    *,
    name: str,
    options: BuildOptions,
    source: Source,
    converted: Converted,
    outputs: Sequence[OutputTensor],
    samples: Samples,
    graph: CleanGraph,
    parity: Parity,
    quantized: Quantized | None,
    typed: Typed | None,
    engine: AheadOfTime,
    sizes: dict[str, int],
    stages: Iterable[StageRecord],
) -> data.Report:
    """Everything a build found out, for `report.json` and `report.html`."""
    return data.Report(
        schema_=data.SCHEMA,
        created=now(),
        edgemed=__version__,
        precision=options.precision,
        model=_model(name, source, converted, samples, outputs),
        recipe=data.Recipe(
            name=samples.recipe.name,
            assumed=samples.recipe.assumed,
            description=samples.recipe.description,
            toml=samples.recipe_text,
        ),
        calibration=_calibration(samples, quantized),
        passes=tuple(
            data.GraphPass(name=c.name, nodes_before=c.nodes_before, nodes_after=c.nodes_after, changed=c.modified)
            for c in graph.changes
        ),
        fidelity=_fidelity(samples, parity, quantized, typed),
        int8=_int8(graph, quantized) if quantized is not None else None,
        fp16=_fp16(typed, graph.layers) if typed is not None else None,
        sizes=sizes,
        engines=_engines(engine, options),
        stages=tuple(data.Stage(name=s.name, seconds=s.seconds, note=s.note) for s in stages),
        warnings=_warnings(samples, quantized, typed, engine),
        machine=_machine(),
    )


def now() -> str:
    """UTC time, ISO 8601, seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _model(
    name: str, source: Source, converted: Converted, samples: Samples, outputs: Sequence[OutputTensor]
) -> data.Model:
    return data.Model(
        name=name,
        file=source.file,
        sha256=source.sha256,
        format=source.format,
        versions=source.versions,
        parameters=converted.parameters,
        keras_layers=tuple(layer.name for layer in converted.layers),
        inputs=tuple(data.Tensor(name=s.name, dtype=s.dtype, shape=s.shape) for s in samples.reader.inputs),
        outputs=tuple(
            data.Tensor(name=o.name, dtype=o.dtype, shape=o.shape, task=o.task, activation=o.activation)
            for o in outputs
        ),
    )


def _calibration(samples: Samples, quantized: Quantized | None) -> data.Calibration | None:
    if samples.calibration is None or quantized is None:
        return None
    warnings = list(samples.warnings)
    if quantized.constant_images:
        warnings.append(f"{quantized.constant_images} calibration images are constant (one value everywhere).")
    return data.Calibration(
        method=quantized.table.method,
        percentile=quantized.table.percentile,
        images=quantized.table.images,
        digest=samples.calibration.digest,
        files=tuple(s.file for s in samples.calibration.samples if s.role != "judge")[:_FILES_SHOWN],
        warnings=tuple(w for w in warnings if not w.startswith("No recipe")),  # the report says that by itself
    )


def _fidelity(samples: Samples, parity: Parity, quantized: Quantized | None, typed: Typed | None) -> data.Fidelity:
    half = typed if typed is not None and typed.name == "fp16" else None
    int8_half = typed if typed is not None and typed.name == "int8_fp16" else None
    return data.Fidelity(
        samples=len(samples.judged),
        float_vs_keras=_errors(parity.fidelity, PARITY_LIMIT),
        int8_vs_float=_errors(quantized.vs_float) if quantized else (),
        int8_vs_keras=_errors(quantized.vs_keras) if quantized else (),
        fp16_vs_float=_errors(half.vs_float) if half else (),
        fp16_vs_keras=_errors(half.vs_keras) if half else (),
        int8_fp16_vs_float=_errors(int8_half.vs_float) if int8_half else (),
        int8_fp16_vs_keras=_errors(int8_half.vs_keras) if int8_half else (),
    )


def _fp16(typed: Typed, layers: KerasLayers) -> data.Fp16:
    return data.Fp16(
        graph=typed.name,
        kept=tuple(
            data.KeptFloat(node=k.node, op=k.op, keras_layer=layers.of(k.node), reason=k.reason, tensor=k.tensor)
            for k in typed.kept
        ),
    )


def _errors(fidelity: Sequence[OutputFidelity], limit: float | None = None) -> tuple[data.OutputError, ...]:
    return tuple(
        data.OutputError(output=f.output, relative_error=f.relative_error, sqnr_db=f.sqnr_db, limit=limit)
        for f in fidelity
    )


def _int8(graph: CleanGraph, quantized: Quantized) -> data.Int8:
    weights = _quantized_weights(graph, quantized.placement)
    total = weight_bytes(graph.model, without=PREFIX)
    in_int8 = sum(array.nbytes for array, _ in weights.values())
    return data.Int8(
        mac_share=share(graph, quantized.placement),
        weight_bytes_float=total,
        weight_bytes_int8=total - in_int8 + in_int8 // 4,
        layers=tuple(_layers(graph, quantized, weights)),
        tensors=_worst_tensors(quantized),
    )


def _quantized_weights(graph: CleanGraph, placement: Placement) -> dict[str, tuple[NDArray[Any], int]]:
    """FP32 weight and channel axis of every quantized layer, by node; from the graph before insertion."""
    nodes = {node.name: node for node in graph.model.graph}
    found = {}
    for pair in placement.weights:
        array = constant_array(nodes[pair.node.name].inputs[pair.index])
        assert array is not None
        found[pair.node.name or ""] = (array, pair.axis)
    return found


def _layers(
    graph: CleanGraph,
    quantized: Quantized,
    weights: Mapping[str, tuple[NDArray[Any], int]],
) -> Iterable[data.Layer]:
    macs = {cost.node: cost.macs for cost in graph.costs}
    total = sum(macs.values()) or 1
    for layer in quantized.placement.layers:
        yield data.Layer(
            node=layer.node,
            op=layer.op,
            keras_layer=graph.layers.of(layer.node),
            quantized=layer.quantized,
            reason=layer.reason,
            macs=macs.get(layer.node, 0),
            mac_share=macs.get(layer.node, 0) / total,
            weight_sqnr_db=weight_sqnr_db(*weights[layer.node]) if layer.node in weights else None,
        )


def _worst_tensors(quantized: Quantized) -> tuple[data.ActivationRange, ...]:
    ranges = []
    for pair in quantized.placement.activations:
        name = pair.tensor.name or ""
        histogram, scale = quantized.histograms[name], quantized.table.tensors[name]
        noise = noise_of(histogram, scale.amax)
        ranges.append((float("inf") if noise.sqnr_db is None else noise.sqnr_db, name, noise))
    ranges.sort(key=lambda item: item[:2])
    return tuple(
        _range(name, quantized.histograms[name], quantized.table.tensors[name].amax, noise.sqnr_db, noise.clipped)
        for _, name, noise in ranges[:_WORST_TENSORS]
    )


def _range(name: str, histogram: Histogram, amax: float, sqnr_db: float | None, clipped: float) -> data.ActivationRange:
    return data.ActivationRange(
        name=name,
        amax=amax,
        seen=histogram.amax,
        sqnr_db=sqnr_db,
        clipped=clipped,
        counts=tuple(int(count) for count in histogram.counts) if histogram.counts is not None else (),
        bin_width=histogram.bin_width,
        candidates=data.AmaxCandidates(
            minmax=histogram.amax,
            percentile=amax_of(histogram, "percentile"),
            entropy=amax_of(histogram, "entropy"),
        ),
    )


def _engines(engine: AheadOfTime, options: BuildOptions) -> tuple[data.Engine, ...]:
    if engine.plan is None:
        return (data.Engine(flavour="tensorrt_rtx", version="-", precision=options.precision, status=engine.status),)
    plan = engine.plan
    return (
        data.Engine(
            flavour=plan.flavour,
            version=plan.version,
            precision=plan.precision,
            compute_capabilities=plan.compute_capabilities,
            bytes=len(plan.plan),
            seconds=plan.seconds,
            status=engine.status,
        ),
    )


def _warnings(
    samples: Samples, quantized: Quantized | None, typed: Typed | None, engine: AheadOfTime
) -> tuple[str, ...]:
    warnings = [] if quantized is not None else list(samples.warnings)
    if engine.refused:
        warnings.append(f"TensorRT-RTX: {engine.status}")
    measured = [("INT8", quantized.vs_float)] if quantized is not None else []
    measured += [("INT8 with FP16" if quantized else "FP16", typed.vs_float)] if typed is not None else []
    for what, output in ((what, output) for what, outputs in measured for output in outputs):
        low = output.sqnr_db is not None and output.sqnr_db < _SUSPECT_SQNR_DB
        if low or output.relative_error > _SUSPECT_ERROR:
            warnings.append(
                f"{what} changes output {output.output} by up to {output.relative_error:.1%} of its range: compare the "
                "accuracy with `edgemed evaluate` before use."
            )
    return tuple(w for w in warnings if not w.startswith("No recipe"))


def _machine() -> data.Machine:
    installed = {name: found for name in _PACKAGES if (found := _version(name)) is not None}
    return data.Machine(
        python=platform.python_version(), packages=installed, cpu=_cpu_name(), cores=len(os.sched_getaffinity(0))
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
