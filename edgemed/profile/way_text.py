"""A replayed study in lines, for terminals."""

from __future__ import annotations

from edgemed.profile.records import Count
from edgemed.profile.text import Row, itself_text, ms
from edgemed.profile.way import ModelWay, Way


def way_rows(way: Way) -> list[Row]:
    """What was done, and what was not measured."""
    study, sent = way.study, way.sent
    rows: list[Row] = [
        (
            "replayed",
            f"{study.images} images in {study.series} series, {sent.begun} times, one each {_s(sent.pace_ns)}",
        ),
        ("daemon", f"{way.name}, in a process of its own; its state on {way.state}"),
        ("images", f"{sent.accepted} taken" + _others(sent.refused)),
    ]
    if sent.arrival is not None:
        rows.append(("sender", f"began {ms(sent.arrival.median_ns)} ms late, at most {ms(sent.arrival.max_ns)}"))
    return [*rows, ("not measured", "; ".join(way.not_measured))]


def model_rows(model: ModelWay) -> list[Row]:
    """How one model did: counts, misses, the run against itself."""
    mark, counts = model.fingerprint, model.counts
    where = f"{counts.answered} answered of {counts.arrived} (one for each {model.level})" + _others(counts.dropped)
    if counts.failed:
        where += f", {counts.failed} failed"
    if counts.unfinished:
        where += f", {counts.unfinished} without an end"
    rows: list[Row] = [
        (model.name, f"{mark.precision} on {mark.backend}/{mark.device}"),
        ("tasks", where),
        ("first", f"{ms(model.first_ns)} ms"),
    ]
    if (misses := model.misses) is not None:
        rate = misses.rate
        rows.append(
            (
                "misses",
                f"{rate.count} of {rate.n} later than {misses.deadline_ns / 1e6:g} ms in {rate.events} events; rate "
                f"{rate.rate:.3g}, at most {rate.upper:.3g}; {misses.longest_burst} in a row at most",
            )
        )
    late = f"{model.daemon_late} later than {model.daemon_deadline_ns / 1e6:g} ms from the last image to the disk"
    rows.append(("daemon's own", late))
    if model.itself is not None:
        rows.append(("against itself", itself_text(model.itself)))
    return rows


def stage_rows(model: ModelWay) -> list[Row]:
    """Stage, median, p90, p99, maximum; the whole way last."""
    whole = {} if model.latency is None else {"whole way": model.latency}
    return [
        (name, ms(each.median_ns), *(ms(each.percentile(p).value_ns) for p in ("90", "99")), ms(each.max_ns))
        for name, each in (model.stages | whole).items()
    ]


def way_summary(way: Way) -> str:
    """One sentence for each model."""
    parts = []
    for model in way.models:
        latency = model.latency
        if latency is None:
            parts.append(f"{model.name} answered nothing.")
            continue
        far = next((p for p in reversed(latency.percentiles) if p.upper_ns is not None), None)
        bound = "" if far is None else f", {float(far.p):g} % within {ms(far.value_ns)} ms (at most {ms(far.upper_ns)})"
        parts.append(f"{model.name}: half of the results were there within {ms(latency.median_ns)} ms{bound}.")
    return " ".join(parts)


def _others(counts: dict[str, Count]) -> str:
    return "".join(f", {count} {reason}" for reason, count in counts.items() if count)


def _s(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:g} s" if nanoseconds >= 1_000_000_000 else f"{nanoseconds / 1e6:g} ms"
