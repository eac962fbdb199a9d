"""A profile, or a comparison of two, in Markdown: short enough for a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from edgemed.base.store import write_atomic
from edgemed.profile.compare import Comparison
from edgemed.profile.result import Result
from edgemed.profile.text import Row, change_rows, honest_rows, percentile_rows, stage_rows, summary, verdict_rows
from edgemed.report.markup import clip, escape

MARKDOWN: Final = "report.md"
CHANGES: Final = ("metric", "A", "B", "change", "95 % interval", "margin", "outcome")


def write_markdown(text: str, path: Path) -> None:
    """Write it whole or not at all.

    Raises:
        ResourceError: it cannot be written.
    """
    write_atomic(path, text.encode())


def profile_markdown(result: Result) -> str:
    """One run: the sentence, objectives, percentiles, stages, and what they hold for."""
    mark = result.fingerprint
    where = mark.board or mark.gpu or mark.host.cpu
    parts = [
        f"### {_cell(result.name)}: {_cell(mark.precision)} on {_cell(mark.backend)}/{_cell(mark.device)}, "
        f"{_cell(where)}",
        _cell(summary(result)),
    ]
    if result.verdict is not None:
        parts += [f"- not evidence: {_cell(text)}" for text in (*result.verdict.wrong_state, *result.verdict.invalid)]
        parts.append(_table(("objective", "limit", "seen", "verdict", "why"), verdict_rows(result.verdict)))
    if result.latency is not None:
        parts.append(_table(("latency", "ms", "upper bound", "from"), percentile_rows(result.latency)))
    if result.stages:
        parts.append(_table(("stage", "median ms", "p99", "max"), stage_rows(result)))
    if (misses := result.misses) is not None:
        parts.append(
            f"Misses of {misses.deadline_ns / 1e6:g} ms: {misses.rate.count} of {misses.rate.n} frames in "
            f"{misses.rate.events} events, at most {misses.rate.upper:.3g} of all; "
            f"{misses.longest_burst} in a row at most."
        )
    parts += [f"> {_cell(text)}" for text in result.warnings]
    parts.append(_folded("How it was measured", _table(("", ""), honest_rows(result))))
    return "\n\n".join(parts) + "\n"


def comparison_markdown(comparison: Comparison) -> str:
    """Two sets of runs: every metric with its interval."""
    verdict = {"unjudged": "no margin was given", "inconclusive": "undecided"}
    parts = [
        f"### {_cell(comparison.name_b)} against {_cell(comparison.name_a)}: "
        f"{verdict.get(comparison.outcome, comparison.outcome)}",
        f"{comparison.runs_a} runs of A, {comparison.runs_b} of B; intervals from resampling runs, not frames.",
        _table(CHANGES, change_rows(comparison)),
    ]
    if comparison.differing:
        parts.append(f"Differing: {_cell(', '.join(comparison.differing))}.")
    parts += [f"> {_cell(text)}" for text in comparison.warnings]
    return "\n\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Row]) -> str:
    lines = [_line(heads), "| " + " | ".join("---" for _ in heads) + " |"]
    return "\n".join([*lines, *(_line([_cell(cell) for cell in row]) for row in rows)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _cell(text: str) -> str:
    """Names are others' text: nothing in them is markup, and none of them ends a table's cell or line."""
    flat = " ".join(clip(text, 600).split())
    for mark in "\\`*_[]|~#":
        flat = flat.replace(mark, f"\\{mark}")
    return escape(flat)
