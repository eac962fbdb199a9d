"""Two sets of runs as one HTML file: what changed, how surely, and by which runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgemed import __version__
from edgemed.profile.compare import Change, Comparison, metric_of
from edgemed.profile.markdown import CHANGES
from edgemed.profile.result import Result
from edgemed.profile.text import change_rows, machine_rows
from edgemed.report.chart import Axis, Chart, span_of
from edgemed.report.markup import Column, Html, facts, fill, join, table
from edgemed.report.page import box, card, figure, page, section

_WORDS: Final = {
    "improvement": "B is faster by more than the margin.",
    "regression": "B is slower by more than the margin.",
    "equal": "A and B are equal within the margins.",
    "inconclusive": "Undecided: the runs cannot tell.",
    "unjudged": "No margin was given: changes are told, and not judged.",
}
_TAGS: Final = {
    "improvement": "good",
    "equal": "good",
    "regression": "bad",
    "inconclusive": "float",
    "unjudged": "idle",
}


def render(comparison: Comparison, a: Sequence[Result], b: Sequence[Result]) -> str:
    """The comparison as a self-contained HTML document.

    Args:
        comparison: what came of them.
        a, b: the runs.
    """
    head = fill(
        '<p class="from">{a} runs of A, {b} runs of B</p><h1>{name_b} against {name_a}</h1>'
        '<p class="verdict">{verdict}</p>{notes}<dl class="cards">{cards}</dl>',
        a=comparison.runs_a,
        b=comparison.runs_b,
        name_a=comparison.name_a,
        name_b=comparison.name_b,
        verdict=_WORDS[comparison.outcome],
        notes=box("", "Please note", comparison.warnings),
        cards=join(_card(change) for change in comparison.changes if change.metric in ("p50", "p99", "p99.9")),
    )
    sections = (_changes(comparison), _runs(comparison, a, b), _alike(comparison, a, b))
    foot = fill("Compared by edgemed {version}: the same figures as `edgemed compare --json`.", version=__version__)
    return page(f"{comparison.name_b} against {comparison.name_a}: edgemed comparison", head, sections, foot)


def _card(change: Change) -> Html:
    interval = "" if change.low is None or change.high is None else f"{change.low:+.1%} to {change.high:+.1%}"
    value = "n/a" if change.change is None else f"{change.change:+.1%}"
    return card(change.metric, value, interval or "too few runs for an interval")


def _changes(comparison: Comparison) -> Html:
    rows = [
        (*row[:-1], fill('<span class="tag {kind}">{word}</span>', kind=_TAGS[change.outcome], word=change.outcome))
        for row, change in zip(change_rows(comparison), comparison.changes, strict=True)
    ]
    columns = (
        Column(CHANGES[0]),
        *(Column(name, "number") for name in CHANGES[1:-1]),
        Column(CHANGES[-1]),
    )
    lead = (
        f"B against A; above 0 is slower. Intervals ({comparison.confidence:.0%}) come from resampling runs, not "
        "frames: frames of one process share its luck."
    )
    known = [each for each in comparison.changes if each.change is not None]
    plot = (
        figure("Change of each metric", "with its interval, and the margin", _intervals(known)) if known else Html("")
    )
    return section("What changed", lead, plot, table("Change of each metric", columns, rows))


def _intervals(changes: Sequence[Change]) -> Html:
    names = [change.metric for change in changes]
    places = np.arange(len(changes)) + 1.0
    middle = np.array([100 * (change.change or 0.0) for change in changes])
    lows = np.array([np.nan if change.low is None else 100 * change.low for change in changes])
    highs = np.array([np.nan if change.high is None else 100 * change.high for change in changes])
    limits = np.array([100 * (change.margin or 0.0) for change in changes])
    low, high = span_of(lows, highs, middle, limits, -limits / (1 + limits / 100), [0.0])
    x = Axis(0.4, len(changes) + 0.6, "metric", text=lambda v: names[round(v) - 1], ticks=tuple(places.tolist()))
    chart = Chart(x, Axis(low, high, "B against A, %"), 260)
    judged = limits > 0
    if judged.any():
        reach = limits[judged]
        chart.spans(places[judged], -reach / (1 + reach / 100), reach, "line", 34)
    known = np.isfinite(lows)
    chart.spans(places[known], lows[known], highs[known], "accent", 3)
    chart.dots(places, middle, "ink", 3.2)
    chart.rule_y(0.0, "no change", "muted")
    return chart.render(f"Changes of {', '.join(names)} with their intervals")


def _runs(comparison: Comparison, a: Sequence[Result], b: Sequence[Result]) -> Html:
    rows = []
    for name, side in (("A", a), ("B", b)):
        for number, result in enumerate(side, start=1):
            values = [metric_of(result, metric) for metric in ("p50", "p99", "p99.9", "max")]
            cells = ("n/a" if value is None else f"{value / 1e6:.3f}" for value in values)
            rows.append((f"{name} {number}", result.created, f"{result.counts.answered:,}", *cells))
    heads = ("answers", "p50, ms", "p99, ms", "p99.9, ms", "slowest, ms")
    columns = (Column("Run"), Column("Measured"), *(Column(name, "number") for name in heads))
    lead = f"{comparison.runs_a + comparison.runs_b} runs; each is one process."
    return section("Runs", lead, table("All runs", columns, rows))


def _alike(comparison: Comparison, a: Sequence[Result], b: Sequence[Result]) -> Html:
    both = zip(machine_rows(a[0]), machine_rows(b[0]), strict=True)
    pairs = [(name, text if text == other else f"A: {text}; B: {other}") for (name, text), (_, other) in both]
    differing = ", ".join(comparison.differing) or "nothing"
    rows = [(name, fill("{text}", text=text)) for name, text in pairs]
    return section("Device and software", f"Of the first run of each side. Differing: {differing}.", facts(rows))
