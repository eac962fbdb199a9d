"""The weekly report of drift as one HTML file that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgemed.report.chart import Axis, Chart
from edgemed.report.markup import Column, Html, fill, join, table
from edgemed.report.page import box, card, figure, page, section

_COLORS: Final = {"bundle": "warn", "weeks before": "accent"}
_HALF: Final = 374
_SAID: Final = {
    "shifted": "Something has shifted.",
    "no shift seen": "No shift is seen.",
    "too few": "There are too few tasks to tell.",
}


def render_drift(document: Mapping[str, Any]) -> str:
    """The report as a self-contained HTML document.

    Args:
        document: as `edgemed drift --json` prints it.
    """
    models: Sequence[Mapping[str, Any]] = document["models"]
    shifted = [f"{one['model']}: {name}" for one in models for name in _shifted(one)]
    head = fill(
        '<p class="from">a week at the bedside</p><h1>Drift</h1><p class="verdict">{text}</p>'
        '{notes}<dl class="cards">{cards}</dl>',
        text=_SAID[_worst([one["verdict"] for one in models])],
        notes=box("failed", "Shifted", shifted),
        cards=join(
            card(f"{one['model']}, {one['week']}", f"{one['tasks']:,}", f"tasks; {one['verdict']}") for one in models
        ),
    )
    foot = fill(
        "Made by edgemed on {at}. All intervals of one version in one week hold together with {share} %, where tasks"
        " are independent of each other. The same figures stand in the JSON document.",
        at=document["at"],
        share=f"{100 * (1 - document['level']):g}",
    )
    return page("Drift", head, [each for one in models for each in _model(one)], foot)


def _worst(verdicts: Sequence[str]) -> str:
    return next((each for each in ("shifted", "no shift seen") if each in verdicts), "too few")


def _shifted(one: Mapping[str, Any]) -> Iterator[str]:
    for line in one["numbers"]:
        if line["verdict"] == "shifted":
            yield f"{line['number']} against the {line['against']}, by {_percent(line['low'])} of tasks at least"
    for line in one["shares"]:
        if line["verdict"] == "shifted":
            yield f"{line['name']}: {line['count']} of {line['of']}, before {line['before']['count']} of " + str(
                line["before"]["of"]
            )


def _model(one: Mapping[str, Any]) -> Iterator[Html]:
    before = ", ".join(one["weeks_before"]) or "none"
    ends = ", ".join(f"{count} {end}" for end, count in one["ends"].items())
    lead = f"Version {one['digest'][:12]} in {one['week']}; of the model: {ends}. Weeks before: {before}."
    numbers = table(
        "Numbers: how far this week's distribution is from another, as a share of tasks",
        [Column("number"), Column("against"), *(Column(name, "number") for name in _NUMBERS), Column("verdict")],
        [
            (
                line["number"],
                line["against"],
                line["tasks"],
                line["others"],
                _percent(line["distance"]),
                f"{_percent(line['low'])} to {_percent(line['high'])}",
                line["verdict"],
            )
            for line in one["numbers"]
        ],
    )
    shares = table(
        "Shares",
        [Column("of"), *(Column(name, "number") for name in ("this week", "", "before", " ")), Column("verdict")],
        [(line["name"], *_share(line), *_share(line["before"]), line["verdict"]) for line in one["shares"]],
    )
    pictures = [_picture(name, found) for name, found in one["histograms"].items()]
    yield section(f"Model {one['model']}", lead, numbers, shares)
    yield section(
        f"Distributions of {one['model']}",
        "Filled: this week. Lines: the weeks before (dark) and the images that the bundle was built with (ochre).",
        fill('<div class="plots">{pictures}</div>', pictures=join(pictures)),
    )


_NUMBERS: Final = ("tasks", "held against", "distance", "true distance")


def _share(line: Mapping[str, Any] | None) -> tuple[str, str]:
    if line is None:
        return "", ""
    return f"{line['count']:,} of {line['of']:,}", f"{_percent(line['low'])} to {_percent(line['high'])}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _picture(name: str, found: Mapping[str, Any]) -> Html:
    edges = np.asarray(found["edges"])
    shares = {what: np.asarray(counts) / max(1, sum(counts)) for what, counts in found["counts"].items()}
    top = max(float(heights.max()) for heights in shares.values())
    chart = Chart(
        Axis(float(edges[0]), float(edges[-1]), name),
        Axis(0.0, top * 1.05 or 1.0, "share of tasks", text=lambda share: f"{100 * share:.3g} %"),
        height=200,
        width=_HALF,
    )
    chart.bars(edges, shares["week"])
    for what, color in _COLORS.items():
        if what in shares:
            heights = shares[what]
            chart.line(np.repeat(edges, 2)[1:-1], np.repeat(heights, 2), color)
    return figure(name, "", chart.render(f"Distribution of {name} in this week and what it is held against."))
