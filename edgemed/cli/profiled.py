"""What a profile found: as tables, and as the exit code of its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgemed.base.errors import DeviceStateError, GateError, InconclusiveError
from edgemed.cli.console import say, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgemed.profile.result import Result
    from edgemed.profile.verdict import Verdict
    from edgemed.profile.way import Way


def print_result(result: Result) -> None:
    """The result as tables."""
    from edgemed.profile.text import head_rows, percentile_rows, stage_rows

    _print_rows(head_rows(result))
    _print_table(("latency", "ms", "upper bound", "from"), percentile_rows(result.latency) if result.latency else [])
    _print_table(("stage", "median ms", "p99", "max"), stage_rows(result))
    _print_end(result.warnings, result.verdict)


def print_way(way: Way) -> None:
    """A replayed study as tables."""
    from edgemed.profile.text import percentile_rows
    from edgemed.profile.way_text import model_rows, stage_rows, way_rows

    _print_rows(way_rows(way))
    for model in way.models:
        say("")
        _print_rows(model_rows(model))
        _print_table(("stage", "median ms", "p90", "p99", "max"), stage_rows(model))
        if model.latency is not None:
            _print_table(("whole way", "ms", "upper bound", "from"), percentile_rows(model.latency))
    _print_end(way.warnings, way.verdict)


def _print_rows(rows: Sequence[tuple[str, ...]]) -> None:
    for label, text in rows:
        say((f"{label:<14}", "dim"), text)


def _print_table(heads: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.table import Table

    from edgemed.base.text import printable

    if rows:
        table = Table(*heads, box=None, pad_edge=False, padding=(0, 3, 0, 0))
        for row in rows:
            table.add_row(*map(printable, row))
        show(table)


def _print_end(warnings: Sequence[str], verdict: Verdict | None) -> None:
    """Objectives, notes, and the verdict."""
    from edgemed.profile.text import verdict_rows

    _print_table(("objective", "limit", "seen", "verdict", "why"), verdict_rows(verdict) if verdict else [])
    for text in warnings:
        say(f"note: {text}")
    if verdict is not None:
        for text in (*verdict.wrong_state, *verdict.invalid):
            say(f"not evidence: {text}")
        say(("verdict       ", "dim"), (verdict.outcome, "bold"))


def enforce(verdict: Verdict) -> None:
    """Raise what a verdict other than `pass` is.

    Raises:
        GateError: an objective was missed.
        InconclusiveError: it is open.
        DeviceStateError: it was measured in another state than asked for.
    """
    if verdict.outcome == "wrong-state":
        raise DeviceStateError(f"{verdict.wrong_state[0].capitalize()}.", "Put the device into that state, then again.")
    if verdict.outcome == "fail":
        failed = [clause for clause in verdict.clauses if clause.outcome == "fail"]
        raise GateError(f"{failed[0].clause}: {failed[0].why}.", f"{len(failed)} of {len(verdict.clauses)} missed.")
    if verdict.outcome == "inconclusive":
        open_ = [clause for clause in verdict.clauses if clause.outcome == "inconclusive"]
        why = verdict.invalid[0] if verdict.invalid else f"{open_[0].clause}: {open_[0].why}"
        more = max((clause.more or 0 for clause in open_), default=0)
        raise InconclusiveError(f"{why}.", f"Measure {more} more frames." if more else "Measure longer.")
