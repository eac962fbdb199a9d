"""`edgemed profile bedside.toml`: a study is replayed to the site's own daemon, and its way is timed stage by stage."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from edgemed.base.errors import InputError, Terminated
from edgemed.base.quantity import SECOND, parse_duration
from edgemed.base.store import scratch_directory, write_atomic
from edgemed.bundle.outputs import require_outside_bundles
from edgemed.cli.profiling import results_folder
from edgemed.device.here import detect_here
from edgemed.profile.around import device_state
from edgemed.profile.page import REPORT
from edgemed.profile.passage import POINTS, STAGES, End, Passage
from edgemed.profile.result import Ended
from edgemed.profile.session import fingerprint_of
from edgemed.profile.slo import load_slo
from edgemed.profile.way import WAY, About, ModelFacts, Sent, StudyFacts, Way, arrival_of, compose
from edgemed.profile.way_page import write_way_page
from edgemed.serve.config import Config, load_config
from edgemed.serve.dicom.receiver import Receiver
from edgemed.serve.dicom.scu import Target
from edgemed.serve.dicom.template import Study, read_study
from edgemed.serve.http.trace import chrome_trace
from edgemed.serve.journal.records import FORWARD
from edgemed.serve.observing import Observed, Passed, Rest
from edgemed.serve.rehearsal import RECEIVER, Rehearsal, rehearse
from edgemed.serve.replay import Replayed, replay
from edgemed.serve.timeline import Timeline

SAMPLES: Final = "samples.csv"
_TIMEOUT_NS: Final = 60 * SECOND
_SETTLE_S: Final = 120.0
"""For the last results, beyond the times that completeness waits for."""


@dataclass(frozen=True)
class WayRequest:
    """The command line."""

    config: Path
    study: Path
    repeat: int
    pace: str
    deadline: str | None = None
    slo: Path | None = None
    output: Path | None = None
    trace: Path | None = None
    root: Path = Path("/")


@dataclass(frozen=True)
class Walked:
    """A finished run.

    Attributes:
        way: its record.
        passages: its tasks.
        received: objects that the receiver was sent.
        stop: what ended it early.
    """

    way: Way
    passages: tuple[Passage, ...]
    received: int
    stop: BaseException | None


def walk(request: WayRequest, tell: Callable[[str], None], advanced: Callable[[], None] = lambda: None) -> Walked:
    """Replay what was asked for; the record is written before this returns.

    Args:
        request: the command line.
        tell: is told what is being done.
        advanced: called after each repetition.

    Raises:
        EdgemedError: bad input; the daemon does not start, or has died.
    """
    if request.trace is not None:
        require_outside_bundles(request.trace, "--trace")
    objectives = None if request.slo is None else load_slo(request.slo)
    deadline_ns = None if request.deadline is None else parse_duration(request.deadline)
    pace_ns = parse_duration(request.pace)
    if pace_ns < 1:
        raise InputError("--pace is no time.", "Give the time from one study to the next, e.g. 1s.")
    config = load_config(request.config)
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_directory("edgemed-way"))
        (scratch / "study").mkdir()
        study = read_study(request.study, scratch / "study")
        output = None if request.output is None else results_folder(request.output)
        seen = _run(config, study, request, pace_ns, scratch, tell, advanced)
        way = compose(
            _about(config, study, request, pace_ns, seen, scratch),
            seen.passages,
            objectives=objectives,
            deadline_ns=deadline_ns,
        )
    if output is not None:
        write_atomic(output / WAY, way.model_dump_json(by_alias=True, indent=1).encode() + b"\n")
        write_atomic(output / SAMPLES, _csv(seen.passages))
        write_way_page(way, seen.passages, output / REPORT)
    if request.trace is not None:
        write_atomic(request.trace, json.dumps(_trace(seen)).encode())
    return Walked(way, seen.passages, seen.received, seen.stop)


@dataclass(frozen=True)
class _Seen:
    rehearsal: Rehearsal
    observed: Observed
    sent: Replayed
    rest: Rest
    passages: tuple[Passage, ...]
    received: int
    stop: BaseException | None


def _run(
    config: Config,
    study: Study,
    request: WayRequest,
    pace_ns: int,
    scratch: Path,
    tell: Callable[[str], None],
    advanced: Callable[[], None],
) -> _Seen:
    with Receiver(RECEIVER) as receiver:
        rehearsal = rehearse(config, scratch / "state", receiver.port)
        tell("starting the daemon, with a state of its own …")
        with Observed(rehearsal.config, scratch / "log") as observed:
            target = Target("127.0.0.1", observed.port, rehearsal.called, rehearsal.calling, _TIMEOUT_NS)
            tell(f"sending {study.images} images {request.repeat} times, as {rehearsal.calling} …")
            sent = Replayed()
            stop: BaseException | None = None

            def done() -> None:
                observed.check()
                advanced()

            try:
                replay(study, target, repeat=request.repeat, pace_ns=pace_ns, into=sent, done=done)
            except (KeyboardInterrupt, Terminated) as error:  # what was sent by then is worth its figures
                stop = error
            rest = observed.finish(0.0 if stop is not None else _settle_s(config))
        passages = tuple(_passages(rehearsal.config, sent, observed.passed, rest))
        return _Seen(rehearsal, observed, sent, rest, passages, receiver.received, stop)


def _settle_s(config: Config) -> float:
    """How long the last inputs may take: their quiet time, their deadline, and some more."""
    waits = [max(each.completeness.quiet_ns, each.completeness.after_ns) + each.deadline_ns for each in config.models]
    return max(waits) / SECOND + _SETTLE_S


def _passages(config: Config, sent: Replayed, passed: Sequence[Passed], rest: Rest) -> Iterator[Passage]:
    """Every task that the daemon has opened; one without a timeline has no latency."""
    lines = {each.line.task: each.line for each in passed}
    goes = {model.name: bool(model.send_to) for model in config.models}
    ends: dict[str, End] = {"delivered": "answered", "not-analysed": "not-analysed", "failed": "failed"}
    for task, model, subject, _, state in rest.tasks:
        if model == FORWARD or subject not in sent.of:
            continue
        line = lines.get(task, Timeline(task, model))
        repetition = sent.of[subject]
        yield Passage(
            model=model,
            repetition=repetition,
            intended_ns=sent.intended[repetition],
            end=ends.get(state, "unfinished"),
            points=line.points,
            spans=line.spans,
            delivered=goes[model],
        )


def _about(config: Config, study: Study, request: WayRequest, pace_ns: int, seen: _Seen, scratch: Path) -> About:
    sent = seen.sent
    behind = sum(not free for free in sent.idle)
    return About(
        name=config.daemon.name,
        study=StudyFacts(series=len(study.series), images=study.images, bytes=study.bytes, left_out=study.left_out),
        sent=Sent(
            repeat=request.repeat,
            begun=len(sent.begun),
            pace_ns=pace_ns,
            accepted=sent.accepted,
            refused=sent.refused,
            behind=behind,
            arrival=arrival_of(sent.intended[: len(sent.begun)], sent.begun, sent.idle),
        ),
        state=_file_system(scratch),
        models=_models(seen, request.root),
        start_ns=sent.intended[0] if sent.intended else 0,
        not_measured=(*seen.rehearsal.differs, "the daemon's start, and loading of models", "energy, heat and clocks"),
        warnings=tuple(_warnings(config, seen, scratch)),
        ended=_ended(seen.stop),
        samples=None if request.output is None else SAMPLES,
    )


def _ended(stop: BaseException | None) -> Ended | None:
    if stop is None:
        return None
    if isinstance(stop, Terminated):
        return Ended(reason="terminated", message="it was told to stop")
    return Ended(reason="interrupted", message="Ctrl-C")


def _models(seen: _Seen, root: Path) -> tuple[ModelFacts, ...]:
    here = detect_here(root)
    power_mode, clocks = device_state(root)
    return tuple(
        ModelFacts(
            name=model.name,
            level=model.level,
            fingerprint=fingerprint_of(
                info := seen.rest.models[model.name],
                here,
                backend_version=version("onnxruntime") if info.backend == "onnxruntime" else None,
                power_mode=power_mode,
                clocks=clocks,
            ),
            deadline_ns=model.deadline_ns,
            delivered=bool(model.send_to),
        )
        for model in seen.rehearsal.config.models
    )


def _warnings(config: Config, seen: _Seen, scratch: Path) -> Iterator[str]:
    if _file_system(scratch) in ("tmpfs", "ramfs"):
        yield (
            f"The state lay in memory ({_file_system(scratch)}), where syncing costs nothing: set TMPDIR to a folder "
            "on the disk of the site's state."
        )
    elif _device(config.daemon.state) not in (None, _device(scratch)):
        yield "The state lay on another file system than the site's: set TMPDIR to a folder on that disk."
    unwanted = sum(count for state, _, count in seen.rest.objects if state == "not-analysed")
    if unwanted:
        yield f"{unwanted} images were not analysed: no model takes them, or their model declines them."
    if again := sum(revision > 1 for *_, revision, _ in seen.rest.tasks):
        yield f"{again} results were revisions: images came after their series was taken to be complete."
    if seen.rest.models != seen.observed.models:
        yield "A model was answered by another backend at the end than at the start: see its log at the site."


def _device(path: Path) -> int | None:
    """The device that a path, or the nearest folder above it, lies on."""
    found = next((each for each in (path, *path.parents) if each.exists()), None)
    return None if found is None else found.stat().st_dev


def _file_system(path: Path) -> str:
    """The kind of file system that a folder lies on, as the kernel names it."""
    mounts = Path("/proc/self/mountinfo")
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0]
    return "unknown"


def _csv(passages: Sequence[Passage]) -> bytes:
    """One row for each task: its points (ns since the first intended arrival), and its stages (ns). No UID is in it."""
    start = min((each.intended_ns for each in passages), default=0)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["model", "repetition", "end", "intended", *POINTS, *(f"{name}_ns" for name in STAGES)])
    for each in passages:
        points = [each.points[name] - start if name in each.points else "" for name in POINTS]
        stages = each.stages()
        spent = [stages.get(name, "") for name in STAGES]
        rows.writerow([each.model, each.repetition, each.end, each.intended_ns - start, *points, *spent])
    return text.getvalue().encode()


def _trace(seen: _Seen) -> object:
    """All tasks, with the wait before their first byte."""
    lines = [
        Timeline(number, each.model, {"intended": each.intended_ns, **each.points}, list(each.spans))
        for number, each in enumerate(seen.passages)
    ]
    return chrome_trace(lines, seconds=1 << 40)
