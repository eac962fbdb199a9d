"""What `edgemed profile` was asked for, turned into a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgemed.base.errors import InputError, UsageError
from edgemed.base.hashing import sha256_json
from edgemed.base.quantity import parse_duration
from edgemed.base.store import scratch_directory
from edgemed.bundle.outputs import require_outside_bundles
from edgemed.bundle.read import Bundle, enclosing_bundle, open_bundle
from edgemed.device.board import detect_board
from edgemed.device.here import Here
from edgemed.profile.around import Around, device_state
from edgemed.profile.backend import Subject
from edgemed.profile.beside import Beside
from edgemed.profile.coldstart.series import ColdStart, PageCache, cold_start
from edgemed.profile.cost import own_cost
from edgemed.profile.export import write_csv, write_npz
from edgemed.profile.judge import other_state
from edgemed.profile.load import parse_load
from edgemed.profile.markdown import MARKDOWN, profile_markdown, write_markdown
from edgemed.profile.measure import Arrays, Plan
from edgemed.profile.outliers import FILE as OUTLIERS
from edgemed.profile.outliers import find_outliers, write_outliers
from edgemed.profile.page import REPORT, write_page
from edgemed.profile.result import QUIET, RESULT, SAMPLES, SWEEP, Fidelity, Fingerprint, OwnCost
from edgemed.profile.session import About, Profiled, fingerprint_of, profile
from edgemed.profile.slo import Objectives, load_slo
from edgemed.profile.soak import until_steady
from edgemed.profile.stats import Distribution
from edgemed.profile.steady import SteadyRule
from edgemed.profile.trace import write_trace
from edgemed.profile.way import WAY
from edgemed.runtime.policy import Policy

if TYPE_CHECKING:
    from edgemed.bundle.model import RunPrecision
    from edgemed.cli.runner import RunnerName

_DURATION = "10s"
_SOAK_CAP = "1h"


@dataclass(frozen=True)
class Request:
    """The command line of `edgemed profile`."""

    bundle: Path
    precision: RunPrecision | None
    runner: RunnerName
    dla_core: int | None
    load: str
    duration: str | None
    frames: int | None
    warmup: str
    seed: int
    policy: str | None
    deadline: str | None
    slo: Path | None
    soak: bool
    ambient_c: float | None
    output: Path | None
    samples: Literal["npy", "npz", "csv"]
    trace: Path | None
    around: Around
    cold_starts: int | None
    page_cache: PageCache

    def plan(self, deadline_ns: int | None, beside: Sequence[Beside] = ()) -> Plan:
        """What is to be measured.

        Args:
            deadline_ns: what frames of a ring carry.
            beside: what goes on meanwhile; a soak looks at its temperature.

        Raises:
            UsageError: it has no meaning.
        """
        if self.frames is not None and self.duration is not None:
            raise UsageError("--frames and --duration contradict each other.", "Give one of them.")
        load, rule = parse_load(self.load, seed=self.seed), SteadyRule()
        length = self.duration or (_SOAK_CAP if self.soak else _DURATION)
        endless = self.frames is None and (self.duration is not None or load.kind != "replay")
        self.around.check(parse_duration(length) if endless and not self.soak else None)
        return Plan(
            load=load,
            frames=self.frames,
            duration_ns=parse_duration(length) if endless else None,
            warmup_ns=parse_duration(self.warmup),
            deadline_ns=deadline_ns,
            window_ns=rule.window_ns,
            until=until_steady(rule, beside) if self.soak else None,
        )


@dataclass(frozen=True)
class _Before:
    """What is read or measured before the run."""

    power_mode: str | None
    clocks: Literal["locked", "free"] | None
    own_cost: OwnCost
    quiet: Distribution | None = None
    cold_start: ColdStart | None = None


@dataclass(frozen=True)
class _Read:
    """A request whose files were read."""

    request: Request
    bundle: Bundle
    feeds: Sequence[Arrays]
    objectives: Objectives | None
    deadline_ns: int | None
    answers: Subject

    def before(self, folder: Path) -> _Before:
        """What is known of a run before it."""
        power_mode, clocks = device_state(self.request.around.root)
        return _Before(power_mode, clocks, own_cost(folder))

    def run(self, before: _Before, folder: Path, *, quiet: bool = False) -> Profiled:
        """One run; its files lie in `folder`, which is kept if the request has an output."""
        request, kept = self.request, self.request.output is not None
        beside = request.around.beside(folder, keep=kept, quiet=quiet)
        plan = request.plan(self.deadline_ns, beside)
        return profile(
            partial(self.answers.measure, self.feeds, plan, folder / SAMPLES, beside),
            partial(self._about, before),
            objectives=self.objectives,
            deadline_ns=self.deadline_ns,
            beside=beside,
            output=folder if kept else None,
        )

    def fingerprint(self, before: _Before) -> Fingerprint:
        """Of what answers, as far as that is known by now; after a run it is whole."""
        backend = self.answers.backend
        return fingerprint_of(
            backend.info,
            Here(detect_board(self.request.around.root), backend.gpu),
            backend_version=backend.version,
            tensorrt=backend.tensorrt,
            engine_sha256=backend.engine_sha256,
            power_mode=before.power_mode,
            clocks=before.clocks,
        )

    def _about(self, before: _Before) -> About:
        """All that is known of a run after it, beside its stamps."""
        backend = self.answers.backend
        return About(
            name=self.bundle.manifest.name,
            fingerprint=self.fingerprint(before),
            inputs=("golden inputs of the bundle", len(self.feeds)),
            ring=self.answers.ring,
            sync=backend.sync,
            cuda_graph=backend.cuda_graph,
            no_cuda_graph=backend.no_cuda_graph,
            copies_counted=backend.copies_counted,
            ambient_c=self.request.ambient_c,
            fidelity=_fidelity(self.bundle),
            own_cost=before.own_cost,
            quiet=before.quiet,
            cold_start=before.cold_start,
            notes=() if self.answers.why is None else (f"On ONNX Runtime. {self.answers.why}",),
        )


def _read(request: Request) -> _Read:
    from edgemed.bundle.model import specs_of
    from edgemed.runners.golden import Golden

    if request.trace is not None:
        require_outside_bundles(request.trace, "--trace")
    objectives = None if request.slo is None else load_slo(request.slo)
    deadline_ns = None if request.deadline is None else parse_duration(request.deadline)
    if deadline_ns is None and objectives is not None:
        deadline_ns = objectives.slo.deadline_ns
    request.plan(deadline_ns)  # what has no meaning is refused before anything is done
    policy = None if request.policy is None else Policy.parse(request.policy)
    bundle = open_bundle(request.bundle)
    golden = Golden.from_bytes(bundle.read(bundle.manifest.golden.path), specs_of(bundle))
    feeds = [golden.feeds(index) for index in range(golden.samples)]
    answers = Subject(
        bundle, runner=request.runner, precision=request.precision, dla_core=request.dla_core, policy=policy
    )
    return _Read(request, bundle, feeds, objectives, deadline_ns, answers)


def profile_bundle(request: Request, tell: Callable[[str], None]) -> Profiled:
    """Run what was asked for: cold starts, the quiet run where there is interference, and the run.

    Raises:
        EdgemedError: bad input, or nothing could be measured.
    """
    read = _read(request)
    if read.answers.why is not None:
        tell(f"On ONNX Runtime. {read.answers.why}")
    with ExitStack() as stack:
        if request.output is not None:
            folder = results_folder(request.output)
        else:
            folder = stack.enter_context(scratch_directory("edgemed-profile"))
        before = read.before(folder)
        if read.objectives is not None:
            for difference in other_state(read.objectives.slo, read.fingerprint(before)):
                tell(f"note: {difference}, so this run will be no evidence")
        if request.cold_starts is not None:
            starts = cold_start(
                request.bundle,
                request.precision,
                request.cold_starts,
                request.page_cache,
                runner=read.answers.runner,
                dla_core=request.dla_core,
                root=request.around.root,
                tell=tell,
            )
            before = replace(before, cold_start=starts)
        if request.around.interference is not None:
            tell(f"measuring {request.load}, quiet …")
            (folder / QUIET).mkdir()
            quiet = read.run(before, folder / QUIET, quiet=True)
            if quiet.measurement.stop is not None:
                return quiet
            before = replace(before, quiet=quiet.result.latency)
        tell(f"measuring {request.load} …")
        profiled = read.run(before, folder)
        _export(profiled, request)
    return profiled


def _export(profiled: Profiled, request: Request) -> None:
    """All that is made of a finished result."""
    result, samples, output = profiled.result, profiled.measurement.samples, request.output
    if request.trace is not None:
        deadline_ns = None if result.misses is None else result.misses.deadline_ns
        write_trace(samples, request.trace, name=result.name, series=profiled.series, deadline_ns=deadline_ns)
    if output is None:
        return
    if (limit := request.around.trigger_ns) is not None:
        write_outliers(samples, find_outliers(samples, limit), profiled.series, output / OUTLIERS)
    write_page(result, samples, profiled.series, output / REPORT)
    write_markdown(profile_markdown(result), output / MARKDOWN)
    if request.samples == "csv":
        write_csv(samples, output / "samples.csv")
    if request.samples == "npz":
        write_npz(samples, output / "samples.npz")


def results_folder(output: Path) -> Path:
    """A folder for results, new or without those of an earlier run.

    Raises:
        InputError: it has some, or lies in a bundle.
    """
    if enclosing_bundle(output) is not None:
        raise InputError(f"{output} lies in a bundle, which nothing may be added to.", "Choose another --output.")
    for name in (RESULT, SAMPLES, QUIET, SWEEP, WAY):
        if (output / name).exists():
            raise InputError(f"{output} holds the results of another run.", "Choose another --output.")
    output.mkdir(parents=True, exist_ok=True)
    return output


def _fidelity(bundle: Bundle) -> Fidelity:
    fidelity = bundle.manifest.fidelity
    worst = max((each.relative_error for each in fidelity.int8_vs_float), default=None)
    return Fidelity(
        sha256=sha256_json(fidelity.model_dump(mode="json")),
        samples=fidelity.samples,
        int8_worst_relative_error=worst,
    )
