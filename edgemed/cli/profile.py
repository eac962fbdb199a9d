"""`edgemed profile`: latency of a bundle under a load, with its evidence, and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgemed.base.errors import DeviceStateError, GateError, InconclusiveError, UsageError
from edgemed.cli.console import err, print_json, say, show
from edgemed.cli.runner import DlaCoreOption, PrecisionOption, RunnerOption

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from edgemed.bundle.model import RunPrecision
    from edgemed.profile.result import Result
    from edgemed.profile.verdict import Verdict
    from edgemed.profile.way import Way


def profile(
    context: typer.Context,
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="NAME.edgemed; or bedside.toml, with --study, for the whole way.")
    ],
    *,
    study: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="With bedside.toml: replay its DICOM files to the daemon.", show_default=False
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, max=1_000_000, help="With --study: how often.")] = 20,
    pace: Annotated[str, typer.Option(metavar="TIME", help="With --study: from one to the next.")] = "1s",
    precision: PrecisionOption = None,
    runner: RunnerOption = "auto",
    dla_core: DlaCoreOption = None,
    load: Annotated[
        str, typer.Option(metavar="LOAD", help="closed, rate:30, poisson:30, duty:1/60s or replay:FILE.")
    ] = "closed",
    duration: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long, e.g. 10s; default 10s.", show_default=False)
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="How many frames instead.", show_default=False)] = None,
    warmup: Annotated[str, typer.Option(metavar="TIME", help="Frames this early are kept, and marked.")] = "1s",
    seed: Annotated[int, typer.Option(min=0, help="Of random arrivals.")] = 0,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="Go through the ring, as a stream does: lossless, latest, every-3, deadline:50ms.",
            show_default=False,
        ),
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="TIME", help="An answer later than this is a miss.", show_default=False)
    ] = None,
    slo: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Objectives to judge by, in TOML.", show_default=False)
    ] = None,
    soak: Annotated[
        bool, typer.Option("--soak", help="Stop once it is steady over five minutes; --duration is the cap.")
    ] = False,
    ambient: Annotated[
        float | None, typer.Option(metavar="CELSIUS", help="Temperature of the room; --soak asks for it.")
    ] = None,
    energy: Annotated[
        bool, typer.Option("--energy", help="Energy per inference, over the rail that carries all power; from 10 s on.")
    ] = False,
    rail: Annotated[
        str | None, typer.Option(metavar="NAME", help="Energy over this rail instead.", show_default=False)
    ] = None,
    meter: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Energy by an external meter: its CSV with the columns time and watts, read after the run.",
            show_default=False,
        ),
    ] = None,
    trigger: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="With --output: write down what went on around every frame slower than this.",
            show_default=False,
        ),
    ] = None,
    telemetry: Annotated[bool, typer.Option(help="Sample rails, heat and clocks in a process beside the run.")] = True,
    interference: Annotated[
        str | None,
        typer.Option(
            metavar="LOADS",
            help="Measure quiet, then under load: cpu:4,memory:2GiB/s,disk,network.",
            show_default=False,
        ),
    ] = None,
    sweep_power: Annotated[
        bool, typer.Option("--sweep-power", help="Measure in every power mode, clocks locked and free; needs root.")
    ] = False,
    cool_to: Annotated[
        float | None,
        typer.Option(
            metavar="CELSIUS", help="Before each run of a sweep; default as before the first.", show_default=False
        ),
    ] = None,
    cold_start: Annotated[
        int | None,
        typer.Option(min=1, max=1000, metavar="N", help="First time N starts of fresh processes.", show_default=False),
    ] = None,
    page_cache: Annotated[
        Literal["kept", "bundle-dropped", "dropped"],
        typer.Option(help="Before each cold start; `dropped` needs root."),
    ] = "kept",
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep result, report and all samples there.", show_default=False)
    ] = None,
    samples: Annotated[
        Literal["npy", "npz", "csv"], typer.Option(help="With --output: a copy of the samples in this form too.")
    ] = "npy",
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A trace of every frame, for ui.perfetto.dev.", show_default=False),
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Measure nothing: bound it from the data sheets of --device.")
    ] = False,
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help="With --estimate; see `edgemed devices`.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    root: Annotated[Path, typer.Option(hidden=True, help="Read sensors of a file system mounted there.")] = Path("/"),
) -> None:
    """Measure the latency of BUNDLE, from when each frame was meant to arrive; or of a study's way through the daemon.

    With --slo: exit code 0 pass, 1 fail, 3 inconclusive, 4 the device is in another state. The result is written first.
    """
    if study is not None or bundle.suffix == ".toml":
        _only(context, _OF_A_WAY, "A study's way through the daemon")
        _walk(
            bundle, study, repeat=repeat, pace=pace, deadline=deadline, slo=slo, output=output, trace=trace, json=json
        )
        return
    _only(context, {name for name in context.params if name not in ("study", "repeat", "pace")}, "A bundle")
    if estimate or device:
        measured = [slo, output, trace, frames, dla_core, None if runner == "auto" else runner]
        _estimate(bundle, device or [], precision, estimate=estimate, measured=measured, json=json)
        return
    from edgemed.base.quantity import parse_duration
    from edgemed.cli.profiling import Request, profile_bundle
    from edgemed.profile.around import Around

    if trigger is not None and output is None:
        raise UsageError("There is nowhere to write outliers to.", "Give --output DIR.")
    if soak and ambient is None:
        raise UsageError("A soak says nothing without the room's temperature.", "Give --ambient CELSIUS.")
    request = Request(
        bundle=bundle,
        precision=precision,
        runner=runner,
        dla_core=dla_core,
        load=load,
        duration=duration,
        frames=frames,
        warmup=warmup,
        seed=seed,
        policy=policy,
        deadline=deadline,
        slo=slo,
        soak=soak,
        ambient_c=ambient,
        output=output,
        samples=samples,
        trace=trace,
        around=Around(
            telemetry=telemetry,
            energy=energy,
            rail=rail,
            meter=meter,
            interference=interference,
            trigger_ns=None if trigger is None else parse_duration(trigger),
            root=root.resolve(),
        ),
        cold_starts=cold_start,
        page_cache=page_cache,
    )
    if sweep_power:
        from edgemed.cli.sweeping import print_sweep
        from edgemed.cli.sweeping import sweep_power as sweep

        print_sweep(sweep(request, cool_to, lambda text: say(text, console=err)), json=json)
        return
    profiled = profile_bundle(request, lambda text: say(text, console=err))
    result, stop = profiled.result, profiled.measurement.stop
    if json:
        print_json(result.model_dump(mode="json", by_alias=True))
    else:
        print_result(result)
        if output is not None:
            say(f"{output / 'report.html'}")
    if stop is not None:
        raise stop
    if result.verdict is not None:
        enforce(result.verdict)


_OF_A_WAY = frozenset(("bundle", "study", "repeat", "pace", "deadline", "slo", "output", "trace", "json", "root"))


def _only(context: typer.Context, allowed: Collection[str], what: str) -> None:
    """Refuse options that would change nothing.

    Raises:
        UsageError: there is one.
    """
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{what} has no --{name.replace('_', '-')}.", "Leave it out; see --help.")


def _walk(
    config: Path,
    study: Path | None,
    *,
    repeat: int,
    pace: str,
    deadline: str | None,
    slo: Path | None,
    output: Path | None,
    trace: Path | None,
    json: bool,
) -> None:
    from edgemed.base.lazy import needing
    from edgemed.cli.console import ConsoleProgress

    with needing("serve", purpose="replay a study"):
        from edgemed.cli.way import WayRequest, walk

    if study is None:
        raise UsageError("A daemon is profiled with a study.", "Give --study FOLDER, with its DICOM files.")
    request = WayRequest(config, study, repeat, pace, deadline, slo, output, trace)
    with ConsoleProgress().stage("replay", repeat) as stage:
        walked = walk(request, lambda text: say(text, console=err), stage.advance)
        stage.note(f"{walked.way.sent.accepted} images")
    if json:
        print_json(walked.way.model_dump(mode="json", by_alias=True))
    else:
        print_way(walked.way)
        if output is not None:
            say(f"{output / 'report.html'}")
    if walked.stop is not None:
        raise walked.stop
    if walked.way.verdict is not None:
        enforce(walked.way.verdict)


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


def _estimate(
    bundle: Path,
    devices: Sequence[str],
    precision: RunPrecision | None,
    *,
    estimate: bool,
    measured: Sequence[object],
    json: bool,
) -> None:
    from edgemed.cli.estimating import estimate_bundle

    if not estimate:
        raise UsageError("--device belongs to --estimate; a profile is of this machine.", "Give both, or neither.")
    if any(each is not None for each in measured):
        raise UsageError(
            "An estimate measures nothing.", "Leave --slo, --output, --trace, --frames and --runner out, or --estimate."
        )
    estimate_bundle(bundle, devices, precision, json=json)


def print_result(result: Result) -> None:
    """The result as tables."""
    from edgemed.profile.text import head_rows, percentile_rows, stage_rows

    _print_rows(head_rows(result))
    _print_table(("latency", "ms", "upper bound", "from"), percentile_rows(result.latency) if result.latency else [])
    _print_table(("stage", "median ms", "p99", "max"), stage_rows(result))
    _print_end(result.warnings, result.verdict)


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
