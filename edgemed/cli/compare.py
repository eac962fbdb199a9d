"""`edgemed compare`: two sets of profiles, or two bundles by turns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemed.base.errors import GateError, InconclusiveError, UsageError
from edgemed.cli.console import err, print_json, say, show
from edgemed.cli.options import JsonOption
from edgemed.cli.runner import DlaCoreOption, RunnerOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgemed.profile.compare import Comparison
    from edgemed.profile.result import Result


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Baseline: results of profiles, or with --runs a bundle.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="What is held against it.")],
    *,
    margin: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=SHARE", help="A change within it is none, e.g. p99=5%.", show_default=False),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="Part of the fingerprint that may differ, or all.", show_default=False),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(min=1, help="Profile both bundles so often, by turns, in fresh processes.", show_default=False),
    ] = None,
    load: Annotated[str, typer.Option(metavar="LOAD", help="With --runs: as of `edgemed profile`.")] = "closed",
    duration: Annotated[str, typer.Option(metavar="TIME", help="With --runs: of each run.")] = "10s",
    runner: RunnerOption = "auto",
    dla_core: DlaCoreOption = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --runs: where all results go.", show_default=False)
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The comparison as .html, or as .md for a pull request.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Hold B against A: at least five runs each, resampled as runs, not as frames.

    Exit code 1 where a metric with a margin got slower, 3 where the runs cannot tell.
    """
    from edgemed.profile.compare import compare as hold
    from edgemed.profile.compare import load_runs, parse_margin

    if report is not None and report.suffix not in (".html", ".md"):
        raise UsageError(f"{report} is neither .html nor .md.", "Give the report one of these endings.")
    if runs is None and (runner != "auto" or dla_core is not None):
        raise UsageError("--runner and --dla-core belong to --runs; results were measured already.", "Leave them out.")
    margins = [parse_margin(text) for text in margin or ()]
    if runs is not None:
        from edgemed.profile.interleave import run_interleaved

        if output is None:
            raise UsageError("Runs take a folder for their results.", "Give --output DIR.")
        settings = ["--load", load, "--duration", duration, "--runner", runner]
        settings += [] if dla_core is None else ["--dla-core", str(dla_core)]
        run_interleaved((a, b), settings, runs, output, lambda text: say(text, console=err))
        a, b = output / "a", output / "b"
    sides = load_runs(a), load_runs(b)
    comparison = hold(*sides, margins, allow=allow or ())
    if report is not None:
        _write_report(comparison, *sides, report)
    if json:
        print_json(comparison.model_dump(mode="json", by_alias=True))
    else:
        _print(comparison)
    decided = [change for change in comparison.changes if change.outcome == comparison.outcome and change.margin]
    if comparison.outcome == "regression":
        raise GateError(f"{decided[0].metric}: {decided[0].why}.", "See the table.")
    if comparison.outcome == "inconclusive":
        raise InconclusiveError(f"{decided[0].metric}: {decided[0].why}.", "Give --runs, or more results.")


def _write_report(comparison: Comparison, a: Sequence[Result], b: Sequence[Result], path: Path) -> None:
    from edgemed.base.store import write_atomic
    from edgemed.bundle.outputs import require_outside_bundles
    from edgemed.profile.comparison import render
    from edgemed.profile.markdown import comparison_markdown

    require_outside_bundles(path, "--report")
    text = comparison_markdown(comparison) if path.suffix == ".md" else render(comparison, a, b)
    write_atomic(path, text.encode())


def _print(comparison: Comparison) -> None:
    from rich.table import Table

    from edgemed.profile.text import change_rows

    say(f"A {comparison.name_a}, {comparison.runs_a} runs; B {comparison.name_b}, {comparison.runs_b} runs")
    if comparison.differing:
        say(f"differing: {', '.join(comparison.differing)}")
    heads = ("metric", "A", "B", "change", "95 % interval", "margin", "outcome")
    table = Table(*heads, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for row in change_rows(comparison):
        table.add_row(*row)
    show(table)
    for text in comparison.warnings:
        say(f"note: {text}")
