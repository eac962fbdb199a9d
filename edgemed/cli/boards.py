"""`edgemed inspect PATH --device NAME`: what boards will take and refuse, before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgemed.base.errors import GateError, UsageError
from edgemed.base.text import printable
from edgemed.cli.console import ConsoleProgress, print_json, say, show

if TYPE_CHECKING:
    from edgemed.build.options import Precision
    from edgemed.engine.target import Subject, Verdict

_MARK = "?"  # as in `edgemed devices`
Row = tuple[str, str, str]  # label, text, style


def check_boards(
    path: Path,
    devices: Sequence[str],
    *,
    fp32: bool,
    fp16: bool,
    inputs: list[str],
    allow_code: Path | None,
    json: bool,
) -> None:
    """Print a verdict for each board.

    Raises:
        UsageError: options that make no sense.
        InputError: no such model, board or JetPack.
        Exit: with 1 where a board refuses.
    """
    if fp32 and fp16:
        raise UsageError("--fp32 and --fp16 exclude each other.", "Give one of them.")
    from edgemed.device.profile import load_profile
    from edgemed.engine.target import judge

    for device in devices:
        load_profile(device)  # a name that is wrong is told before minutes are spent on the model
    subject = _subject(path, "fp32" if fp32 else "fp16" if fp16 else None, inputs, allow_code)
    verdicts = [judge(device, subject) for device in devices]
    takes = all(verdict.takes for verdict in verdicts)
    if json:
        boards = [asdict(verdict) for verdict in verdicts]
        print_json({"path": str(path), "precision": subject.precision, "takes": takes, "boards": boards})
    else:
        _print_all(verdicts)
    if not takes:
        raise typer.Exit(GateError.exit_code)


def _subject(path: Path, precision: Precision | None, inputs: list[str], allow_code: Path | None) -> Subject:
    from edgemed.build import target
    from edgemed.build.options import BuildOptions, parse_inputs
    from edgemed.bundle.read import is_bundle, open_bundle

    whole = is_bundle(path)
    if (whole or path.suffix == ".onnx") and (inputs or allow_code):
        raise UsageError("--input and --allow-code belong to a Keras model.", "Leave them out.")
    if whole:
        return target.of_bundle(open_bundle(path), precision)
    if path.suffix == ".onnx":
        if precision is not None:
            raise UsageError("The precision of an ONNX file is what stands in it.", "Leave out --fp32 and --fp16.")
        return target.of_onnx(path)
    options = BuildOptions(precision=precision or "int8", input_shapes=parse_inputs(inputs), allow_code=allow_code)
    return target.of_keras(path, options, ConsoleProgress())


def _print_all(verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        _print(verdict)
    if any(verdict.unverified for verdict in verdicts):
        say(f"{_MARK} rests on a secondary or unconfirmed source (edgemed devices --json).")


def _print(verdict: Verdict) -> None:
    from rich.table import Table
    from rich.text import Text

    say(
        (verdict.device, "bold"),
        ("  takes it" if verdict.takes else "  refuses it", "green" if verdict.takes else "red"),
    )
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text, style in _rows(verdict):
        table.add_row(label, Text(printable(text), style))
    show(table)


def _rows(verdict: Verdict) -> Iterator[Row]:
    from edgemed.build.target import where

    def marked(field: str, text: str) -> str:
        return text + _MARK if field in verdict.unverified else text

    software = f"JetPack {verdict.jetpack}, TensorRT {marked('tensorrt', verdict.tensorrt)}"
    yield "board", f"{verdict.name}, {software}, ONNX up to opset {marked('opset', str(verdict.opset))}", ""
    if verdict.graph is not None:
        yield "graph", f"{verdict.graph}: {verdict.why}", ""
    for name, why in verdict.others.items():
        yield "not used", f"{name}: {why}", "dim"
    for finding in verdict.findings:
        refused = finding.severity == "error"
        about = "" if finding.node is None else f"{where(finding)}: "
        message = marked("int8", finding.message) if finding.rule == "device-int8" else finding.message
        yield "refused" if refused else "warning", f"{about}{message}", "red" if refused else "yellow"
        yield "", f"what to do: {finding.remedy}", ""
    for command in verdict.commands:
        yield "command", f"{marked('dla', command.purpose) if 'DLA' in command.purpose else command.purpose}:", ""
        yield "", command.line, ""
    if verdict.dla:
        yield "DLA", marked("dla", verdict.dla), ""
    if not verdict.table_is_own:
        yield "operators", f"not this TensorRT's own list: {verdict.table}", ""
