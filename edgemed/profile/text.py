"""A result in lines, for terminals. What is missing is `n/a`, never 0."""

from __future__ import annotations

from edgemed.profile.beside import Telemetry
from edgemed.profile.compare import Comparison
from edgemed.profile.itself import ItselfComparison
from edgemed.profile.result import Result
from edgemed.profile.stats import Distribution, Percentile
from edgemed.profile.verdict import Verdict

Row = tuple[str, ...]
NA = "n/a"


def ms(value_ns: int | None) -> str:
    """Milliseconds to a microsecond; `n/a` for none."""
    return NA if value_ns is None else f"{value_ns / 1e6:.3f}"


def percentile_rows(latency: Distribution) -> list[Row]:
    """Percentile, value, upper bound, and where they come from."""
    rows: list[Row] = [(p.name, ms(p.value_ns), ms(p.upper_ns), _origin(p)) for p in latency.percentiles]
    return [*rows, ("max", ms(latency.max_ns), "", f"of {latency.n}")]


def _origin(percentile: Percentile) -> str:
    if percentile.value_ns is None:
        return f"needs {percentile.more} more samples"
    rank = f"rank {percentile.rank} of {percentile.n}"
    return rank if percentile.upper_ns is not None else f"{rank}; needs {percentile.more} more samples for a bound"


def stage_rows(result: Result) -> list[Row]:
    """Stage, median, p99, maximum."""
    return [
        (name, ms(stage.median_ns), ms(stage.percentile("99").value_ns), ms(stage.max_ns))
        for name, stage in result.stages.items()
    ]


def head_rows(result: Result) -> list[Row]:
    """What was measured, and how: the honest first page."""
    mark, settings, counts = result.fingerprint, result.settings, result.counts
    device = mark.board or mark.gpu or mark.host.cpu
    lost = ", ".join(f"{count} {reason}" for reason, count in counts.dropped.items() if count)
    where = f"{counts.answered} answered of {counts.arrived}"
    if lost:
        where += f", dropped: {lost}"
    if counts.failed:
        where += f", {counts.failed} failed"
    how = (
        f"{settings.warmup_frames} warm-up frames apart; garbage collection {settings.collector}; "
        f"{settings.inputs_count} inputs ({settings.inputs})"
    )
    rows: list[Row] = [
        ("measured", f"{result.name}, {mark.precision} on {mark.backend}/{mark.device} ({device})"),
        ("load", f"{result.load.text} for {result.duration_ns / 1e9:.1f} s, latency from the intended arrival"),
        ("frames", where),
        ("how", how),
    ]
    first, gap = result.first_frames.first_ns, result.first_frames.after_gap
    rows.append(
        ("first frame", f"{ms(first)} ms" + (f"; after {gap.n} gaps at most {ms(gap.max_ns)} ms" if gap else ""))
    )
    if (misses := result.misses) is not None:
        rate = misses.rate
        rows.append(
            (
                "misses",
                f"{rate.count} of {rate.n} later than {misses.deadline_ns / 1e6:g} ms in {rate.events} events; rate "
                f"{rate.rate:.3g}, at most {rate.upper:.3g}; {misses.longest_burst} in a row at most",
            )
        )
    if (steady := result.steady) is not None:
        when = "not reached" if steady.time_to_steady_ns is None else f"from {steady.time_to_steady_ns / 1e9:.0f} s on"
        rows.append(("steady", f"{when}; median cold {ms(steady.cold.median_ns)}, hot {ms(steady.hot.median_ns)} ms"))
    rows += beside_rows(result)
    if result.own_cost is not None:
        rows.append(("own cost", f"{result.own_cost.per_frame_ns / 1e3:.1f} µs per frame"))
    if result.itself is not None:
        rows.append(("against itself", itself_text(result.itself)))
    return [*rows, ("not measured", "; ".join(result.not_measured))]


def itself_text(itself: ItselfComparison) -> str:
    """What an A/A comparison found."""
    parts = (f"p{each.percentile} {each.change:+.1%} ({each.low:+.1%} to {each.high:+.1%})" for each in itself.found)
    return f"{', '.join(parts)}: {itself.pairs} pairs of blocks of {itself.block_frames:,} frames, A/A"


def summary(result: Result) -> str:
    """One or two sentences: what this run came to."""
    latency, verdict = result.latency, result.verdict
    if latency is None:
        return "No frame was answered after the warm-up."
    if verdict is not None:
        return _judged(verdict)
    far = next((p for p in reversed(latency.percentiles) if p.upper_ns is not None), None)
    if far is None:
        return f"Half of the frames were answered within {ms(latency.median_ns)} ms; too few to bound a percentile."
    return (
        f"Half of the frames were answered within {ms(latency.median_ns)} ms, {float(far.p):g} % within "
        f"{ms(far.value_ns)} ms, with confidence {far.confidence:.4g} within {ms(far.upper_ns)} ms."
    )


def _judged(verdict: Verdict) -> str:
    count = {kind: sum(each.outcome == kind for each in verdict.clauses) for kind in ("pass", "fail", "inconclusive")}
    shown = f"{count['pass']} of {len(verdict.clauses)} objectives are shown to be kept"
    if verdict.outcome == "pass":
        return f"Pass: all {len(verdict.clauses)} objectives are shown to be kept."
    if verdict.outcome == "fail":
        return f"Fail: {count['fail']} of {len(verdict.clauses)} objectives missed; {shown}."
    if verdict.outcome == "wrong-state":
        return "Wrong device state: nothing here counts for the device that the objectives ask for."
    if verdict.invalid:
        return f"Inconclusive: the run is no evidence ({verdict.invalid[0]})."
    return f"Inconclusive: {shown}, {count['inconclusive']} open."


def honest_rows(result: Result) -> list[Row]:
    """What figures hold for: device state, n, duration, warm-up, waiting, graph, copies, clock, and what is missing."""
    mark, settings, counts = result.fingerprint, result.settings, result.counts
    state = ", ".join(
        f"{name} {value or NA}" for name, value in (("power mode", mark.power_mode), ("clocks", mark.clocks))
    )
    lost = [f"{count:,} dropped ({reason})" for reason, count in counts.dropped.items() if count]
    lost += [f"{n:,} {what}" for n, what in ((counts.failed, "failed"), (counts.unfinished, "unfinished")) if n]
    sync = {"spin": "spins on the device", "blocking": "sleeps until the device is done", "host": "answers on the host"}
    how = "one frame at a time" if settings.ring is None else f"through the ring ({settings.ring})"
    none = "none: host memory" if settings.sync == "host" else "none: the device works in the host's memory"
    copies = {True: "in the latency", False: "not in the latency", None: none}[settings.copies_counted]
    off = "off" if settings.no_cuda_graph is None else f"off: {settings.no_cuda_graph}"
    ended = "" if result.ended is None else f"; ended early: {result.ended.message}"
    rows = [
        ("Device state", state if settings.ambient_c is None else f"{state}, room at {settings.ambient_c:g} °C"),
        ("Frames", "; ".join([f"{counts.answered:,} answered of {counts.arrived:,}", *lost])),
        ("Duration", f"{result.duration_ns / 1e9:.1f} s{ended}"),
        ("Load", f"{result.load.text}, {how}; latency from the intended arrival"),
        ("Warm-up", f"{settings.warmup_frames:,} frames left out of all figures: {settings.warmup_rule}"),
        ("First frame", _first(result)),
        ("Waiting", NA if settings.sync is None else sync[settings.sync]),
        ("CUDA graph", {True: "replayed", False: off, None: "n/a: no CUDA"}[settings.cuda_graph]),
        ("Copies", copies),
        ("Clock", f"{settings.clock}; the last {settings.spin_ns / 1e6:g} ms before an arrival are spent spinning"),
        ("Collector", f"Python's garbage collector {settings.collector}"),
        ("Inputs", f"{settings.inputs_count:,}: {settings.inputs}"),
        ("Accuracy", _fidelity(result)),
    ]
    if result.own_cost is not None:
        cost = f"{result.own_cost.per_frame_ns / 1e3:.1f} µs a frame, over {result.own_cost.frames:,} frames of nothing"
        rows.append(("Profiler's own cost", cost))
    if result.itself is not None:
        rows.append(("Held against itself", itself_text(result.itself)))
    return [*rows, ("Not measured", "; ".join(result.not_measured) or "all of the above was")]


def _first(result: Result) -> str:
    first, gap = result.first_frames.first_ns, result.first_frames.after_gap
    text = "failed" if first is None else f"{ms(first)} ms"
    return text if gap is None else f"{text}; after {gap.n:,} idle gaps at most {ms(gap.max_ns)} ms"


def _fidelity(result: Result) -> str:
    fidelity = result.fidelity
    if fidelity is None:
        return "n/a: nothing here tells whether the answers are right"
    worst = fidelity.int8_worst_relative_error
    error = "" if worst is None else f"; INT8 differs by at most {worst:.2%} of the largest output"
    return f"the bundle's figures over {fidelity.samples:,} samples, {fidelity.sha256[:16]}{error}"


def machine_rows(result: Result) -> list[Row]:
    """Board, software and host."""
    mark = result.fingerprint
    host = mark.host
    named = {
        "Board": mark.board,
        "JetPack": mark.jetpack and f"{mark.jetpack} (L4T {mark.l4t or NA})",
        "GPU": mark.gpu,
        "TensorRT": mark.tensorrt,
        "Runs on": f"{mark.backend} {mark.backend_version or ''}".strip() + f", {mark.device}, {mark.precision}",
        "Engine": mark.engine_sha256,
        "Bundle": mark.bundle_digest,
        "Processor": f"{host.cpu}, {host.cores} cores, {host.machine}, governor {host.governor or NA}",
        "System": f"{host.os}, kernel {host.kernel}, Python {mark.python}, edgemed {mark.edgemed}",
    }
    return [(name, text or NA) for name, text in named.items()]


def beside_rows(result: Result) -> list[Row]:
    """What went on beside the run: quiet latency, loads, heat, power, energy, processors, cold starts."""
    rows: list[Row] = []
    if result.quiet is not None:
        p99 = result.quiet.percentile("99").value_ns
        rows.append(("quiet", f"the same without load: median {ms(result.quiet.median_ns)}, p99 {ms(p99)} ms"))
    rows += [("load beside", f"{load.asked}: {load.achieved}") for load in result.interference]
    rows += [row for telemetry in result.telemetry for row in _telemetry_rows(telemetry)]
    for energy in result.energy:
        net = NA if energy.net_mj is None else f"{energy.net_mj:.3g}"
        whole = "" if energy.total else ", which is not all power"
        rows.append(
            (
                "energy",
                f"{energy.gross_mj:.3g} mJ per inference on {energy.rail}{whole}, {net} mJ above idle; mean "
                f"{energy.mean_mw / 1000:.2f} W; readings at most {energy.staleness_ns / 1e6:.0f} ms old",
            )
        )
    if result.cpu is not None:
        rows.append(("processors", f"{result.cpu.busy:.0%} of {result.cpu.cores} busy, all programs together"))
    if (cold := result.cold_start) is not None:
        stages = ", ".join(f"{name} {ms(figures.median_ns)}" for name, figures in cold.stages.items())
        rows.append(
            (
                "cold start",
                f"first answer after {ms(cold.answer.median_ns)} ms (at most {ms(cold.answer.max_ns)}) in {cold.runs} "
                f"starts, page cache {cold.page_cache}: {stages}",
            )
        )
    return rows


def _telemetry_rows(telemetry: Telemetry) -> list[Row]:
    hot = next((each for each in telemetry.channels if each.name == telemetry.junction), None)
    power = [f"{each.name} {each.median / 1000:.2f} W" for each in telemetry.channels if each.kind == "power"]
    clocks = [each for each in telemetry.channels if each.kind == "clock" and not each.name.startswith("cpu")]
    parts = [
        f"{NA if hot is None else f'{hot.name} {hot.first / 1000:.1f} to {hot.max / 1000:.1f} °C'}",
        *(f"{each.name} {each.min / 1e6:.0f} to {each.max / 1e6:.0f} MHz" for each in clocks),
        *power[:4],
        f"throttled: {NA if telemetry.throttled is None else 'yes' if telemetry.throttled else 'no'}",
        f"over-current events: {NA if telemetry.over_current_events is None else telemetry.over_current_events}",
    ]
    return [(f"{telemetry.source}", "; ".join(parts))]


def verdict_rows(verdict: Verdict) -> list[Row]:
    """Clause, limit, value, outcome, why."""
    return [
        (
            clause.clause,
            f"{clause.limit:g}",
            NA if clause.value is None else f"{clause.value:.4g}",
            clause.outcome,
            clause.why + (f"; needs {clause.more} more frames" if clause.more else ""),
        )
        for clause in verdict.clauses
    ]


def change_rows(comparison: Comparison) -> list[Row]:
    """Metric, A, B, change, interval, margin, outcome."""
    rows: list[Row] = []
    for change in comparison.changes:
        unit = "mJ" if change.metric == "energy" else "ms"
        scale = 1.0 if change.metric == "energy" else 1e6
        sides = [NA if side is None else f"{side / scale:.3f} {unit}" for side in (change.a, change.b)]
        between = NA if change.low is None or change.high is None else f"{change.low:+.1%} to {change.high:+.1%}"
        rows.append(
            (
                change.metric,
                *sides,
                NA if change.change is None else f"{change.change:+.1%}",
                between,
                "" if change.margin is None else f"{100 * change.margin:.3g}%",
                change.outcome,
            )
        )
    return rows
