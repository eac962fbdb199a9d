"""What a bundle says, made usable: its sample reader, its Runners, its golden check."""

from __future__ import annotations

from edgemed.base.errors import InputError, IntegrityError
from edgemed.base.progress import Progress
from edgemed.base.runner import Runner
from edgemed.bundle.model import RunPrecision, graph_of, precisions, specs_of
from edgemed.bundle.read import Bundle
from edgemed.imaging.samples import SampleReader
from edgemed.recipe.schema import Layout, load_recipe
from edgemed.runners.golden import Golden, GoldenResult, check_golden
from edgemed.runners.ort import OnnxRuntimeRunner


def reader_of(bundle: Bundle) -> SampleReader:
    """Reads files into feeds as the bundle's own recipe says."""
    layouts: dict[str, Layout] = {t.name: _layout(t.layout) for t in bundle.manifest.inputs}
    return SampleReader(specs_of(bundle).inputs, load_recipe(bundle.file(bundle.manifest.recipe.path)), layouts)


def _layout(name: str) -> Layout:
    return "NCHW" if name == "NCHW" else "NCDHW" if name == "NCDHW" else "NHWC"


def runner_of(bundle: Bundle, precision: RunPrecision | None = None) -> OnnxRuntimeRunner:
    """A Runner (not entered yet) for one precision; by default the bundle's own.

    Entering it raises `IntegrityError` for a graph that does not load, or is not what the manifest says.

    Raises:
        InputError: the bundle has no graph of that precision.
    """
    chosen, graph = graph_of(bundle, precision)
    return OnnxRuntimeRunner(
        bundle.graph_source(graph),
        precision=chosen,
        bundle_digest=bundle.digest,
        promised=specs_of(bundle),
    )


def golden_of(bundle: Bundle) -> Golden:
    """The bundle's golden vectors.

    Raises:
        IntegrityError: they are unreadable or incomplete.
    """
    stated = bundle.manifest.golden
    golden = Golden.from_bytes(bundle.read(stated.path), specs_of(bundle))
    if golden.samples != stated.samples:
        raise IntegrityError(
            f"There are {golden.samples} golden samples where the manifest says {stated.samples}.",
            "Build the bundle anew.",
        )
    return golden


def check_bundle(bundle: Bundle, progress: Progress, runner: Runner | None = None) -> dict[str, GoldenResult]:
    """Run the golden vectors, with the tolerances of each precision.

    Args:
        bundle: from `open_bundle`.
        progress: told of it.
        runner: not entered yet; what to check instead of ONNX Runtime in every precision that it can run.

    Raises:
        InputError: the bundle has no golden vectors for the precision of `runner`.
        IntegrityError: the vectors are unreadable or incomplete.
    """
    golden = golden_of(bundle)
    runners = [runner_of(bundle, precision) for precision in precisions(bundle)] if runner is None else [runner]
    results: dict[str, GoldenResult] = {}
    with progress.stage("golden") as stage:
        where = ""
        for each in runners:
            with each as entered:
                results[entered.info.precision] = _check(bundle, golden, entered)
                where = f"{entered.info.backend}/{entered.info.device}"
        right = sum(result.passed for result in results.values())
        stage.note(f"{golden.samples} samples, {right} of {len(results)} precisions right on {where}")
    return results


def _check(bundle: Bundle, golden: Golden, runner: Runner) -> GoldenResult:
    precision = runner.info.precision
    tolerance = bundle.manifest.golden.tolerance.get(precision, {})
    if precision not in precisions(bundle) and precision not in golden.outputs:
        have = ", ".join(golden.outputs)
        raise InputError(f"{bundle.path.name} has no golden vectors for {precision}.", f"It has: {have}.")
    return check_golden(runner, golden, tolerance, precision)
