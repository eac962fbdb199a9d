"""Service-level objectives: a TOML file that says what a device must keep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_json
from edgemed.base.toml import read_toml
from edgemed.profile.records import Confidence, Count, Positive, Record, Text

SCHEMA: Final = "edgemed/slo/1"
Milliseconds = Annotated[float, Field(gt=0, le=1e9)]
# 0 of n never shows a rate of 0: such a limit could not be passed
Rate = Annotated[float, Field(gt=0, lt=1)]
PERCENTILE_KEYS: Final = {
    "p50_ms": "50",
    "p90_ms": "90",
    "p95_ms": "95",
    "p99_ms": "99",
    "p99_9_ms": "99.9",
    "p99_99_ms": "99.99",
}


class LatencyClauses(Record):
    """Upper bounds of percentiles, from the intended arrival."""

    p50_ms: Milliseconds | None = None
    p90_ms: Milliseconds | None = None
    p95_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None
    p99_9_ms: Milliseconds | None = None
    p99_99_ms: Milliseconds | None = None


class MissClauses(Record):
    """Deadline misses. `rate` is judged by its bound, the others by the run's own worst."""

    rate: Rate | None = None
    burst: Count | None = Field(None, description="misses in a row, at most")
    events_per_hour: Annotated[float, Field(gt=0)] | None = Field(None, description="upper bound")
    recovery_ms: Milliseconds | None = Field(None, description="longest time from a first miss to being in time again")


class DropClauses(Record):
    """Frames that were dropped or failed, of all that arrived; judged by the bound."""

    rate: Rate | None = None


class FirstFrameClauses(Record):
    """The very first frame, and first frames after idle gaps; judged by what was seen."""

    first_ms: Milliseconds | None = None
    after_gap_ms: Milliseconds | None = Field(None, description="the slowest first frame after a gap")


class EnergyClauses(Record):
    """Energy of an inference on the rail named by the result."""

    gross_mj: Annotated[float, Field(gt=0)] | None = None
    net_mj: Annotated[float, Field(gt=0)] | None = None


class TemperatureClauses(Record):
    """The hottest that the junction got."""

    junction_c: Annotated[float, Field(gt=-50, lt=150)] | None = None


class StateClauses(Record):
    """What the device must be, for any of it to count. A difference is exit code 4."""

    board: Text | None = None
    power_mode: Text | None = None
    clocks: Literal["locked", "free"] | None = None
    precision: Text | None = None
    backend: Text | None = None


class Slo(Record):
    """A file of objectives."""

    schema_: Literal["edgemed/slo/1"] = Field(alias="schema")
    description: Text = ""
    confidence: Confidence = Field(0.95, description="of every bound, one-sided")
    deadline_ms: Milliseconds | None = Field(None, description="an answer later than this after its arrival is a miss")
    recovered_frames: Positive = Field(10, description="frames in time, in a row, that end an event of misses")
    assumed_burst_frames: Positive = Field(
        1, description="how long a burst of misses would be, where none was seen: it multiplies the bound of 0 misses"
    )
    require_steady: bool = Field(False, description="inconclusive unless latency and temperature had settled")
    min_duration_s: Annotated[float, Field(gt=0)] | None = Field(None, description="inconclusive if measured shorter")
    latency: LatencyClauses = LatencyClauses()
    misses: MissClauses = MissClauses()
    drops: DropClauses = DropClauses()
    first_frame: FirstFrameClauses = FirstFrameClauses()
    energy: EnergyClauses = EnergyClauses()
    temperature: TemperatureClauses = TemperatureClauses()
    state: StateClauses = StateClauses()

    @property
    def deadline_ns(self) -> int | None:
        return None if self.deadline_ms is None else round(self.deadline_ms * 1e6)


@dataclass(frozen=True)
class Objectives:
    """A file of objectives that was read, and the hash of what it means."""

    slo: Slo
    sha256: str


def load_slo(path: Path) -> Objectives:
    """Read a file of objectives.

    Raises:
        InputError: not TOML, unknown keys, a value without meaning, or nothing that could be judged.
        ResourceError: it cannot be read.
    """
    try:
        slo = Slo.model_validate(read_toml(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}.", "See examples/slo.toml for every key.") from error
    if slo.deadline_ms is None and any(value is not None for value in slo.misses.model_dump().values()):
        raise InputError(f"{path} limits misses and has no deadline_ms.", "Say from when on an answer is late.")
    if not clauses_of(slo):
        raise InputError(f"{path} has no clause.", "See examples/slo.toml for every key.")
    return Objectives(slo, sha256_json(slo.model_dump(mode="json", by_alias=True)))


def clauses_of(slo: Slo) -> dict[str, float]:
    """Every clause that has a limit: `"latency.p99_ms"` → 20.0."""
    sections = ("latency", "misses", "drops", "first_frame", "energy", "temperature")
    return {
        f"{section}.{key}": value
        for section in sections
        for key, value in getattr(slo, section).model_dump().items()
        if value is not None
    }
