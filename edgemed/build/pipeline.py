"""The conductor of `edgemed build MODEL`: stages in order, then the bundle, whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgemed import __version__
from edgemed.base.errors import InputError, os_errors_as_resource
from edgemed.base.hashing import sha256_bytes, sha256_tree, tree_bytes
from edgemed.base.progress import Progress
from edgemed.base.runner import TensorSpec
from edgemed.base.store import check_target, scratch_directory, staged_directory
from edgemed.base.text import printable
from edgemed.build import stages, typed
from edgemed.build.caches import calibration_caches
from edgemed.build.fidelity import PARITY_LIMIT, largest_differences, largest_values
from edgemed.build.findings import now, report_of
from edgemed.build.options import BuildOptions
from edgemed.build.samples import LAYOUTS, Samples, find_calibration, prepare
from edgemed.build.stages import AheadOfTime, CleanGraph, Parity, Quantized
from edgemed.build.target import require_boards
from edgemed.build.timing import TimedProgress
from edgemed.build.typed import Typed
from edgemed.build.writer import BundleWriter, is_ours
from edgemed.bundle.manifest import (
    MAX_NAME,
    SCHEMA,
    SUFFIX,
    Calibration,
    EngineRef,
    Fidelity,
    GraphName,
    GraphRef,
    InputTensor,
    Manifest,
    OutputTensor,
    RecipeRef,
    Source,
)
from edgemed.bundle.manifest import Golden as GoldenRef
from edgemed.convert import Converted, ConvertOptions, KerasModel, scan_model
from edgemed.device.profile import load_profile
from edgemed.evaluate import likeness
from edgemed.graph.store import GraphFile
from edgemed.report.data import Report
from edgemed.report.html import render
from edgemed.runners.golden import MINIMUM, Golden

_RECIPE = "recipe.toml"
_GOLDEN = "golden.npz"
_GOLDEN_FACTOR = 3.0
"""One measurement on few samples shows the size of an effect, not its largest; three of it leaves room."""


@dataclass(frozen=True)
class BuildResult:
    """A finished bundle."""

    path: Path
    digest: str
    report: Report


@dataclass(frozen=True)
class _Work:
    """What the stages made, ready to be written."""

    source: Source
    source_bytes: int
    converted: Converted
    samples: Samples
    graph: CleanGraph
    parity: Parity
    quantized: Quantized | None
    typed: Typed | None
    engine: AheadOfTime
    outputs: tuple[OutputTensor, ...]


def build(model: Path, options: BuildOptions, progress: Progress) -> BuildResult:
    """Build a bundle from a Keras model.

    Args:
        model: `.h5`, `.keras`, or a SavedModel directory.
        options: what was asked for.
        progress: where to report the stages.

    Raises:
        InputError: the model, the images or an option cannot be used.
        GateError: the converted graph is not the Keras model.
        ResourceError: disk, memory, permission, or a killed child.
    """
    target = options.target(model)
    replaceable = is_ours if options.force else None
    check_target(target, replaceable)
    _check_devices(options)
    timed = TimedProgress(progress)
    with os_errors_as_resource(), scratch_directory("edgemed-build") as folder:
        work = _run(model, options, folder, timed)
        with timed.stage("bundle") as stage, staged_directory(target, replaceable=replaceable) as staging:
            name = printable(target.name.removesuffix(SUFFIX))[:MAX_NAME]
            digest, report = _write(name, options, work, timed, staging)
            stage.note(f"{target}, {tree_bytes(staging) / 1e6:.1f} MB, sha256 {digest[:12]}…")
    return BuildResult(target, digest, report)


def _check_devices(options: BuildOptions) -> None:
    for name in options.devices:
        profile, _ = load_profile(name)
        if options.precision == "int8" and not profile.int8:
            raise InputError(
                f"{profile.name} has no INT8 in TensorRT (compute capability {profile.compute_capability}).",
                "Build it with --fp16.",
            )


def _run(model: Path, options: BuildOptions, workdir: Path, progress: TimedProgress) -> _Work:
    # before the slow part: most mistakes are made here
    scan_model(model, allow_code=options.allow_code is not None)
    calibration = find_calibration(options)
    convert = ConvertOptions(
        input_shapes=options.input_shapes,
        allow_code=options.allow_code,
        batch=None if options.batch is not None else 1,
        signature=options.signature,
    )
    with KerasModel(model, workdir, convert) as keras:
        converted = stages.convert(keras, progress)
        source = Source(
            file=printable(model.absolute().name),
            sha256=sha256_tree(model),
            format=converted.format,
            versions=converted.versions,
        )
        samples = prepare(options, calibration, converted.inputs, rescales_inside=converted.rescales_inside)
        graph = stages.clean(converted, workdir / "graphs", options, progress)
        if options.fold:
            graph, samples = stages.fold_preprocessing(graph, samples, progress)
        require_boards(options, graph.model, (layer.name for layer in converted.layers), converted.inputs)
        parity = stages.check_parity(keras, graph, samples, progress)
    quantized = _quantize(options, samples, graph, parity, progress) if options.precision == "int8" else None
    half = _type(options, samples, graph, parity, quantized, progress)
    graphs = [made.graph for made in (half, quantized) if made is not None] or [graph.graph]
    engine = stages.compile_plan(graphs, samples.reader.inputs, graph, options.precision, progress)
    outputs = tuple(_output(spec_index, converted, samples) for spec_index in range(len(converted.outputs)))
    return _Work(source, tree_bytes(model), converted, samples, graph, parity, quantized, half, engine, outputs)


def _quantize(
    options: BuildOptions, samples: Samples, graph: CleanGraph, parity: Parity, progress: TimedProgress
) -> Quantized:
    recipe_digest = sha256_bytes(samples.recipe_text.encode())
    histograms, table, constant = stages.calibrate(graph, samples, options, recipe_digest, progress)
    quantized = stages.quantize(graph, histograms, table, constant, progress)
    return stages.verify(quantized, parity, samples, progress)


def _type(
    options: BuildOptions,
    samples: Samples,
    graph: CleanGraph,
    parity: Parity,
    quantized: Quantized | None,
    progress: TimedProgress,
) -> Typed | None:
    """The strongly typed graph of this build; FP32 needs none, as all of its types are FP32 already."""
    if quantized is not None:
        return typed.int8_fp16(graph, quantized, parity, samples, progress)
    return typed.fp16(graph, parity, samples, progress) if options.precision == "fp16" else None


def _output(index: int, converted: Converted, samples: Samples) -> OutputTensor:
    """How an output is read: by the recipe, else by what its shape and last activation say."""
    spec = converted.outputs[index]
    recipe = samples.recipe.output
    activation = recipe.activation or converted.output_activations.get(spec.name, "none")
    task = recipe.task or _task(spec.shape, activation)
    return OutputTensor(
        name=spec.name,
        dtype=spec.dtype,
        shape=spec.shape,
        layout=LAYOUTS.get(len(spec.shape), "as-is"),
        task=task,
        activation=activation,
        classes=recipe.class_names,
        threshold=recipe.threshold if recipe.threshold is not None else (0.5 if task == "binary" else None),
        geometry=recipe.geometry,
    )


def _input_layout(spec: TensorSpec, samples: Samples) -> str:
    return samples.reader.layouts[spec.name] if len(spec.shape) == 4 else LAYOUTS.get(len(spec.shape), "as-is")


def _task(shape: tuple[int | None, ...], activation: str) -> str:
    if len(shape) >= 4 and activation != "none":
        return "segmentation"
    if len(shape) == 2 and activation == "softmax":
        return "multiclass"
    if len(shape) == 2 and activation == "sigmoid":
        return "binary" if shape[-1] == 1 else "multilabel"
    return "regression"


def _write(name: str, options: BuildOptions, work: _Work, progress: TimedProgress, staging: Path) -> tuple[str, Report]:
    writer = BundleWriter(staging)
    recipe = writer.add(_RECIPE, work.samples.recipe_text.encode())
    graphs = _write_graphs(writer, work)
    calibration = _write_calibration(writer, options, work)
    golden = _write_golden(writer, work)
    _write_reference(writer, work)
    engines = _write_engines(writer, work.engine)
    sizes = {work.source.file: work.source_bytes} | {file: entry.size for file, entry in writer.files.items()}
    report = report_of(
        name=name,
        options=options,
        source=work.source,
        converted=work.converted,
        outputs=work.outputs,
        samples=work.samples,
        graph=work.graph,
        parity=work.parity,
        quantized=work.quantized,
        typed=work.typed,
        engine=work.engine,
        sizes=sizes,
        stages=progress.stages,
    )
    writer.add_json("report.json", report)
    writer.add("report.html", render(report).encode())
    manifest = Manifest(
        schema_=SCHEMA,
        name=name,
        created=now(),
        edgemed=__version__,
        source=work.source,
        inputs=tuple(
            InputTensor(name=s.name, dtype=s.dtype, shape=s.shape, layout=_input_layout(s, work.samples))
            for s in work.samples.reader.inputs
        ),
        outputs=work.outputs,
        batch=options.batch,
        precision=options.precision,
        recipe=RecipeRef(path=_RECIPE, sha256=recipe.sha256, assumed=work.samples.recipe.assumed),
        calibration=calibration,
        graphs=graphs,
        engines=engines,
        fidelity=_fidelity(work),
        golden=golden,
        files=writer.files,
    )
    return writer.finish(manifest), report


def _write_graphs(writer: BundleWriter, work: _Work) -> dict[GraphName, GraphRef]:
    graphs: dict[GraphName, GraphFile] = {"float": work.graph.graph}
    if work.quantized is not None:
        graphs["int8"] = work.quantized.graph
    if work.typed is not None:
        graphs[work.typed.name] = work.typed.graph
    refs: dict[GraphName, GraphRef] = {}
    for name, graph in graphs.items():
        paths = [f"graphs/{file.name}" for file in graph.files]
        for path, file in zip(paths, graph.files, strict=True):
            if path not in writer.files:  # graphs share weights
                writer.take(path, file)
        refs[name] = GraphRef(
            path=paths[0],
            sha256=writer.files[paths[0]].sha256,
            opset=graph.opset,
            ir_version=graph.ir_version,
            data=tuple(paths[1:]),
        )
    if work.quantized is not None:
        refs["plain"] = refs["float"]  # pairs were put in, and nothing else was changed
    writer.add_json("costs.json", {"schema": "edgemed/costs/1", "layers": [vars(cost) for cost in work.graph.costs]})
    return refs


def _write_calibration(writer: BundleWriter, options: BuildOptions, work: _Work) -> Calibration | None:
    if work.quantized is None or work.samples.calibration is None:
        return None
    writer.add_json("scales.json", work.quantized.table)
    writer.add_json("calibration.json", work.samples.calibration)
    for path, cache in calibration_caches(work.quantized.table, options.devices).items():
        writer.add(path, cache)
    return Calibration(
        method=work.quantized.table.method,
        digest=work.samples.calibration.digest,
        images=work.quantized.table.images,
    )


def _write_reference(writer: BundleWriter, work: _Work) -> None:
    """What the judged images are like, for the bedside to hold its inputs against; nothing without images."""
    if len(work.samples.judging) >= likeness.LEAST:
        layouts = {spec.name: _input_layout(spec, work.samples) for spec in work.samples.reader.inputs}
        writer.add_json(likeness.FILE, likeness.document(work.samples.judged, layouts, work.parity.float))


def _write_golden(writer: BundleWriter, work: _Work) -> GoldenRef:
    """Golden vectors from judged samples, and a tolerance per precision.

    fp32: `PARITY_LIMIT` of the output's range, the same reason as there. The others: `_GOLDEN_FACTOR` times what a
    right backend may do differently on these samples, which is what FP16 itself changes (a backend may keep chains
    in FP32 that another one rounds), and for INT8 values on a boundary that round the other way.
    """
    chosen = [int(i) for i in np.linspace(0, len(work.samples.judged) - 1, MINIMUM)]  # evenly: folders may be classes
    samples = [work.samples.judged[i] for i in chosen]
    found = {"fp32": work.parity.float}
    limits = {name: PARITY_LIMIT * max(value, 1e-6) for name, value in largest_values(work.parity.float).items()}
    tolerance = {"fp32": limits}
    if work.quantized is not None:
        found["int8"] = work.quantized.outputs
        half = work.quantized.outputs if work.typed is None else work.typed.outputs
        differ = largest_differences(half, work.quantized.outputs)
        tolerance["int8"] = {
            name: max(_GOLDEN_FACTOR * max(differ[name], work.quantized.rounding[name]), limit)
            for name, limit in limits.items()
        }
    elif work.typed is not None:
        found["fp16"] = work.typed.outputs
        differ = largest_differences(work.typed.outputs, work.parity.float)
        tolerance["fp16"] = {name: max(_GOLDEN_FACTOR * differ[name], limit) for name, limit in limits.items()}
    expected = {precision: stages.stacked([outputs[i] for i in chosen]) for precision, outputs in found.items()}
    golden = Golden(stages.stacked(samples), expected)
    writer.add(_GOLDEN, golden.to_bytes())
    return GoldenRef(path=_GOLDEN, samples=golden.samples, tolerance=tolerance)


def _write_engines(writer: BundleWriter, engine: AheadOfTime) -> tuple[EngineRef, ...]:
    if engine.plan is None:
        return ()
    plan = engine.plan
    targets = "-".join("sm" + capability.replace(".", "") for capability in plan.compute_capabilities)
    path = f"engines/{plan.flavour}-{plan.version}-{targets}-{plan.precision}.plan"
    entry = writer.add(path, plan.plan)
    return (
        EngineRef(
            path=path,
            sha256=entry.sha256,
            flavour=plan.flavour,
            version=plan.version,
            precision=plan.precision,
            compute_capabilities=plan.compute_capabilities,
        ),
    )


def _fidelity(work: _Work) -> Fidelity:
    return Fidelity(
        samples=len(work.samples.judged),
        float_vs_keras=work.parity.fidelity,
        int8_vs_float=work.quantized.vs_float if work.quantized else (),
        fp16_vs_float=work.typed.vs_float if work.typed and work.typed.name == "fp16" else (),
        int8_fp16_vs_float=work.typed.vs_float if work.typed and work.typed.name == "int8_fp16" else (),
        int8_mac_share=stages.share(work.graph, work.quantized.placement) if work.quantized else None,
    )
