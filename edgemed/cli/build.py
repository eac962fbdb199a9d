"""`edgemed build`: a Keras model becomes a bundle; a bundle, on a board, becomes an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgemed.base.errors import UsageError
from edgemed.base.text import printable
from edgemed.cli import build_options as options
from edgemed.cli.console import ConsoleProgress, print_json, say, show
from edgemed.cli.options import AllowCodeOption, InputOption

if TYPE_CHECKING:
    from edgemed.build.options import BuildOptions


def build(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="model.h5, model.keras, a SavedModel, or NAME.edgemed on a board.")
    ],
    *,
    int8: options.Int8 = False,
    fp32: options.Fp32 = False,
    fp16: options.Fp16 = False,
    calibration: options.Calibration = None,
    method: options.Method = "entropy",
    recipe: options.Recipe = None,
    device: options.Device = None,
    input_: InputOption = None,
    dynamic_batch: options.DynamicBatch = None,
    signature: options.Signature = None,
    fold_preprocessing: options.FoldPreprocessing = False,
    output: options.Output = None,
    force: options.Force = False,
    dla_core: options.DlaCore = None,
    allow_code: AllowCodeOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON document.")] = False,
) -> None:
    """Turn MODEL into a verified bundle: INT8 graph, scales, golden vectors, report, engines."""
    if int8 + fp32 + fp16 > 1:
        raise UsageError("--int8, --fp32 and --fp16 exclude each other.", "Give one of them.")
    from edgemed.bundle.read import is_bundle

    if is_bundle(model):
        if dynamic_batch or signature or fold_preprocessing:
            what = "--dynamic-batch, --signature and --fold-preprocessing"
            raise UsageError(f"{what} belong to a Keras model.", "Leave them out for a bundle.")
        _build_engine(model, "fp16" if fp16 else "fp32" if fp32 else None, dla_core, rebuild=force, json=json)
        return
    if dla_core is not None:
        raise UsageError("--dla-core belongs to a bundle.", "Build the bundle first, then its engine on the board.")
    from edgemed.build.options import BuildOptions, parse_batch, parse_inputs

    wanted = BuildOptions(
        precision="fp32" if fp32 else "fp16" if fp16 else "int8",
        calibration=calibration,
        recipe=recipe,
        output=output,
        force=force,
        input_shapes=parse_inputs(input_ or []),
        allow_code=allow_code,
        method=method,
        devices=tuple(device or ()),
        batch=parse_batch(dynamic_batch) if dynamic_batch is not None else None,
        signature=signature,
        fold=fold_preprocessing,
    )
    _build_bundle(model, wanted, json=json)


def _build_bundle(model: Path, wanted: BuildOptions, *, json: bool) -> None:
    from edgemed.build.pipeline import build as build_bundle
    from edgemed.report.text import summary, verdict

    result = build_bundle(model, wanted, ConsoleProgress())
    if json:
        print_json(result.report.model_dump(mode="json", by_alias=True))
        return
    _print_summary(str(result.path), verdict(result.report), summary(result.report))


def _print_summary(path: str, sentence: str, rows: list[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for label, text in rows:
        table.add_row(Text(label, "dim"), Text(printable(text), "yellow" if label == "warning" else ""))
    say()
    say((path, "bold"), f"  {sentence}")
    show(table)
    say(("report", "dim"), f"  {path}/report.html")


def _build_engine(
    path: Path, precision: Literal["fp16", "fp32"] | None, dla_core: int | None, *, rebuild: bool, json: bool
) -> None:
    from edgemed.bundle.read import open_bundle
    from edgemed.engine.onboard import build_on_device

    opened = open_bundle(path)
    with ConsoleProgress().stage("engine") as stage:
        engine = build_on_device(opened, stage, precision=precision, dla_core=dla_core, rebuild=rebuild)
    if json:
        print_json(engine.record.model_dump(mode="json", by_alias=True))
    else:
        say(f"{engine.folder}  {'reused' if engine.reused else 'built'}")
