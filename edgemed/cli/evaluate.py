"""`edgemed evaluate`: float and INT8 side by side on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemed.cli.console import ConsoleProgress, print_json, say, show
from edgemed.cli.options import BundleArgument, JsonOption

if TYPE_CHECKING:
    from edgemed.evaluate.record import Evaluation, Masks, Measured


def evaluate(
    bundle: BundleArgument,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Directory with one folder of images per class, or a CSV file: file,label. Of a segmentation: "
            "images/ and masks/, or DICOM images with DICOM SEG.",
        ),
    ],
    *,
    gate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR", help="What must hold, e.g. 'auc >= float - 0.005'; may be repeated.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure BUNDLE on labelled DATA: each metric with n and its 95 % interval.

    A gate passes when its one-sided 95 % bound clears the limit; a failed gate is exit code 1, an undecided one 3.
    """
    from edgemed.bundle.read import open_bundle
    from edgemed.evaluate.compare import evaluate_bundle
    from edgemed.evaluate.gate import enforce, parse_gate

    gates = [parse_gate(text) for text in gate or ()]
    comparison = evaluate_bundle(open_bundle(bundle), data, gates, ConsoleProgress())
    if json:
        print_json(comparison.evaluation.model_dump(mode="json", by_alias=True))
    else:
        _print(comparison.evaluation)
    enforce(comparison.decisions)


def _print(evaluation: Evaluation) -> None:
    from rich.markup import escape
    from rich.table import Table

    from edgemed.base.text import printable

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("metric\n[dim]95 % interval[/]")
    table.add_column("n", justify="right")
    for result in evaluation.results:
        table.add_column("float" if result.precision == "fp32" else result.precision.upper())
    if evaluation.differences:
        table.add_column("difference")
    for name, first in evaluation.results[0].metrics.items():
        cells = [_cell(result.metrics[name]) for result in evaluation.results]
        if evaluation.differences:
            cells.append(_cell(evaluation.differences[name], signed=True))
        table.add_row(escape(printable(name)), str(first.n), *cells)
    show(table)
    for line in _notes(evaluation):
        say(line)


def _notes(evaluation: Evaluation) -> list[str]:
    counts = ", ".join(f"{c.name} {c.samples}" for c in evaluation.data.classes)
    lines = [f"{evaluation.data.samples} images ({counts}; classes {evaluation.data.class_order})"]
    if evaluation.threshold is not None and evaluation.masks is None:
        lines.append(f"positive: {evaluation.data.classes[-1].name}, from a probability of {evaluation.threshold:g}")
    if evaluation.masks is not None:
        lines += _mask_notes(evaluation.masks, evaluation.disagreement)
    elif evaluation.disagreement is not None:
        share = evaluation.disagreement
        count, bounds = round(share.value * share.n), f"{share.low:.1%} to {share.high:.1%}"
        lines.append(f"float and INT8 decide differently on {count} of {share.n} (95 % interval {bounds})")
    lines += [f"gate '{g.gate}': {g.verdict} (bounds {g.low:+.4f} to {g.high:+.4f})" for g in evaluation.gates]
    return lines + [f"note: {text}" for text in evaluation.warnings]


def _mask_notes(masks: Masks, differing: Measured | None) -> list[str]:
    missing = ", ".join(f"{name} {count}" for name, count in masks.not_drawn.items() if count)
    lines = [f"images on which a class was not drawn, judged by false_alarms alone: {missing}"] if missing else []
    if differing is not None:
        bounds = f"{differing.low:.2%} to {differing.high:.2%}"
        lines.append(f"float and INT8 decide differently on {differing.value:.2%} of pixels (95 % interval {bounds})")
    if masks.agreement is not None:
        alike = masks.agreement
        lines.append(f"Dice of float's and INT8's masks: {alike.value:.4f} ({alike.low:.4f} to {alike.high:.4f})")
    return lines


def _cell(measured: Measured, *, signed: bool = False) -> str:
    """Value above its interval: side by side they would not fit 80 columns."""
    sign = "+" if signed else ""
    return f"{measured.value:{sign}.4f}\n[dim]{measured.low:{sign}.4f} to {measured.high:{sign}.4f}[/]"
