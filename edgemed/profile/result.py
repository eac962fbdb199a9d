"""The schema of `result.json`: one run, what it ran on, and what was not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from edgemed.base.errors import InputError, from_os_error
from edgemed.base.store import write_atomic
from edgemed.profile.beside import CpuLoad, Energy, Interference, Telemetry
from edgemed.profile.coldstart.series import ColdStart
from edgemed.profile.facts import Host, ProcessFacts
from edgemed.profile.itself import ItselfComparison
from edgemed.profile.load import LoadRecord
from edgemed.profile.misses import Misses
from edgemed.profile.records import Count, Digest, Nanoseconds, Positive, Record, Text
from edgemed.profile.stats import Distribution
from edgemed.profile.steady import Steady
from edgemed.profile.verdict import Verdict

SCHEMA: Final = "edgemed/profile/1"
RESULT: Final = "result.json"
SAMPLES: Final = "samples.npy"
SWEEP: Final = "sweep.json"
QUIET: Final = "quiet"  # folder of the same run without interference
_MAX_BYTES = 64 << 20


class Fingerprint(Record):
    """What must be the same for two results to be comparable; null where there is no such thing, or nothing tells."""

    board: Text | None
    l4t: Text | None
    jetpack: Text | None
    gpu: Text | None
    tensorrt: Text | None
    power_mode: Text | None
    clocks: Literal["locked", "free"] | None
    backend: Text
    backend_version: Text | None
    device: Text
    precision: Text
    engine_sha256: Digest | None
    bundle_digest: Digest | None
    edgemed: Text
    python: Text
    host: Host


class Settings(Record):
    """How it was measured; what reports print on their first page."""

    warmup_frames: Count = Field(description="frames that were warm-up; kept in the samples, marked")
    warmup_rule: Text
    clock: Literal["CLOCK_MONOTONIC"] = "CLOCK_MONOTONIC"
    spin_ns: Nanoseconds = Field(description="the last part of each wait for an arrival is spent spinning")
    collector: Literal["off", "on"] = Field(description="Python's cyclic garbage collector")
    ring: Text | None = Field(description="policy and slots; null: one frame at a time through `infer`")
    sync: Literal["spin", "blocking", "host"] | None = Field(description="how the host waits for the device")
    cuda_graph: bool | None = Field(description="whether one was replayed; null: there is no CUDA")
    no_cuda_graph: Text | None = Field(None, description="why none was")
    copies_counted: bool | None = Field(description="whether latency holds the copies; null: there are none")
    inputs: Text = Field(description="where the frames' data came from")
    inputs_count: Positive
    ambient_c: float | None = None


class Counts(Record):
    """Where all frames went, the warm-up apart: arrived = answered + dropped + failed + unfinished."""

    arrived: Count
    answered: Count
    dropped: dict[Text, Count] = Field({}, description="by reason")
    failed: Count = 0
    unfinished: Count = 0


class FirstFrames(Record):
    """Frames that a warm-up hides."""

    first_ns: Nanoseconds | None = Field(description="latency of the very first frame; null: it failed")
    gap_ns: Positive = Field(description="an idle time that makes the next frame a first one")
    after_gap: Distribution | None = Field(description="first frames after each idle gap, the very first apart")


class Jitter(Record):
    """How regular arrivals and answers were."""

    arrival: Distribution | None = Field(description="lateness of taking a frame while the loop was idle")
    tail_ns: Nanoseconds | None = Field(description="p99.9 minus p50; null where n is too small")


class OwnCost(Record):
    """What the profiler costs by itself, measured in this process on a Runner that does nothing."""

    per_frame_ns: Nanoseconds
    frames: Positive


class SampleFile(Record):
    """Where all stamps are."""

    file: Text
    rows: Count
    columns: tuple[Text, ...]


class Ended(Record):
    """Why the run ended early."""

    reason: Literal["interrupted", "terminated", "failed"]
    message: Text


class Fidelity(Record):
    """What the fast graph is worth, so that a wrong one cannot pass alone: the bundle's own figures, by their hash."""

    sha256: Digest
    samples: Positive
    int8_worst_relative_error: float | None


class Result(Record):
    """One run of `edgemed profile`."""

    schema_: Literal["edgemed/profile/1"] = Field(alias="schema")
    created: Text = Field(description="UTC, ISO 8601")
    name: Text = Field(description="of the bundle, or of what was measured")
    fingerprint: Fingerprint
    load: LoadRecord
    settings: Settings
    duration_ns: Nanoseconds = Field(description="from the first measured arrival to the last answer")
    counts: Counts
    latency: Distribution | None = Field(description="from the intended arrival; null where nothing was answered")
    stages: dict[str, Distribution] = Field(description="they add up to the latency, frame by frame")
    first_frames: FirstFrames
    jitter: Jitter
    misses: Misses | None = Field(None, description="null without a deadline")
    steady: Steady | None = Field(None, description="null where the run was too short to tell")
    process: ProcessFacts
    telemetry: tuple[Telemetry, ...] = ()
    energy: tuple[Energy, ...] = ()
    interference: tuple[Interference, ...] = ()
    quiet: Distribution | None = Field(
        None, description="latency of the same run without interference; its own result lies in quiet/"
    )
    cpu: CpuLoad | None = None
    cold_start: ColdStart | None = None
    fidelity: Fidelity | None = None
    own_cost: OwnCost | None = None
    itself: ItselfComparison | None = Field(None, description="an A/A comparison; null where the run is too short")
    samples: SampleFile | None = None
    ended: Ended | None = None
    not_measured: tuple[Text, ...] = ()
    warnings: tuple[Text, ...] = ()
    verdict: Verdict | None = Field(None, description="null without objectives")


def write_result(result: Result, path: Path) -> None:
    """Write it whole or not at all.

    Raises:
        ResourceError: the disk is full, or it may not be written.
    """
    write_atomic(path, result.model_dump_json(by_alias=True, indent=1).encode() + b"\n")


def read_result(path: Path) -> Result:
    """Read a `result.json`, or the folder that holds one.

    Raises:
        InputError: it is none, or of another schema.
        ResourceError: it cannot be read.
    """
    file = path / RESULT if path.is_dir() else path
    try:
        if not file.is_file() or file.stat().st_size > _MAX_BYTES:
            raise InputError(f"{file} is not a result of a profile.", "Give a result.json, or the folder of one.")
        return Result.model_validate_json(file.read_bytes())
    except OSError as error:
        raise from_os_error(error, file) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{file} does not follow the schema of a profile: {where}: {first['msg']}.",
            "It may come from another version of edgemed: measure anew.",
        ) from error
