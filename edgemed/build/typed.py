"""The strongly typed graphs of a build: written from what real samples show, and judged with FP16 rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgemed.base.progress import Progress
from edgemed.build.fidelity import compare
from edgemed.build.samples import Samples
from edgemed.build.stages import CleanGraph, Outputs, Parity, Quantized, require_own_rules, run_all
from edgemed.bundle.manifest import GraphName, OutputFidelity
from edgemed.graph.precision import KeptFloat
from edgemed.imaging.samples import Feeds

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgemed.graph.store import GraphFile


@dataclass(frozen=True)
class Typed:
    """A typed graph, what stayed FP32 in it, and how far its outputs are from the others."""

    name: GraphName
    graph: GraphFile
    kept: tuple[KeptFloat, ...]
    outputs: Outputs
    vs_float: tuple[OutputFidelity, ...]
    vs_keras: tuple[OutputFidelity, ...]


def fp16(graph: CleanGraph, parity: Parity, samples: Samples, progress: Progress) -> Typed:
    """The FP16 graph, from the largest magnitudes over all samples, or over noise where there are none."""
    from edgemed.calibrate.collect import collect
    from edgemed.graph.model import float_values

    single = graph.at(1)
    count = len(samples.calibrating) or len(samples.judged)
    with progress.stage("ranges", count) as stage:
        stream: Iterable[Feeds] = samples.reader.stream(samples.calibrating, stage.advance)
        feeds = stream if samples.calibrating else samples.judged
        histograms = collect(single, feeds, tensors=float_values(single), counts=False)
        stage.note(f"{len(histograms)} tensors on {count} samples")
    seen = {name: histogram.amax for name, histogram in histograms.items()}
    return _typed("fp16", graph, graph.usual, seen, parity, samples, progress)


def int8_fp16(graph: CleanGraph, quantized: Quantized, parity: Parity, samples: Samples, progress: Progress) -> Typed:
    """The Q/DQ graph with FP16 around its pairs, from the magnitudes that calibration saw."""
    seen = {name: histogram.amax for name, histogram in quantized.histograms.items()}
    return _typed("int8_fp16", graph, quantized.model, seen, parity, samples, progress)


def _typed(
    name: GraphName,
    graph: CleanGraph,
    model: ir.Model,
    seen: Mapping[str, float],
    parity: Parity,
    samples: Samples,
    progress: Progress,
) -> Typed:
    from edgemed.graph.fp16 import to_fp16
    from edgemed.graph.rounding import rounded
    from edgemed.graph.store import runnable

    with progress.stage("fp16") as stage:
        typed, kept = to_fp16(model, seen=seen)
        require_own_rules(typed)
        free, written = graph.write(typed, name)
        # ONNX Runtime runs most of FP16 in FP32; it must load the graph, but the rounding is seen in the other one
        run_all(written.path, samples.judged[:1], name)
        with runnable(rounded(free)) as source:
            outputs = run_all(source, samples.judged, name)
        vs_float = compare(outputs, parity.float, "float")
        worst = max(output.relative_error for output in vs_float)
        large = sum(item.tensor is not None for item in kept)
        because = f", {large} of them for what samples or weights hold" if large else ""
        stage.note(f"{worst:.1e} of the output range off float; {len(kept)} nodes stay FP32{because}")
    return Typed(name, written, kept, outputs, vs_float, compare(outputs, parity.keras, "keras"))
