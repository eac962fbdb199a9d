"""One run from plan to verdict: measure, distill, compose, judge. The result is written before anybody is told."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, Literal

from edgemed import __version__
from edgemed.base.errors import EdgemedError, Terminated
from edgemed.base.runner import RunnerInfo
from edgemed.device.here import Here
from edgemed.profile.beside import (
    Beside,
    CpuLoad,
    Energy,
    Finding,
    Interference,
    Measured,
    Series,
    Telemetry,
    Unmeasured,
    junction_of,
)
from edgemed.profile.coldstart.series import ColdStart
from edgemed.profile.distill import Figures, Question, distill
from edgemed.profile.facts import host
from edgemed.profile.judge import judge, limits_of
from edgemed.profile.measure import Measurement, Plan
from edgemed.profile.misses import ASSUMED_BURST, RECOVERED
from edgemed.profile.result import (
    RESULT,
    SCHEMA,
    Ended,
    Fidelity,
    Fingerprint,
    OwnCost,
    Result,
    SampleFile,
    Settings,
    write_result,
)
from edgemed.profile.slo import Objectives
from edgemed.profile.stamps import COLUMNS
from edgemed.profile.stats import CONFIDENCE, Distribution
from edgemed.profile.steady import SteadyRule

_MANY_FAULTS: Final = 10  # a few are code that is used for the first time
_SLOW_TIMER: Final = 0.05  # of the median latency: lateness or cost beyond it is worth a word


@dataclass(frozen=True)
class About:
    """What is known of a run beside its stamps.

    Attributes:
        name: of the bundle, or of what is measured.
        fingerprint: see `fingerprint_of`.
        inputs: where the frames' data came from, and how many there are.
        ring: policy and slots; `None` for one frame at a time.
        sync, cuda_graph, copies_counted: of the Runner; `None` where there is no such thing.
        no_cuda_graph: why none is replayed.
        ambient_c: temperature of the room.
        fidelity: of the bundle's graph.
        own_cost: of the profiler, in this process.
        quiet: latency of the same run without interference.
        cold_start: starts of fresh processes, taken before.
        notes: what a reader should know beside the figures.
    """

    name: str
    fingerprint: Fingerprint
    inputs: tuple[str, int]
    ring: str | None = None
    sync: Literal["spin", "blocking", "host"] | None = "host"
    cuda_graph: bool | None = None
    copies_counted: bool | None = None
    no_cuda_graph: str | None = None
    ambient_c: float | None = None
    fidelity: Fidelity | None = None
    own_cost: OwnCost | None = None
    quiet: Distribution | None = None
    cold_start: ColdStart | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profiled:
    """A finished run: what was measured, its figures, its record, and what sensors recorded beside it."""

    measurement: Measurement
    figures: Figures
    result: Result
    series: tuple[Series, ...] = ()


def profile(
    measure: Callable[[], Measurement],
    about: About | Callable[[], About],
    *,
    objectives: Objectives | None = None,
    deadline_ns: int | None = None,
    rule: SteadyRule | None = None,
    beside: Sequence[Beside] = (),
    output: Path | None = None,
) -> Profiled:
    """Measure, and make a record of it.

    Args:
        measure: gives the measurement: `measure_runner` or `measure_ring` with everything bound.
        about: what is known beside the stamps; where that is known only afterwards, what gives it.
        objectives: what to judge it by.
        deadline_ns: for misses, where the objectives name none.
        rule: when it counts as steady.
        beside: what went on meanwhile; handed to `measure` too.
        output: folder that takes `result.json`; it is written before this returns.

    Raises:
        EdgemedError: nothing could be measured, or the result cannot be written.
    """
    measurement = measure()
    known = about() if callable(about) else about
    question = question_of(objectives, deadline_ns, rule or SteadyRule(), beside)
    figures = distill(measurement, question)
    measured = Measured(figures.start_ns, figures.start_ns + figures.duration_ns, figures.counts.answered)
    findings = [finding for each in beside for finding in each.findings(measured)]
    result = compose(measurement, figures, known, findings, output)
    if objectives is not None:
        result = result.model_copy(update={"verdict": judge(objectives, result, figures)})
    if output is not None:
        write_result(result, output / RESULT)
    return Profiled(measurement, figures, result, tuple(series for each in beside for series in each.series))


def question_of(
    objectives: Objectives | None, deadline_ns: int | None, rule: SteadyRule, beside: Sequence[Beside] = ()
) -> Question:
    """What objectives, or a deadline alone, ask of the stamps."""
    slo = None if objectives is None else objectives.slo
    return Question(
        deadline_ns=deadline_ns if slo is None or slo.deadline_ns is None else slo.deadline_ns,
        miss_rate=None if slo is None else slo.misses.rate,
        recovered=RECOVERED if slo is None else slo.recovered_frames,
        limits=() if slo is None else tuple(limits_of(slo).values()),
        confidence=CONFIDENCE if slo is None else slo.confidence,
        assumed_burst=ASSUMED_BURST if slo is None else slo.assumed_burst_frames,
        rule=rule,
        junction=junction_of(beside),
    )


def compose(
    measurement: Measurement, figures: Figures, about: About, findings: Sequence[Finding], output: Path | None
) -> Result:
    """The record of a run, not judged yet."""
    telemetry = tuple(finding for finding in findings if isinstance(finding, Telemetry))
    energy = tuple(finding for finding in findings if isinstance(finding, Energy))
    cpu = next((finding for finding in findings if isinstance(finding, CpuLoad)), None)
    kept = SampleFile(file=measurement.samples.path.name, rows=len(measurement.samples), columns=COLUMNS)
    return Result(
        schema_=SCHEMA,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        name=about.name,
        fingerprint=about.fingerprint,
        load=measurement.plan.load.record(),
        settings=_settings(measurement.plan, figures, about),
        duration_ns=figures.duration_ns,
        counts=figures.counts,
        latency=figures.latency,
        stages=figures.stages,
        first_frames=figures.first_frames,
        jitter=figures.jitter,
        misses=figures.misses,
        steady=figures.steady,
        process=measurement.usage,
        telemetry=telemetry,
        energy=energy,
        interference=tuple(finding for finding in findings if isinstance(finding, Interference)),
        quiet=about.quiet,
        cpu=cpu,
        cold_start=about.cold_start,
        fidelity=about.fidelity,
        own_cost=about.own_cost,
        itself=figures.itself,
        samples=kept if output is not None else None,
        ended=_ended(measurement.stop),
        not_measured=tuple(_not_measured(figures, findings, about)),
        warnings=(*about.notes, *_warnings(measurement, figures, about), *_warnings_of(telemetry)),
    )


def _settings(plan: Plan, figures: Figures, about: About) -> Settings:
    return Settings(
        warmup_frames=figures.warmup_frames,
        warmup_rule=f"frames meant to arrive in the first {plan.warmup_ns / 1e9:g} s, at least {plan.warmup_frames}",
        spin_ns=plan.spin_ns,
        collector=plan.collector,
        ring=about.ring,
        sync=about.sync,
        cuda_graph=about.cuda_graph,
        no_cuda_graph=about.no_cuda_graph,
        copies_counted=about.copies_counted,
        inputs=about.inputs[0],
        inputs_count=about.inputs[1],
        ambient_c=about.ambient_c,
    )


def _ended(stop: BaseException | None) -> Ended | None:
    if stop is None:
        return None
    if isinstance(stop, EdgemedError):
        return Ended(reason="failed", message=str(stop))
    return (
        Ended(reason="terminated", message="it was told to stop")
        if isinstance(stop, Terminated)
        else Ended(reason="interrupted", message="Ctrl-C")
    )


def _not_measured(figures: Figures, findings: Sequence[Finding], about: About) -> list[str]:
    """What a reader might take for measured otherwise."""
    stages, missing = figures.stages, []
    if "pre" not in stages:
        missing.append("preprocessing: inputs were ready as arrays")
    shared = about.sync in ("spin", "blocking") and about.copies_counted is None  # a device that copies nothing
    if not shared and "copy-in" not in stages and "copy-out" not in stages:
        missing.append("copies to and from a device")
    if "compute" not in stages:
        missing.append("computation apart from the rest")
    missing.append("reading of the outputs by the recipe")
    told = [finding.what for finding in findings if isinstance(finding, Unmeasured)]
    missing += told
    if not any(isinstance(finding, Telemetry) for finding in findings):
        missing.append("temperature, clocks and throttling")
    if not any(isinstance(finding, Energy) for finding in findings) and not any("energy" in what for what in told):
        missing.append("energy")
    if figures.steady is None:
        missing.append("whether it was steady: the run is shorter than a window")
    if about.cold_start is None:
        missing.append("start of the process, and loading of the model")
    return missing


def _warnings(measurement: Measurement, figures: Figures, about: About) -> list[str]:
    """What makes figures doubtful, each with what to do about it."""
    latency, found = figures.latency, []
    if latency is None:
        return ["No frame was answered after the warm-up: measure longer."]
    for p in ("99", "99.9"):
        if more := latency.percentile(p).more:
            found.append(f"p{p} needs {more} more samples for a bound.")
            break
    arrival = figures.jitter.arrival
    if arrival is not None and arrival.percentiles[2].value_ns is not None:
        late = arrival.percentiles[2].value_ns
        if late > max(_SLOW_TIMER * latency.median_ns, 100_000):
            found.append(
                f"5 % of frames were taken {late / 1e6:.2f} ms late or more while the loop was idle: other programs "
                "run, or the processor sleeps. That lateness is in the latency."
            )
    if about.own_cost is not None and about.own_cost.per_frame_ns > _SLOW_TIMER * latency.median_ns:
        found.append(
            f"The profiler's own {about.own_cost.per_frame_ns / 1e3:.1f} µs per frame are a part of this latency."
        )
    if measurement.usage.major_faults > _MANY_FAULTS:
        found.append(f"{measurement.usage.major_faults} pages came from disk meanwhile: memory is short.")
    found += [
        f"Held against itself, the run differs in p{part.percentile} by {part.change:+.1%}: something comes and goes. "
        "Trust no comparison by changes of that size."
        for part in (() if figures.itself is None else figures.itself.found)
        if not part.nothing
    ]
    if figures.counts.failed:
        found.append(f"{figures.counts.failed} frames failed.")
    if measurement.plan.load.closed:
        found.append(
            "Closed load: each frame waited for the one before, so delays are not seen as a stream would see them."
        )
    return found


def _warnings_of(telemetry: Sequence[Telemetry]) -> list[str]:
    """What the sensors say against the figures."""
    found = []
    for each in telemetry:
        if each.lost is not None:
            found.append(f"Sampling ({each.source}) {each.lost}; the run went on without it.")
        if each.throttled_at_start:
            found.append(f"The device was throttled before the first frame ({each.source}): let it cool down.")
        if each.throttled:
            found.append(f"The device throttled during the run ({each.source}): these are figures of a slowed device.")
        if each.clocks_changed:
            found.append(f"A clock changed during the run ({each.source}): the figures are of more than one device.")
    return found


def fingerprint_of(
    info: RunnerInfo,
    here: Here | None,
    *,
    backend_version: str | None = None,
    tensorrt: str | None = None,
    engine_sha256: str | None = None,
    power_mode: str | None = None,
    clocks: Literal["locked", "free"] | None = None,
) -> Fingerprint:
    """What two results must share to be comparable.

    Args:
        info: who answers.
        here: this machine, if it is a board or has a GPU.
        backend_version: of ONNX Runtime, or what else answers.
        tensorrt: its version.
        engine_sha256: of the plan.
        power_mode: as nvpmodel names it.
        clocks: as jetson_clocks left them.
    """
    board = None if here is None else here.board
    return Fingerprint(
        board=None if board is None else board.id,
        l4t=None if board is None else board.l4t,
        jetpack=None if board is None else board.jetpack,
        gpu=None if here is None or here.gpu is None else here.gpu.name,
        tensorrt=tensorrt,
        power_mode=power_mode,
        clocks=clocks,
        backend=info.backend,
        backend_version=backend_version,
        device=info.device,
        precision=info.precision,
        engine_sha256=engine_sha256,
        bundle_digest=info.bundle_digest,
        edgemed=__version__,
        python=platform.python_version(),
        host=host(),
    )
