"""A replayed study as one HTML file that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.store import write_atomic
from edgemed.profile.overview import overview
from edgemed.profile.page import (
    OVER_TIME,
    distribution_section,
    misses_section,
    over_time,
    stages_section,
    verdict_section,
)
from edgemed.profile.passage import STAGES, Passage
from edgemed.profile.result import Fingerprint
from edgemed.profile.stamps import ANSWERED, COLUMNS, DONE, FAILED, INTENDED, STATUS
from edgemed.profile.stats import least_samples, nearest_rank, share_of
from edgemed.profile.text import NA, ms
from edgemed.profile.way import ModelWay, Way
from edgemed.profile.way_text import model_rows, way_rows, way_summary
from edgemed.report.markup import Html, facts, fill, join
from edgemed.report.page import box, card, figure, legend, page, section

_COLORS: Final = {
    "wait": "muted",
    "receive": "percentile",
    "collect": "bars",
    "queue": "entropy",
    "decode": "accent",
    "preprocess": "good",
    "inference queue": "warn",
    "h2d": "line",
    "compute": "float",
    "d2h": "line",
    "postprocess": "clip",
    "write": "ink",
    "other": "faint",
    "deliver": "bad",
}
_RANKS: Final = (("median", "50"), ("p90", "90"), ("p99", "99"))
_BAR, _GAP, _NAME, _WIDE = 26, 12, 90, 760


@dataclass(frozen=True)
class _Rows:
    """Stamps of tasks, as those of frames."""

    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def chunks(self) -> Iterator[NDArray[np.int64]]:
        yield self.rows


def write_way_page(way: Way, passages: Sequence[Passage], path: Path) -> None:
    """Write the report.

    Raises:
        ResourceError: it cannot be written.
    """
    write_atomic(path, render_way(way, passages).encode())


def render_way(way: Way, passages: Sequence[Passage]) -> str:
    """The report as a self-contained HTML document.

    Args:
        way: what is reported.
        passages: its tasks, for the pictures.
    """
    sections = [verdict_section(way.verdict), _how(way)]
    for model in way.models:
        sections += _model(way, model, [each for each in passages if each.model == model.name])
    head = fill(
        '<p class="from">from the first byte to the result</p><h1>{name}</h1><p class="verdict">{text}</p>'
        '{notes}<dl class="cards">{cards}</dl>',
        name=way.name,
        text=way_summary(way),
        notes=box("", "Please note", way.warnings),
        cards=join(card_ for model in way.models for card_ in _cards(model)),
    )
    edgemed = way.models[0].fingerprint.edgemed
    foot = fill(
        "Measured by edgemed {version} on {created}. The same figures stand in way.json, every task in {file}.",
        version=edgemed,
        created=way.created,
        file=way.samples or "no file",
    )
    return page(f"{way.name}: from the first byte to the result", head, sections, foot)


def _cards(model: ModelWay) -> Iterator[Html]:
    latency = model.latency
    if latency is None:
        yield card(model.name, "0", f"answers of {model.counts.arrived} tasks")
        return
    for p in ("50", "99"):
        found = latency.percentile(p)
        bound = f"needs {found.more:,} more" if found.upper_ns is None else f"at most {ms(found.upper_ns)} ms"
        yield card(f"{model.name}, {found.name}", NA if found.value_ns is None else f"{ms(found.value_ns)} ms", bound)
    if (misses := model.misses) is not None:
        yield card(f"{model.name}, misses", f"{misses.rate.count:,}", f"of {misses.rate.n:,} tasks")


def _how(way: Way) -> Html:
    mark: Fingerprint = way.models[0].fingerprint
    host = mark.host
    rows = [
        *way_rows(way),
        ("machine", f"{mark.board or mark.gpu or host.cpu}, {host.cores} cores, {host.machine}, {host.os}"),
        ("state", f"power mode {mark.power_mode or NA}, clocks {mark.clocks or NA}, governor {host.governor or NA}"),
    ]
    lead = (
        "Each repetition of the study has fresh UIDs and is sent at its time, whatever happened to those before: "
        "latency counts from then. The daemon is the site's own, with a state of its own."
    )
    return section("How it was measured", lead, facts((name, _whole(text)) for name, text in rows))


def _whole(text: str) -> Html:
    return fill("{text}", text=text)


def _model(way: Way, model: ModelWay, passages: Sequence[Passage]) -> Iterator[Html]:
    deadline = None if model.misses is None else model.misses.deadline_ns
    seen = overview(_stamps(passages)) if passages else None
    yield section(f"Model {model.name}", "", facts((name, _whole(text)) for name, text in model_rows(model)[1:]))
    if seen is not None:
        yield section("Latency over time", OVER_TIME, *over_time(seen, deadline))
    yield distribution_section(model.latency, deadline, seen)
    yield stages_section(model.stages, *_bars(passages))
    yield misses_section(model.misses, way.duration_ns)


def _stamps(passages: Sequence[Passage]) -> _Rows:
    rows = np.zeros((len(passages), len(COLUMNS)), dtype=np.int64)
    for row, each in zip(rows, sorted(passages, key=lambda each: each.intended_ns), strict=True):
        row[STATUS] = FAILED if each.done_ns is None else ANSWERED
        row[INTENDED], row[DONE] = each.intended_ns, each.done_ns or 0
    return _Rows(rows)


def _bars(passages: Sequence[Passage]) -> tuple[Html, ...]:
    """The tasks at the median, p90 and p99, and the slowest: each one's own stages, which add up."""
    ordered = sorted((each for each in passages if each.stages()), key=lambda each: each.latency_ns)
    if not ordered:
        return ()
    n = len(ordered)
    shares = {name: share_of(p) for name, p in _RANKS if n >= least_samples(share_of(p))}
    chosen = {name: ordered[nearest_rank(n, share) - 1].stages() for name, share in shares.items()}
    chosen["slowest"] = ordered[-1].stages()
    names = [*STAGES, *sorted({name for stages in chosen.values() for name in stages} - set(STAGES))]
    used = [name for name in names if any(stages.get(name) for stages in chosen.values())]
    colors = {name: _COLORS.get(name, "minmax") for name in used}
    caption = "the very tasks at these ranks of the whole way; their stages add up"
    drawn = figure("Where the time went", caption, _stacked(chosen, colors))
    return legend([(name, colors[name]) for name in used]), drawn


def _stacked(chosen: Mapping[str, Mapping[str, int]], colors: Mapping[str, str]) -> Html:
    longest = max(sum(stages.values()) for stages in chosen.values()) or 1
    height = len(chosen) * (_BAR + _GAP) + _GAP
    room, parts = _WIDE - _NAME - 110, []
    for row, (label, stages) in enumerate(chosen.items()):
        top, at = _GAP + row * (_BAR + _GAP), float(_NAME)
        parts.append(_words(_NAME - 8, top + _BAR * 0.68, label, "end"))
        for name, color in colors.items():
            width = room * stages.get(name, 0) / longest
            if width > 0:
                parts.append(
                    fill(
                        '<rect x="{x}" y="{y}" width="{w}" height="{h}" style="fill:var(--{color})">'
                        "<title>{t}</title></rect>",
                        x=f"{at:.1f}",
                        y=top,
                        w=f"{width:.2f}",
                        h=_BAR,
                        color=color,
                        t=f"{name} {ms(stages[name])} ms",
                    )
                )
            at += width
        parts.append(_words(at + 6, top + _BAR * 0.68, f"{ms(sum(stages.values()))} ms", "start"))
    return fill(
        '<svg class="wide" role="img" aria-label="Stages of the tasks at the median, p90, p99 and of the slowest" '
        'viewBox="0 0 {w} {h}" style="font:11px system-ui,sans-serif">{parts}</svg>',
        w=_WIDE,
        h=height,
        parts=join(parts),
    )


def _words(x: float, y: float, text: str, anchor: str) -> Html:
    return fill(
        '<text x="{x}" y="{y}" text-anchor="{anchor}" style="fill:var(--ink)">{text}</text>',
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        anchor=anchor,
        text=text,
    )
