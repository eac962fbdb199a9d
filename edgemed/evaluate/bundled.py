"""What a bundle says, made usable: its sample reader, its Runners, its golden check."""

from __future__ import annotations

from typing import Final, Literal

from edgemed.base.errors import InputError, IntegrityError
from edgemed.base.progress import Progress
from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.bundle.manifest import GraphName
from edgemed.bundle.read import Bundle
from edgemed.imaging.samples import SampleReader
from edgemed.recipe.schema import Layout, load_recipe
from edgemed.runners.golden import Golden, GoldenResult, check_golden
from edgemed.runners.ort import OnnxRuntimeRunner

RunPrecision = Literal["fp32", "fp16", "int8"]

GRAPHS: Final[dict[RunPrecision, GraphName]] = {"fp32": "float", "fp16": "fp16", "int8": "int8"}
"""The graph that ONNX Runtime runs for a precision."""


def specs_of(bundle: Bundle) -> RunnerSpecs:
    """What the manifest says that the model takes and gives."""
    manifest = bundle.manifest
    return RunnerSpecs(
        tuple(TensorSpec(t.name, t.dtype, t.shape) for t in manifest.inputs),
        tuple(TensorSpec(t.name, t.dtype, t.shape) for t in manifest.outputs),
    )


def reader_of(bundle: Bundle) -> SampleReader:
    """Reads files into feeds as the bundle's own recipe says."""
    layouts: dict[str, Layout] = {t.name: _layout(t.layout) for t in bundle.manifest.inputs}
    return SampleReader(specs_of(bundle).inputs, load_recipe(bundle.file(bundle.manifest.recipe.path)), layouts)


def _layout(name: str) -> Layout:
    return "NCHW" if name == "NCHW" else "NCDHW" if name == "NCDHW" else "NHWC"


def precisions(bundle: Bundle) -> list[RunPrecision]:
    """Precisions that ONNX Runtime can run from this bundle, float first."""
    return [precision for precision, graph in GRAPHS.items() if graph in bundle.manifest.graphs]


def runner_of(bundle: Bundle, precision: RunPrecision | None = None) -> OnnxRuntimeRunner:
    """A Runner (not entered yet) for one precision; by default the bundle's own.

    Entering it raises `IntegrityError` for a graph that does not load, or is not what the manifest says.

    Raises:
        InputError: the bundle has no graph of that precision.
    """
    if precision is None:
        precision = bundle.manifest.precision
    if precision not in precisions(bundle):
        have = ", ".join(precisions(bundle))
        raise InputError(f"{bundle.path.name} has no {precision} graph.", f"It has: {have}.")
    return OnnxRuntimeRunner(
        bundle.graph_source(GRAPHS[precision]),
        precision=precision,
        bundle_digest=bundle.digest,
        promised=specs_of(bundle),
    )


def check_bundle(bundle: Bundle, progress: Progress) -> dict[str, GoldenResult]:
    """Run the golden vectors of every precision on ONNX Runtime.

    Raises:
        IntegrityError: the vectors are unreadable or incomplete.
    """
    manifest = bundle.manifest
    golden = Golden.from_bytes(bundle.read(manifest.golden.path), specs_of(bundle))
    if golden.samples != manifest.golden.samples:
        raise IntegrityError(
            f"There are {golden.samples} golden samples where the manifest says {manifest.golden.samples}.",
            "Build the bundle anew.",
        )
    results: dict[str, GoldenResult] = {}
    with progress.stage("golden") as stage:
        for precision in precisions(bundle):
            with runner_of(bundle, precision) as runner:
                tolerance = manifest.golden.tolerance.get(precision, {})
                results[precision] = check_golden(runner, golden, tolerance, precision)
        right = sum(result.passed for result in results.values())
        stage.note(f"{golden.samples} samples, {right} of {len(results)} precisions right")
    return results
