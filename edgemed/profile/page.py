"""A profile as one HTML file that loads nothing, and is written on the board itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from edgemed.base.store import write_atomic
from edgemed.profile import pictures
from edgemed.profile.beside import Series
from edgemed.profile.misses import Event, Misses
from edgemed.profile.overview import Overview, overview
from edgemed.profile.result import Result
from edgemed.profile.stamps import Samples
from edgemed.profile.stats import Distribution
from edgemed.profile.text import NA, beside_rows, honest_rows, machine_rows, ms, percentile_rows, summary
from edgemed.profile.verdict import Verdict
from edgemed.report.markup import Column, Html, bar, facts, fill, join, table
from edgemed.report.page import box, card, figure, legend, page, section

REPORT: Final = "report.html"
_TAGS: Final = {"pass": ("good", "pass"), "fail": ("bad", "fail"), "inconclusive": ("float", "open")}
_MOST_EVENTS: Final = 40
OVER_TIME: Final = (
    "From the intended arrival. Time is cut into slices, and each keeps its extremes: no spike is averaged away."
)


def write_page(result: Result, samples: Samples | None, series: Sequence[Series], path: Path) -> None:
    """Write the report.

    Raises:
        ResourceError: it cannot be written.
    """
    write_atomic(path, render(result, samples, series).encode())


def render(result: Result, samples: Samples | None = None, series: Sequence[Series] = ()) -> str:
    """The report as a self-contained HTML document of less than 2 MB.

    Args:
        result: what is reported.
        samples: its stamps, for the pictures; None: figures only.
        series: what sensors recorded beside it.
    """
    seen = None if samples is None else overview(samples)
    sections = (
        verdict_section(result.verdict),
        _honesty(result),
        _time(result, seen, series),
        distribution_section(result.latency, _deadline(result), seen),
        stages_section(result.stages),
        misses_section(result.misses, result.duration_ns),
        _steady(result),
        _beside(result),
        _machine(result),
    )
    foot = fill(
        "Measured by edgemed {version} on {created}. The same figures stand in result.json, every frame's stamps in "
        "{file}.",
        version=result.fingerprint.edgemed,
        created=result.created,
        file="no file" if result.samples is None else result.samples.file,
    )
    return page(f"{result.name}: edgemed profile", _head(result), sections, foot)


def _head(result: Result) -> Html:
    mark = result.fingerprint
    return fill(
        '<p class="from">{what} on {backend}, load {load}</p><h1>{name}</h1><p class="verdict">{verdict}</p>'
        '{failed}{notes}<dl class="cards">{cards}</dl>',
        what=mark.precision.upper(),
        backend=f"{mark.backend}/{mark.device}",
        load=result.load.text,
        name=result.name,
        verdict=summary(result),
        failed=box("failed", "This run is no evidence", _no_evidence(result)),
        notes=box("", "Please note", result.warnings),
        cards=join(_cards(result)),
    )


def _no_evidence(result: Result) -> list[str]:
    verdict = result.verdict
    if verdict is None:
        return [] if result.ended is None else [f"The run ended early: {result.ended.message}."]
    return [f"{text[:1].upper()}{text[1:]}." for text in (*verdict.wrong_state, *verdict.invalid)]


def _cards(result: Result) -> Iterator[Html]:
    latency = result.latency
    if latency is None:
        yield card("Answered", "0", f"of {result.counts.arrived} frames")
        return
    for p in ("50", "99", "99.9"):
        found = latency.percentile(p)
        bound = f"needs {found.more:,} more samples" if found.upper_ns is None else f"at most {ms(found.upper_ns)} ms"
        yield card(found.name, NA if found.value_ns is None else f"{ms(found.value_ns)} ms", bound)
    yield card("Slowest", f"{ms(latency.max_ns)} ms", f"of {latency.n:,} answers")
    if (misses := result.misses) is not None:
        events = f"{misses.rate.events} event{'s' if misses.rate.events != 1 else ''}"
        yield card("Misses", f"{misses.rate.count:,}", f"in {events}, of {misses.rate.n:,} frames")


def verdict_section(verdict: Verdict | None) -> Html:
    """What each objective came to; nothing without any."""
    if verdict is None:
        return Html("")
    rows = []
    for clause in verdict.clauses:
        kind, word = _TAGS[clause.outcome]
        more = f"; needs {clause.more:,} more frames" if clause.more else ""
        rows.append(
            (
                clause.clause,
                f"{clause.limit:g}",
                NA if clause.value is None else f"{clause.value:.4g}",
                NA if clause.bound is None else f"{clause.bound:.4g}",
                fill('<span class="tag {kind}">{word}</span>', kind=kind, word=word),
                f"{clause.why}{more}",
            )
        )
    columns = (
        Column("Objective"),
        Column("Limit", "number"),
        Column("Seen", "number"),
        Column("Bound", "number"),
        Column("Verdict"),
        Column("Why", "sentence"),
    )
    lead = (
        f"Bounds are one-sided at {verdict.confidence:.4g}. A clause passes only where its bound shows "
        "it; where the run cannot tell, it stays open."
    )
    return section("Objectives", lead, table("Verdict of each objective", columns, rows))


def _honesty(result: Result) -> Html:
    lead = "What these figures hold for. What is not listed as measured was not."
    return section("How it was measured", lead, facts((name, _sentence(text)) for name, text in honest_rows(result)))


def _sentence(text: str) -> Html:
    return fill("{text}", text=text)


def _time(result: Result, seen: Overview | None, series: Sequence[Series]) -> Html:
    if seen is None:
        return Html("")
    deadline = _deadline(result)
    warm = " The shaded start is warm-up: kept, but in no figure." if seen.warm_ns else ""
    return section("Latency over time", OVER_TIME + warm, *over_time(seen, deadline), *_sensors(seen, series))


def over_time(seen: Overview, deadline: int | None) -> tuple[Html, Html]:
    """Legend and picture of the latency over time."""
    entries = [("from the fastest to the slowest of a stretch of time", "bars"), ("median", "accent")]
    if deadline is not None:
        entries.append(("later than the deadline", "clip"))
    if len(seen.lost_ns):
        entries.append(("frames never answered", "bad"))
    return legend(entries), figure("Latency", "", pictures.over_time(seen, deadline))


def _sensors(seen: Overview, series: Sequence[Series]) -> Iterator[Html]:
    span = int(seen.time_ns[-1])
    for kind in pictures.KINDS:
        chosen = [each for each in series if each.kind == kind and len(each.values)]
        if chosen:
            name, unit, scale = pictures.KINDS[kind]
            names = [
                (f"{s.name} {s.values.min() / scale:.4g} to {s.values.max() / scale:.4g} {unit}", color)
                for s, color in zip(chosen, pictures.COLORS, strict=False)
            ]
            left_out = f"{len(chosen) - len(names)} more in the samples" if len(chosen) > len(names) else ""
            picture = pictures.sensors(kind, chosen, seen.start_ns, span)
            yield fill('<div class="gap"></div>{box}', box=figure(name, left_out, join((legend(names), picture))))
    if not series:
        yield Html('<p class="lead">Temperature, clocks and power: n/a, no sensor was read.</p>')


def _deadline(result: Result) -> int | None:
    return None if result.misses is None else result.misses.deadline_ns


def distribution_section(latency: Distribution | None, deadline: int | None, seen: Overview | None) -> Html:
    """Percentiles with their bounds, histogram and tail."""
    if latency is None:
        return Html("")
    marks = [
        (p.name, p.value_ns) for p in latency.percentiles if p.value_ns is not None and p.p in ("50", "99", "99.9")
    ]
    plots = []
    if seen is not None:
        plots = [
            figure("How often", "every measured answer", pictures.histogram(seen, deadline, marks)),
            figure("The tail", "each decade is one more nine", pictures.tail(seen, deadline)),
        ]
    columns = (Column("Percentile"), Column("ms", "number"), Column("Upper bound, ms", "number"), Column("From"))
    lead = (
        f"{latency.n:,} answers; median {ms(latency.median_ns)} ms, median absolute deviation {ms(latency.mad_ns)} ms. "
        f"Nearest rank, nothing interpolated, nothing left out. Upper bounds ({latency.percentiles[0].confidence:.4g}) "
        "hold for independent frames; misses in bursts are bounded below."
    )
    return section(
        "Distribution",
        lead,
        fill('<div class="charts">{plots}</div>', plots=join(plots)),
        table("Percentiles of the latency", columns, percentile_rows(latency)),
    )


def stages_section(stages: Mapping[str, Distribution], *drawn: Html) -> Html:
    """Median, p99 and the slowest of each stage; before them what else is drawn of it."""
    if not stages:
        return Html("")
    largest = max(stage.percentile("99").value_ns or stage.max_ns for stage in stages.values()) or 1
    columns = (
        Column("Stage"),
        Column("Median, ms"),
        Column("p99, ms"),
        Column("Slowest, ms", "number"),
        Column("Frames", "number"),
    )
    rows = [
        (
            name,
            bar(max(0, stage.median_ns) / largest, ms(stage.median_ns)),
            NA if (far := stage.percentile("99").value_ns) is None else bar(max(0, far) / largest, ms(far), "float"),
            ms(stage.max_ns),
            f"{stage.n:,}",
        )
        for name, stage in stages.items()
    ]
    lead = "Stages add up to the latency in each frame; their percentiles do not: the slowest frames differ."
    return section("Stages", lead, *drawn, table("Time of each stage", columns, rows))


def misses_section(misses: Misses | None, duration_ns: int) -> Html:
    """Deadline misses in events; nothing without a deadline."""
    if misses is None:
        return Html("")
    rate = misses.rate
    pairs: list[tuple[str, object]] = [
        ("Deadline", f"{misses.deadline_ns / 1e6:g} ms after the intended arrival; a frame never answered misses too"),
        ("Misses", f"{rate.count:,} of {rate.n:,} frames in {rate.events:,} events"),
        ("Rate", f"{rate.rate:.3g}; between {rate.lower:.3g} and {rate.upper:.3g}, one-sided at {rate.confidence:.4g}"),
        ("Events an hour", _per_hour(misses)),
        ("Longest burst", f"{misses.longest_burst:,} misses in a row"),
        ("Recovery", f"median {ms(misses.recovery_median_ns)} ms, longest {ms(misses.recovery_max_ns)} ms"),
    ]
    if not rate.events:
        pairs[2] = ("Rate", f"none seen: at most {rate.upper:.3g}, if a burst takes {rate.assumed_burst} frames")
    lead = f"An event begins with a miss and ends once {misses.recovered_frames} frames in a row were in time."
    body = [facts(pairs)]
    if misses.events:
        body.append(figure("Events over time", "", pictures.bursts(misses, duration_ns)))
        worst = sorted(misses.events, key=lambda event: -event.misses)[:_MOST_EVENTS]
        columns = (
            Column("At"),
            Column("Frames"),
            Column("Misses", "number"),
            Column("Slowest, ms", "number"),
            Column("Recovered after, ms", "number"),
        )
        body.append(
            fill(
                "<details><summary>The {n} worst events</summary>{table}</details>",
                n=len(worst),
                table=table("Worst events of misses", columns, [_event(event) for event in worst]),
            )
        )
    return section("Deadline misses", lead, *body)


def _per_hour(misses: Misses) -> str:
    bounds = f"between {misses.events_per_hour_lower:.3g} and {misses.events_per_hour_upper:.3g}"
    return f"{misses.events_per_hour:.3g}; {bounds}"


def _event(event: Event) -> tuple[object, ...]:
    return (
        f"{event.start_ns / 1e9:.3f} s",
        f"{event.first_frame:,} to {event.last_frame:,}",
        f"{event.misses:,}",
        "never answered" if event.worst_ns is None else ms(event.worst_ns),
        "not in this run" if event.recovery_ns is None else ms(event.recovery_ns),
    )


def _steady(result: Result) -> Html:
    steady = result.steady
    if steady is None:
        return Html("")
    minutes = steady.rule.window_ns / 60e9
    when = "Not reached" if steady.time_to_steady_ns is None else f"From {steady.time_to_steady_ns / 60e9:.1f} min on"
    pairs = [
        ("Steady", when),
        ("Cold", f"median {ms(steady.cold.median_ns)} ms, p99 {ms(steady.cold.p99_ns)} ms"),
        ("Hot", f"median {ms(steady.hot.median_ns)} ms, p99 {ms(steady.hot.p99_ns)} ms"),
        ("Temperature", "n/a: latency alone decided" if steady.temperature is None else "within its margin too"),
    ]
    if steady.temperature is not None and not steady.reached:
        pairs[-1] = ("Temperature", f"{steady.temperature.value / 1000:+.2f} °C per ten minutes in the last windows")
    lead = (
        f"Over {steady.rule.windows} windows of {minutes:g} min, the slope of the median must lie within "
        f"±{steady.rule.latency_margin:.1%} per ten minutes, its interval included."
    )
    plots = legend([("median", "accent"), ("p99", "bars")])
    return section("Cold and hot", lead, facts(pairs), plots, figure("Windows", "", pictures.windows(steady)))


def _beside(result: Result) -> Html:
    rows: list[tuple[str, object]] = [(name.capitalize(), _sentence(text)) for name, text in beside_rows(result)]
    use = result.process
    busy = (use.user_ns + use.system_ns) / use.wall_ns if use.wall_ns else 0.0
    rows.append(("This process", f"{busy:.0%} of one core; {use.max_rss_bytes / 1e6:.0f} MB at most"))
    switches = f"{use.voluntary_switches:,} waited, {use.involuntary_switches:,} were preempted"
    rows.append(("Context switches", switches))
    rows.append(("Page faults", f"{use.minor_faults:,} minor, {use.major_faults:,} from disk"))
    return section("Beside it", "What the device, the kernel and other load did meanwhile.", facts(rows))


def _machine(result: Result) -> Html:
    lead = "Two profiles are comparable where this is the same; `edgemed compare` refuses otherwise."
    return section("Device and software", lead, facts((name, _sentence(text)) for name, text in machine_rows(result)))
