"""`edgemed profile`: latency of a bundle under a load, with its evidence, and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemed.base.errors import UsageError
from edgemed.cli import profile_options as options
from edgemed.cli.console import err, print_json, say
from edgemed.cli.options import JsonOption
from edgemed.cli.profiled import enforce, print_result, print_way
from edgemed.cli.runner import DlaCoreOption, PrecisionOption, RunnerOption

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import TypeVar

    from edgemed.bundle.model import RunPrecision
    from edgemed.cli.profiling import Request
    from edgemed.profile.result import Result
    from edgemed.profile.way import Way

    Found = TypeVar("Found", Result, Way)


def profile(
    context: typer.Context,
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="NAME.edgemed; or bedside.toml, with --study, for the whole way.")
    ],
    *,
    study: options.Study = None,
    repeat: options.Repeat = 20,
    pace: options.Pace = "1s",
    precision: PrecisionOption = None,
    runner: RunnerOption = "auto",
    dla_core: DlaCoreOption = None,
    load: options.Load = "closed",
    duration: options.Duration = None,
    frames: options.Frames = None,
    warmup: options.Warmup = "1s",
    seed: options.Seed = 0,
    policy: options.Policy = None,
    deadline: options.Deadline = None,
    slo: options.Slo = None,
    soak: options.Soak = False,
    ambient: options.Ambient = None,
    energy: options.Energy = False,
    rail: options.Rail = None,
    meter: options.Meter = None,
    trigger: options.Trigger = None,
    telemetry: options.Telemetry = True,
    interference: options.Interference = None,
    sweep_power: options.SweepPower = False,
    cool_to: options.CoolTo = None,
    cold_start: options.ColdStart = None,
    page_cache: options.PageCache = "kept",
    output: options.Output = None,
    samples: options.Samples = "npy",
    trace: options.Trace = None,
    estimate: options.Estimate = False,
    device: options.Device = None,
    json: JsonOption = False,
    root: options.Root = Path("/"),
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
    from edgemed.cli.profiling import Request
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
        _sweep(request, cool_to, json=json)
    else:
        _measure(request, json=json)


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
    _tell(walked.way, print_way, output, walked.stop, json=json)


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


def _sweep(request: Request, cool_to: float | None, *, json: bool) -> None:
    from edgemed.cli.sweeping import print_sweep, sweep_power

    print_sweep(sweep_power(request, cool_to, lambda text: say(text, console=err)), json=json)


def _measure(request: Request, *, json: bool) -> None:
    from edgemed.cli.profiling import profile_bundle

    profiled = profile_bundle(request, lambda text: say(text, console=err))
    _tell(profiled.result, print_result, request.output, profiled.measurement.stop, json=json)


def _tell(
    found: Found, print_: Callable[[Found], None], output: Path | None, stop: BaseException | None, *, json: bool
) -> None:
    """Print it, then end as it says: by what ended the run early, or by its verdict."""
    if json:
        print_json(found.model_dump(mode="json", by_alias=True))
    else:
        print_(found)
        if output is not None:
            say(f"{output / 'report.html'}")
    if stop is not None:
        raise stop
    if found.verdict is not None:
        enforce(found.verdict)
