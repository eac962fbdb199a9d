"""The one streaming pass: samples go through an instrumented graph, and only histograms come out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.calibrate.observers import BINS, DEFAULT_PERCENTILE, Histogram, amax_of, split_counts
from edgemed.graph.scales import Method, ScaleTable, TensorScale, scale_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgemed.graph.instrument import Probe

Feeds = Mapping[str, NDArray[Any]]


def collect(
    model: ir.Model, samples: Iterable[Feeds], *, tensors: list[str], counts: bool = True
) -> dict[str, Histogram]:
    """Histograms of |x| of each tensor over all samples, in one pass with bounded memory.

    Args:
        model: the clean float graph.
        samples: feeds, read one at a time.
        tensors: floating-point values of the main graph.
        counts: also count; otherwise the histograms hold no more than the largest |x|, at a fraction of the cost.

    Raises:
        InputError: a tensor overflowed or became NaN on some sample, or there was no sample.
    """
    from edgemed.graph.instrument import instrument
    from edgemed.graph.store import runnable
    from edgemed.runners.ort import OnnxRuntimeRunner

    observed, probes = instrument(model, tensors, bins=BINS, histograms=counts)
    histograms = {name: Histogram() for name in tensors}
    seen = 0
    with runnable(observed) as source, OnnxRuntimeRunner(source) as runner:
        wanted = {spec.name for spec in runner.specs.inputs}
        for feeds in samples:
            fetches = runner.infer({name: feeds[name] for name in wanted})
            seen += 1
            for probe in probes:
                _add(probe, fetches, histograms, seen)
    if seen == 0:
        raise InputError("There are no calibration samples.", "Give a folder with images.")
    return histograms


def _add(probe: Probe, fetches: Feeds, histograms: Mapping[str, Histogram], sample: int) -> None:
    """Take over what a probe saw of one sample."""
    low, high, total = (float(fetches[name]) for name in (probe.low, probe.high, probe.total))
    amax = max(high, -low)
    if not np.isfinite(amax) or np.isnan(total):
        tensor = (*probe.same, *probe.rectified)[0]
        raise InputError(
            f"Tensor {tensor} is {total if np.isnan(total) else amax} on calibration sample {sample}.",
            "Check the recipe's scaling and the model's weights.",
        )
    ranges = [(probe.same, amax), (probe.rectified, max(high, 0.0))]
    if probe.counts is None or probe.exponents is None:
        for names, largest in ranges:
            for name in names:
                histograms[name].amax = max(histograms[name].amax, largest)
        return
    exponents = [int(fetches[name]) for name in probe.exponents]
    counts = split_counts(fetches[probe.counts], exponents[0] - exponents[1])
    for (names, largest), exponent, part in zip(ranges, exponents, counts, strict=True):
        for name in names:
            histograms[name].add(exponent, part, largest)


def scale_table(
    histograms: Mapping[str, Histogram],
    method: Method,
    *,
    images: int,
    data_digest: str,
    recipe_digest: str,
    graph_digest: str,
    percentile: float = DEFAULT_PERCENTILE,
) -> ScaleTable:
    """The scale table by one method, from the histograms that serve all three."""
    tensors: dict[str, TensorScale] = {}
    same: dict[tuple[float, int | None, bytes], float] = {}  # tensors that share a count share what is read off it
    for name, histogram in histograms.items():
        counts = b"" if histogram.counts is None else histogram.counts.tobytes()
        key = (histogram.amax, histogram.exponent, counts)
        if key not in same:
            same[key] = amax_of(histogram, method, percentile)
        amax = same[key]
        tensors[name] = TensorScale(amax=amax, scale=scale_of(amax), seen=histogram.amax)
    return ScaleTable(
        schema="edgemed/scales/1",
        method=method,
        percentile=percentile if method == "percentile" else None,
        images=images,
        data_digest=data_digest,
        recipe_digest=recipe_digest,
        graph_digest=graph_digest,
        tensors=tensors,
    )
