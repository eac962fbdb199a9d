"""What goes on beside a measurement: telemetry, external meters, interference.

They are entered before the first frame and left after the last, so whatever they change is put back also after Ctrl-C.
Sampling belongs into a process of its own: a thread would share the interpreter with the loop that is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgemed.profile.records import Count, Nanoseconds, Positive, Record, Share, Text

ChannelKind = Literal["power", "temperature", "clock", "load", "counter", "memory", "fan", "slowdown", "activity"]
Unit = Literal["mW", "mC", "Hz", "permille", "events", "B", "rpm", "state"]


@dataclass(frozen=True)
class Measured:
    """The measured time, on `time.monotonic_ns`: from its first intended arrival to its last answer.

    `answered`: frames that were answered in it.
    """

    start_ns: int
    end_ns: int
    answered: int


@dataclass(frozen=True)
class Series:
    """One sensor over time: `times_ns` (n,) of `time.monotonic_ns`, rising; `values` (n,) int64 in `unit`."""

    name: str
    kind: ChannelKind
    unit: Unit
    times_ns: NDArray[np.int64]
    values: NDArray[np.int64]


class Channel(Record):
    """What one sensor showed. A sensor that is missing has no channel: it is never a 0."""

    name: Text
    kind: ChannelKind
    unit: Unit
    samples: Positive
    first: int
    last: int
    min: int
    median: int
    max: int


class Telemetry(Record):
    """Sensors during the measured time."""

    source: Text = Field(description='e.g. "sysfs", "nvml"')
    interval_ns: Positive = Field(description="asked for between samples")
    longest_gap_ns: Nanoseconds = Field(description="longest time without a sample: how old a reading may be")
    channels: tuple[Channel, ...]
    throttled: bool | None = Field(description="heat or over-current slowed it; null: nothing here tells")
    throttled_at_start: bool | None = Field(description="it was slowed already when sampling began")
    over_current_events: Count | None = Field(description="guards that fired meanwhile; null: no counters here")
    clocks_changed: bool | None = Field(description="a locked clock moved, or a limit of a clock changed")
    junction: Text | None = Field(description="channel that steadiness is judged by")
    file: Text | None = Field(None, description="all samples, beside result.json")
    lost: Text | None = Field(None, description="why sampling ended before the run did")


class Energy(Record):
    """Energy of an inference, by the trapezoid rule over one rail."""

    rail: Text
    total: bool = Field(description="whether the rail carries all of the module's power; the wall's is more")
    window_ns: Positive
    samples: Positive
    interval_ns: Positive = Field(description="between samples")
    staleness_ns: Nanoseconds = Field(description="how old a reading may be at most")
    inferences: Positive
    idle_mw: Count | None = Field(description="mean power before the first frame, with the model loaded")
    idle_window_ns: Positive | None
    mean_mw: Count
    gross_mj: Annotated[float, Field(ge=0)] = Field(description="per inference")
    net_mj: float | None = Field(description="per inference, above idle")


class Interference(Record):
    """Load that was put on the machine on purpose."""

    kind: Text
    workers: Positive
    asked: Text = Field(description="as on the command line")
    achieved: Text = Field(description="what it managed, in its own unit")


class CpuLoad(Record):
    """The machine's processors during the measured time, from /proc/stat."""

    busy: Share
    cores: Positive
    context_switches: Count = Field(description="of the whole machine")


class Unmeasured(Record):
    """What was asked for and could not be measured, with what was missing."""

    what: Text


Finding = Telemetry | Energy | Interference | CpuLoad | Unmeasured


class Beside(Protocol):
    """Something beside a measurement."""

    @property
    def series(self) -> Sequence[Series]:
        """What it has recorded so far; `steady` reads temperatures from it while the run goes on."""
        ...

    @property
    def junction(self) -> str | None:
        """Name of the series that steadiness is judged by; `None` if it has none."""
        ...

    def findings(self, measured: Measured) -> Sequence[Finding]:
        """What stands in the result; asked once, after `__exit__`."""
        ...

    def __enter__(self) -> Beside: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def junction_of(beside: Sequence[Beside]) -> Series | None:
    """The temperature that steadiness is judged by, as recorded so far; `None` without a sensor."""
    for each in beside:
        for series in each.series:
            if series.kind == "temperature" and series.name == each.junction:
                return series
    return None
