"""`edgemed inspect`: what a bundle is, after every byte of it was checked; with `--device`, what a board says to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemed.base.errors import UsageError
from edgemed.base.text import printable
from edgemed.cli.console import print_json, show
from edgemed.cli.options import AllowCodeOption, InputOption, JsonOption

if TYPE_CHECKING:
    from edgemed.bundle.manifest import Manifest, OutputTensor
    from edgemed.bundle.read import Bundle

Row = tuple[str, str]


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="NAME.edgemed; with --device also a Keras model or an .onnx file.")
    ],
    *,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Say what this board will take and refuse, NAME\\[@JETPACK]; see `edgemed devices`."),
    ] = None,
    fp32: Annotated[bool, typer.Option("--fp32", help="With --device: check floating point, not INT8.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="With --device: check FP16, not INT8.")] = False,
    input_: InputOption = None,
    allow_code: AllowCodeOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a bundle was made from, what it takes and gives, and how exact it is; or what a board will refuse."""
    if device:
        from edgemed.cli.boards import check_boards

        check_boards(path, device, fp32=fp32, fp16=fp16, inputs=input_ or [], allow_code=allow_code, json=json)
        return
    if fp32 or fp16 or input_ or allow_code:
        raise UsageError("--fp32, --fp16, --input and --allow-code belong to --device.", "Name a board: --device NAME")
    from edgemed.bundle.read import open_bundle

    bundle = open_bundle(path)
    if json:
        manifest = bundle.manifest.model_dump(mode="json", by_alias=True)
        print_json({"digest": bundle.digest, "manifest": manifest})
        return
    _print(bundle)


def _print(bundle: Bundle) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    previous = ""
    for label, text in _rows(bundle):
        table.add_row(label if label != previous else "", Text(printable(text)))  # Text: names are not markup
        previous = label
    show(table)


def _rows(bundle: Bundle) -> Iterator[Row]:
    manifest = bundle.manifest
    yield "bundle", f"{manifest.name}, {manifest.precision}, created {manifest.created} by edgemed {manifest.edgemed}"
    yield "digest", bundle.digest
    versions = ", ".join(f"{name} {version}" for name, version in manifest.source.versions.items())
    yield "source", f"{manifest.source.file} ({manifest.source.format}; {versions or 'versions unknown'})"
    yield "source sha256", manifest.source.sha256
    for tensor in manifest.inputs:
        yield "input", f"{tensor.name} {tensor.dtype} {_shape(tensor.shape)} {tensor.layout}"
    for output in manifest.outputs:
        yield "output", _output(output)
    if manifest.batch is not None:
        yield "batch", f"{manifest.batch} (least, usual, greatest)"
    assumed = ": ASSUMED by the build, refused by sign and serve" if manifest.recipe.assumed else ""
    yield "recipe", f"{manifest.recipe.path}{assumed}"
    if manifest.calibration is not None:
        calibration = manifest.calibration
        yield "calibration", f"{calibration.method} over {calibration.images} samples, digest {calibration.digest[:16]}"
    for name, graph in manifest.graphs.items():
        beside = f" with {', '.join(f'{path}, {_size(manifest, path)}' for path in graph.data)}" if graph.data else ""
        yield "graph", f"{name}: {graph.path}, opset {graph.opset}, {_size(manifest, graph.path)}{beside}"
    for engine in manifest.engines:
        where = ", ".join(engine.compute_capabilities)
        what = f"{engine.flavour} {engine.version} {engine.precision} for compute capability {where}"
        yield "engine", f"{what}: {engine.path}, {_size(manifest, engine.path)}"
    yield from _fidelity(manifest)
    yield "golden", f"{manifest.golden.samples} samples"
    yield "intended use", manifest.intended_use
    yield (
        "files",
        f"{len(manifest.files)}, {_bytes(sum(entry.size for entry in manifest.files.values()))}, hashes match",
    )


def _fidelity(manifest: Manifest) -> Iterator[Row]:
    from edgemed.report.units import decibel, percent, relative_error

    fidelity = manifest.fidelity
    for label, errors in (("float", fidelity.float_vs_keras), ("INT8", fidelity.int8_vs_float)):
        for error in errors:
            against = {"keras": "Keras", "float": "float"}[error.reference]
            size = f"{relative_error(error.relative_error)} ({decibel(error.sqnr_db)})"
            yield "error", f"{label} vs {against}, {error.output}: {size}, n = {fidelity.samples}"
    if fidelity.int8_mac_share is not None:
        yield "INT8 share", f"{percent(fidelity.int8_mac_share)} of multiply-accumulates"


def _output(output: OutputTensor) -> str:
    extras = [output.task, output.activation, "/".join(output.classes)]
    if output.threshold is not None:
        extras.append(f"threshold {output.threshold:g}")
    return " ".join([output.name, output.dtype, _shape(output.shape), *(extra for extra in extras if extra)])


def _shape(dims: tuple[int | None, ...]) -> str:
    from edgemed.report.units import shape

    return shape(dims)


def _size(manifest: Manifest, path: str) -> str:
    return _bytes(manifest.files[path].size)


def _bytes(count: int) -> str:
    from edgemed.report.units import size

    return size(count)
