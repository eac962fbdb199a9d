"""The weekly report of drift: as one HTML file that loads nothing, and in parts for who has a page around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgemed.report.chart import Axis, Chart
from edgemed.report.markup import Column, Html, fill, join, table
from edgemed.report.page import box, card, figure, legend, page, section

_DRAWN: Final = {
    "week": ("this week", "bars"),
    "weeks before": ("the weeks before", "accent"),
    "bundle": ("images that the bundle was built with", "warn"),
}
_SAMPLES: Final = {"week": "values of this week", "weeks before": "of the weeks before", "bundle": "of the bundle"}
_TAGS: Final = {"shifted": "bad", "no shift seen": "good", "too few": "idle"}
_HALF: Final = 420  # two of them stand side by side
_SAID: Final = {
    "shifted": "Something has shifted. Find out what is new: a scanner, its protocol, a window setting, other patients."
    " Where nothing explains it, look at studies of this week, and evaluate the model on such images before its"
    " answers are relied on.",
    "no shift seen": "No shift is seen. Lines that say “too few” could not have shown one.",
    "too few": "There are too few tasks to tell. {needed:,} in this week and before are enough.",
}
_NONE: Final = "No task has been counted yet. The counts are kept each minute."
_DISTANCE: Final = (
    "The distance is the greatest difference between the shares of tasks at or below any one value: of 40 %, at least"
    " 40 of 100 tasks have other values than those they are held against. The true distance lies in its interval."
)


def render_drift(document: Mapping[str, Any]) -> str:
    """The report as a self-contained HTML document.

    Args:
        document: as `edgemed drift --json` prints it.
    """
    head, sections, foot = drift_parts(document)
    return page("Drift", head, sections, foot)


def drift_parts(document: Mapping[str, Any]) -> tuple[Html, list[Html], Html]:
    """What stands above all sections, the sections, and the last line, of the same document."""
    models = sorted(document["models"], key=lambda one: one["verdict"] != "shifted")  # the worst come first
    head = fill(
        '<p class="from">a week at the bedside</p><h1>Drift</h1><p class="verdict">{text}</p>'
        '{notes}<dl class="cards">{cards}</dl>',
        text=_verdict(models),
        notes=box("failed", "Shifted", [f"{one['model']}: {name}" for one in models for name in _shifted(one)]),
        cards=join(
            card(f"{one['model']}, {one['week']}", f"{one['tasks']:,}", f"tasks; {one['verdict']}") for one in models
        ),
    )
    foot = fill(
        "Made by edgemed on {day} at {time} UTC. All intervals of one version in one week hold together with {share} %,"
        " where tasks are independent of each other.",
        day=document["at"][:10],
        time=document["at"][11:16],
        share=f"{100 * (1 - document['level']):g}",
    )
    return head, [each for one in models for each in _model(one)], foot


def _verdict(models: Sequence[Mapping[str, Any]]) -> str:
    if not models:
        return _NONE
    verdicts = [one["verdict"] for one in models]
    worst = next((each for each in ("shifted", "no shift seen") if each in verdicts), "too few")
    return _SAID[worst].format(needed=max(one["needed"] for one in models))


def _shifted(one: Mapping[str, Any]) -> Iterator[str]:
    for line in one["numbers"]:
        if line["verdict"] == "shifted":
            yield f"{line['number']} against the {line['against']}, by {_percent(line['low'])} of tasks at least"
    for line in one["shares"]:
        if line["verdict"] == "shifted":
            yield f"{line['name']}: {_of(line)}, before {_of(line['before'])}"


def _model(one: Mapping[str, Any]) -> Iterator[Html]:
    before = ", ".join(one["weeks_before"]) or "none"
    ends = ", ".join(f"{count:,} {end}" for end, count in one["ends"].items())
    lead = f"Version {one['digest'][:12]} in {one['week']}; of the model: {ends}. Weeks before: {before}."
    yield section(f"Model {one['model']}", lead, *_tables(one))
    if one["histograms"]:
        drawn = {what for found in one["histograms"].values() for what in found["counts"]}
        entries = [entry for what, entry in _DRAWN.items() if what in drawn]
        yield section(
            f"Distributions of {one['model']}",
            "How many of 100 tasks have which value.",
            legend(entries, filled=[_DRAWN["week"][0]]),
            fill('<div class="charts">{all}</div>', all=join(_picture(*each) for each in one["histograms"].items())),
        )


def _tables(one: Mapping[str, Any]) -> Iterator[Html]:
    if one["numbers"]:
        yield fill('<p class="lead">{text}</p>', text=_DISTANCE)
        yield table(
            "Numbers: how far this week's distribution is from another, as a share of tasks",
            [
                Column("number"),
                Column("against"),
                Column("verdict"),
                *(Column(name, "number") for name in ("distance", "true distance", "tasks", "held against")),
            ],
            [
                (
                    line["number"],
                    line["against"],
                    _tag(line),
                    _percent(line["distance"]),
                    _interval(line),
                    f"{line['tasks']:,}",
                    f"{line['others']:,}",
                )
                for line in one["numbers"]
            ],
        )
    yield table(
        "Shares of tasks in this week and before",
        [
            Column("share"),
            Column("verdict"),
            *(Column(name, "number") for name in ("this week", "true share", "before", "true share before")),
        ],
        [(line["name"], _tag(line), *_share(line), *_share(line["before"])) for line in one["shares"]],
    )


def _tag(line: Mapping[str, Any]) -> Html:
    return fill('<span class="tag {kind}">{verdict}</span>', kind=_TAGS[line["verdict"]], verdict=line["verdict"])


def _share(line: Mapping[str, Any] | None) -> tuple[str, str]:
    return ("none", "") if line is None else (_of(line), _interval(line))


def _of(line: Mapping[str, Any]) -> str:
    return f"{line['count']:,} of {line['of']:,}"


def _interval(line: Mapping[str, Any]) -> str:
    return f"{_percent(line['low'])} to {_percent(line['high'])}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _picture(name: str, found: Mapping[str, Any]) -> Html:
    edges, counts = np.asarray(found["edges"]), found["counts"]
    shares = {what: np.asarray(one) / max(1, sum(one)) for what, one in counts.items()}
    top = max(float(heights.max()) for heights in shares.values())
    chart = Chart(
        Axis(float(edges[0]), float(edges[-1]), f"{name}, as the model is fed" if name.startswith("input ") else name),
        Axis(0.0, top * 1.05 or 1.0, "share of tasks", text=lambda share: f"{100 * share:.3g} %"),
        height=200,
        width=_HALF,
    )
    chart.bars(edges, shares["week"])
    for what, (_, color) in _DRAWN.items():
        if what != "week" and what in shares:
            chart.line(np.repeat(edges, 2)[1:-1], np.repeat(shares[what], 2), color)
    samples = ", ".join(f"{sum(counts[what]):,} {of}" for what, of in _SAMPLES.items() if what in counts)
    return figure(name, samples, chart.render(f"Distribution of {name} in this week and what it is held against."))
