"""`edgemed profile`: latency of a bundle under a load, with its evidence, and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgemed.base.errors import DeviceStateError, GateError, InconclusiveError, UsageError
from edgemed.cli.console import err, print_json, say, show
from edgemed.cli.runner import DlaCoreOption, PrecisionOption, RunnerOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgemed.bundle.model import RunPrecision
    from edgemed.profile.result import Result
    from edgemed.profile.verdict import Verdict


def profile(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="NAME.edgemed")],
    *,
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
    """Measure the latency of BUNDLE, from when each frame was meant to arrive.

    With --slo: exit code 0 pass, 1 fail, 3 inconclusive, 4 the device is in another state. The result is written first.
    """
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
    from rich.table import Table

    from edgemed.base.text import printable
    from edgemed.profile.text import head_rows, percentile_rows, stage_rows, verdict_rows

    for label, text in head_rows(result):
        say((f"{label:<14}", "dim"), text)
    tables = [
        (("latency", "ms", "upper bound", "from"), percentile_rows(result.latency) if result.latency else []),
        (("stage", "median ms", "p99", "max"), stage_rows(result)),
        (("objective", "limit", "seen", "verdict", "why"), verdict_rows(result.verdict) if result.verdict else []),
    ]
    for heads, rows in tables:
        if rows:
            table = Table(*heads, box=None, pad_edge=False, padding=(0, 3, 0, 0))
            for row in rows:
                table.add_row(*map(printable, row))
            show(table)
    for text in result.warnings:
        say(f"note: {text}")
    if (verdict := result.verdict) is not None:
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
