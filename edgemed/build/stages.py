"""The stages of a build. Each takes what earlier ones made and returns what it adds; none writes outside `workdir`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError, GateError, InputError, MissingSoftwareError
from edgemed.base.progress import Progress, Stage
from edgemed.base.runner import TensorSpec
from edgemed.build.fidelity import compare, largest_differences, require_parity
from edgemed.build.options import BuildOptions, Precision
from edgemed.build.samples import Samples
from edgemed.bundle.manifest import BatchRange, OutputFidelity
from edgemed.calibrate.observers import Histogram
from edgemed.convert import Converted, KerasModel
from edgemed.graph.layers import KerasLayers
from edgemed.graph.scales import ScaleTable
from edgemed.graph.values import PREFIX
from edgemed.imaging.samples import Feeds
from edgemed.runners.golden import MINIMUM
from edgemed.runners.ort import OnnxRuntimeRunner

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgemed.engine.build import BuiltPlan
    from edgemed.graph.costs import LayerCost
    from edgemed.graph.passes import PassChange
    from edgemed.graph.store import GraphFile
    from edgemed.quantize.placement import Placement

_BATCHED = 3
_FOLDING_LIMIT = 2e-5

Outputs = list[dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class CleanGraph:
    """The float graph after all passes."""

    model: ir.Model
    graph: GraphFile
    digest: str
    changes: tuple[PassChange, ...]
    costs: tuple[LayerCost, ...]
    """Of one sample."""
    layers: KerasLayers
    batch: BatchRange | None = None

    def at(self, batch: int) -> ir.Model:
        """A copy to work on: of that batch, where the batch varies."""
        from edgemed.graph.batch import pinned

        return self.model.clone() if self.batch is None else pinned(self.model, batch)

    @property
    def usual(self) -> ir.Model:
        """A copy to decide on: of the usual batch."""
        return self.at(self.batch.opt if self.batch is not None else 1)

    def write(self, model: ir.Model, name: str) -> tuple[ir.Model, GraphFile]:
        """Write what became of such a copy beside the float graph; the batch varies again."""
        from edgemed.graph.batch import released
        from edgemed.graph.store import write_graph

        free = model if self.batch is None else released(model, self.model)
        return free, write_graph(free, self.graph.path.with_name(f"{name}.onnx"))


@dataclass(frozen=True)
class Parity:
    """Outputs of Keras and of the float graph on the judged samples, and how far apart they are."""

    keras: Outputs
    float: Outputs
    fidelity: tuple[OutputFidelity, ...]


@dataclass(frozen=True)
class Quantized:
    """The Q/DQ graph (`model` is of the usual batch), what its scales come from, and how far off its outputs are."""

    model: ir.Model
    graph: GraphFile
    histograms: dict[str, Histogram]
    table: ScaleTable
    placement: Placement
    constant_images: int
    outputs: Outputs = field(default_factory=list)
    rounding: dict[str, float] = field(default_factory=dict)
    vs_float: tuple[OutputFidelity, ...] = ()
    vs_keras: tuple[OutputFidelity, ...] = ()


@dataclass(frozen=True)
class AheadOfTime:
    """The outcome of compiling a plan here: the plan, or the reason why there is none."""

    plan: BuiltPlan | None
    status: str
    refused: bool = False


def convert(keras: KerasModel, progress: Progress) -> Converted:
    """Keras to ONNX, in the child process."""
    with progress.stage("convert") as stage:
        converted = keras.convert()
        outputs = ", ".join(str(spec) for spec in converted.outputs)
        stage.note(f"{', '.join(str(spec) for spec in converted.inputs)} → {outputs}, {_count(converted.parameters)}")
    return converted


def clean(converted: Converted, folder: Path, options: BuildOptions, progress: Progress) -> CleanGraph:
    """Graph passes, shapes, lint of the float graph, which is written into `folder`."""
    from edgemed.graph.batch import pinned
    from edgemed.graph.costs import costs
    from edgemed.graph.lint import require_clean
    from edgemed.graph.model import digest, load
    from edgemed.graph.opset import lower_opset
    from edgemed.graph.passes import clean_graph
    from edgemed.graph.store import write_graph

    with progress.stage("clean") as stage:
        result = clean_graph(load(converted.path))
        model = lower_opset(result.model)
        graph = write_graph(model, folder / "float.onnx")
        names = [layer.name for layer in converted.layers]
        require_clean(model, layers=names)
        before, after = result.changes[0].nodes_before, result.changes[-1].nodes_after
        stage.note(f"{before} → {after} nodes")
        cost = costs(model if options.batch is None else pinned(model, 1))
        layers = KerasLayers(names, (node.name or "" for node in model.graph.all_nodes()))
        return CleanGraph(model, graph, digest(model), result.changes, cost, layers, options.batch)


def fold_preprocessing(graph: CleanGraph, samples: Samples, progress: Progress) -> tuple[CleanGraph, Samples]:
    """Put the recipe's tail in front of the clean graph; parity then measures both together.

    Raises:
        InputError: nothing can be folded; says why.
        GateError: the graph does not prepare images as the recipe does.
    """
    from edgemed.build.fold import fold, require_way_back
    from edgemed.graph.costs import costs
    from edgemed.graph.model import digest

    with progress.stage("fold") as stage:
        (spec,) = samples.reader.inputs
        folded = samples.folded(samples.reader.layouts[spec.name])
        assert folded.folding is not None
        require_way_back(folded.folding, graph.model.graph.outputs)
        model, written = graph.write(fold(graph.model.clone(), folded.folding), "float")
        usual = replace(graph, model=model, graph=written, digest=digest(model))
        error = _folding_error(model, spec.name, folded)
        stage.note(f"{folded.folding.described} of {folded.folding.spec} in the graph, {error:.1e} of the range off")
        return replace(usual, costs=costs(usual.at(1))), folded


def _folding_error(model: ir.Model, name: str, samples: Samples) -> float:
    """max|Δ| / max|reference| of the prepared image, in the graph against in Python, on the judged samples.

    Raises:
        GateError: more than FP32 sums of some thousand products, each rounded at 6e-8, explain.
    """
    from edgemed.graph.prefix import prepared_only
    from edgemed.graph.store import runnable

    with runnable(prepared_only(model, name)) as source:
        found = run_all(source, samples.judged, "fp32")
    pairs = [(next(iter(one.values())), other[name]) for one, other in zip(found, samples.trained, strict=True)]
    error = max(float(np.abs(one - other).max()) for one, other in pairs)
    error /= max(1e-30, *(float(np.abs(other).max()) for _, other in pairs))
    if error > _FOLDING_LIMIT:
        raise GateError(
            f"The folded graph prepares images {error:.1e} of their range off.",
            "Build it without --fold-preprocessing.",
        )
    return error


def check_parity(keras: KerasModel, graph: CleanGraph, samples: Samples, progress: Progress) -> Parity:
    """Keras' own outputs against the clean graph's, on real samples.

    Raises:
        GateError: they differ by more than FP32 arithmetic explains.
    """
    with progress.stage("parity") as stage:
        reference = keras.reference(samples.trained)
        keras.close()  # frees the memory that TensorFlow holds before calibration needs it
        outputs = run_all(graph.graph.path, samples.judged, "fp32")
        fidelity = compare(outputs, reference, "keras")
        require_parity(fidelity)
        require_parity(batched(graph, samples, outputs))
        worst = max(output.relative_error for output in fidelity)
        stage.note(f"Keras vs ONNX {worst:.1e} of the output range on {len(samples.judged)} samples")
    return Parity(reference, outputs, fidelity)


def batched(graph: CleanGraph, samples: Samples, outputs: Outputs) -> tuple[OutputFidelity, ...]:
    """Error of samples that the float graph computes in one batch against each by itself.

    A few show that no row reaches into another. Nothing where the batch does not vary.
    """
    if graph.batch is None:
        return ()
    picked = [i % len(samples.judged) for i in range(min(graph.batch.max, _BATCHED))]
    together = {name: np.concatenate([samples.judged[i][name] for i in picked]) for name in samples.judged[0]}
    (found,) = run_all(graph.graph.path, [together], "fp32")
    count = len(picked)
    for name, array in found.items():
        if array.shape[:1] != (count,):
            raise GateError(
                f"Output {name} does not follow the batch: {count} samples give the shape {array.shape}.",
                "Build it without --dynamic-batch.",
            )
    single = [{name: array[row : row + 1] for name, array in found.items()} for row in range(count)]
    return compare(single, [outputs[i] for i in picked], "float")


def calibrate(
    graph: CleanGraph, samples: Samples, options: BuildOptions, recipe_digest: str, progress: Progress
) -> tuple[dict[str, Histogram], ScaleTable, int]:
    """Ranges of every float tensor, in one pass over the calibrating files.

    Raises:
        InputError: a file cannot be used, or all images are constant.
    """
    from edgemed.calibrate.collect import collect, scale_table
    from edgemed.graph.model import float_values

    assert samples.calibration is not None
    with progress.stage("calibrate", len(samples.calibrating)) as stage:
        stream = _Watched(samples, stage)
        histograms = collect(graph.at(1), stream, tensors=float_values(graph.model))
        if stream.constant == stream.count:
            raise InputError("All calibration images are constant.", "Give images of what the model is for.")
        table = scale_table(
            histograms,
            options.method,
            images=len(samples.calibrating),
            data_digest=samples.calibration.digest,
            recipe_digest=recipe_digest,
            graph_digest=graph.digest,
        )
        stage.note(f"{options.method} ranges of {len(histograms)} tensors from {len(samples.calibrating)} images")
    return histograms, table, stream.constant


class _Watched:
    """Streams the calibrating samples, counts constant ones, and moves the bar."""

    def __init__(self, samples: Samples, stage: Stage) -> None:
        self._samples = samples
        self._stage = stage
        self.count = 0
        self.constant = 0

    def __iter__(self) -> Iterator[Feeds]:
        for feeds in self._samples.reader.stream(self._samples.calibrating, self._stage.advance):
            self.count += 1
            self.constant += all(array.size > 1 and (array == array.flat[0]).all() for array in feeds.values())
            yield feeds


def quantize(
    graph: CleanGraph, histograms: dict[str, Histogram], table: ScaleTable, constant: int, progress: Progress
) -> Quantized:
    """Placement, Q/DQ insertion and lint.

    Raises:
        GateError: the lint found a fault in our own graph.
    """
    from edgemed.graph.model import infer_shapes
    from edgemed.graph.opset import lower_opset
    from edgemed.quantize.insert import insert, share_scales
    from edgemed.quantize.placement import place

    with progress.stage("quantize") as stage:
        copy = graph.usual
        placement = place(copy)
        if not placement.quantized_nodes:
            raise InputError(
                "No layer of this model can run in INT8: " + "; ".join(_reasons(placement)) + ".",
                "Build it with --fp16 or --fp32.",
            )
        shared = share_scales(table, placement)
        model = lower_opset(infer_shapes(insert(copy, placement, shared)))
        require_own_rules(model)
        _, written = graph.write(model, "int8")
        stage.note(
            f"{len(placement.quantized_nodes)} of {len(placement.layers)} layers, {share(graph, placement):.1%} of MACs"
        )
        return Quantized(model, written, histograms, shared, placement, constant)


def require_own_rules(model: ir.Model) -> None:
    """Lint of a graph that we wrote: what it finds is a bug of ours, whatever model it came from."""
    from edgemed.graph.lint import require_clean

    try:
        require_clean(model)
    except GateError as error:
        raise EdgemedError(f"The quantized graph breaks our own rules: {error.what}", error.hint) from error


def _reasons(placement: Placement) -> list[str]:
    return sorted({layer.reason for layer in placement.layers}) or ["it has no Conv, Gemm or MatMul"]


def share(graph: CleanGraph, placement: Placement) -> float:
    """INT8 share of the model's multiply-accumulates; preprocessing in front of it is not counted."""
    total = sum(cost.macs for cost in graph.costs if not cost.node.startswith(PREFIX))
    int8 = sum(cost.macs for cost in graph.costs if cost.node in placement.quantized_nodes)
    return int8 / total if total else 0.0


def verify(quantized: Quantized, parity: Parity, samples: Samples, progress: Progress) -> Quantized:
    """Run the Q/DQ graph with fake quantization and measure its error."""
    with progress.stage("verify") as stage:
        every = run_all(quantized.graph.path, [*samples.judged, *_nudged(samples)], "int8")
        outputs, nudged = every[: len(samples.judged)], every[len(samples.judged) :]
        vs_float = compare(outputs, parity.float, "float")
        vs_keras = compare(outputs, parity.keras, "keras")
        worst = max(vs_float, key=lambda output: output.relative_error)
        sqnr = "exact" if worst.relative_error == 0 else f"SQNR {worst.sqnr_db or 0:.1f} dB"
        stage.note(f"INT8 vs float {worst.relative_error:.2%} of the output range, {sqnr}")
    rounding = largest_differences(nudged, outputs[: len(nudged)])
    return replace(quantized, outputs=outputs, rounding=rounding, vs_float=vs_float, vs_keras=vs_keras)


def _nudged(samples: Samples) -> list[Feeds]:
    """Inputs through FP16: values on a boundary go the other way, and show what rounding alone changes.

    Of as many samples as golden vectors need: their tolerance is what this is for.
    """
    return [
        {name: a.astype(np.float16).astype(a.dtype) if a.dtype.kind == "f" else a for name, a in feeds.items()}
        for feeds in samples.judged[:MINIMUM]
    ]


def compile_plan(
    graphs: Sequence[GraphFile],
    inputs: Sequence[TensorSpec],
    graph: CleanGraph,
    precision: Precision,
    progress: Progress,
) -> AheadOfTime:
    """An ahead-of-time plan by TensorRT-RTX where it is installed, of the first of `graphs` that it takes.

    That it takes none is told, not fatal.
    """
    from edgemed.engine.rtx import CAPABILITIES, compile_ahead

    batch = graph.batch
    profiles = {} if batch is None else {spec.name: batch.shapes(spec.shape) for spec in inputs}
    refusals: list[str] = []
    with progress.stage("engine") as stage:
        for source in graphs:
            try:
                plan = compile_ahead(source.path, precision, stage, profiles=profiles)
            except MissingSoftwareError:
                status = "tensorrt_rtx is not installed: no plan compiled ahead of time"
                stage.note(status)
                return AheadOfTime(None, status)
            except InputError as error:
                refusals.append(f"{source.path.name} was refused: {_with_layer(error.what, graph.layers)}")
                continue
            targets = "+".join("SM" + capability.replace(".", "") for capability in CAPABILITIES)
            stage.note(f"TensorRT-RTX {plan.version} for {targets}, {len(plan.plan) / 1e6:.1f} MB")
            how = f"compiled ahead of time from {source.path.name}; not run here"
            return AheadOfTime(plan, "; ".join([how, *refusals]), refused=bool(refusals))
        stage.note(f"TensorRT-RTX: {'; '.join(refusals)}")
        return AheadOfTime(None, "; ".join(refusals), refused=True)


def _with_layer(what: str, layers: KerasLayers) -> str:
    """TensorRT's words, which name an ONNX node, with the Keras layer that it came from."""
    quoted = (layers.of(name) for name in re.findall(r"'([^']+)'", what))
    layer = next(filter(None, quoted), None)
    return what if layer is None else f"the layer '{layer}': {what}"


def run_all(onnx: Path | bytes, samples: Sequence[Feeds], precision: str) -> Outputs:
    """Outputs of a graph for each sample, on ONNX Runtime."""
    with OnnxRuntimeRunner(onnx, precision=precision) as runner:
        return [runner.infer(feeds) for feeds in samples]


def stacked(samples: Sequence[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays of all samples by name, along a new first axis."""
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M parameters" if parameters >= 1e5 else f"{parameters} parameters"
