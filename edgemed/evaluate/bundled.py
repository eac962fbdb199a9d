"""What a bundle says, made usable: its sample reader, its Runners, its golden check."""

from __future__ import annotations

from typing import Final, Literal

from edgemed.base.errors import InputError
from edgemed.base.progress import Progress
from edgemed.base.runner import TensorSpec
from edgemed.bundle.manifest import GraphName
from edgemed.bundle.read import Bundle
from edgemed.imaging.samples import SampleReader
from edgemed.recipe.schema import Layout, load_recipe
from edgemed.runners.golden import Golden, GoldenResult, check_golden
from edgemed.runners.ort import OnnxRuntimeRunner

RunPrecision = Literal["fp32", "int8"]

GRAPHS: Final[dict[RunPrecision, GraphName]] = {"fp32": "float", "int8": "int8"}
"""The graph that ONNX Runtime runs for a precision."""


def reader_of(bundle: Bundle) -> SampleReader:
    """Reads files into feeds as the bundle's own recipe says."""
    inputs = [TensorSpec(t.name, t.dtype, t.shape) for t in bundle.manifest.inputs]
    layouts: dict[str, Layout] = {t.name: "NCHW" if t.layout == "NCHW" else "NHWC" for t in bundle.manifest.inputs}
    return SampleReader(inputs, load_recipe(bundle.file(bundle.manifest.recipe.path)), layouts)


def precisions(bundle: Bundle) -> list[RunPrecision]:
    """Precisions that ONNX Runtime can run from this bundle, float first."""
    return [precision for precision, graph in GRAPHS.items() if graph in bundle.manifest.graphs]


def runner_of(bundle: Bundle, precision: RunPrecision | None = None) -> OnnxRuntimeRunner:
    """A Runner (not entered yet) for one precision; by default the bundle's own.

    Raises:
        InputError: the bundle has no graph of that precision.
    """
    if precision is None:
        precision = "int8" if bundle.manifest.precision == "int8" else "fp32"
    if precision not in precisions(bundle):
        have = ", ".join(precisions(bundle))
        raise InputError(f"{bundle.path.name} has no {precision} graph.", f"It has: {have}.")
    return OnnxRuntimeRunner(bundle.graph(GRAPHS[precision]), precision=precision, bundle_digest=bundle.digest)


def check_bundle(bundle: Bundle, progress: Progress) -> dict[str, GoldenResult]:
    """Run the golden vectors of every precision on ONNX Runtime.

    Raises:
        IntegrityError: the vectors are unreadable or incomplete.
    """
    golden = Golden.from_bytes(bundle.read(bundle.manifest.golden.path))
    results: dict[str, GoldenResult] = {}
    with progress.stage("golden") as stage:
        for precision in precisions(bundle):
            with runner_of(bundle, precision) as runner:
                tolerance = bundle.manifest.golden.tolerance.get(precision, {})
                results[precision] = check_golden(runner, golden, tolerance, precision)
        right = sum(result.passed for result in results.values())
        stage.note(f"{golden.samples} samples, {right} of {len(results)} precisions right")
    return results
