"""Rows of the sampler → what stands in the result. What never answered has no channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemed.profile.beside import Channel, ChannelKind, Measured, Telemetry, Unit
from edgemed.profile.stats import median_of
from edgemed.profile.telemetry.limits import Limits
from edgemed.profile.telemetry.sampler import MISSING, TIMES

Rows = NDArray[np.int64]
# Orin and Thor, Xavier, Nano and TX2, x86 packages, discrete GPUs
_JUNCTIONS: Final = ("tj-thermal", "Tboard_tegra", "thermal-fan-est", "GPU", "gpu-thermal", "GPU-therm", "x86_pkg_temp")
# Tegra's cores tell the frequency that they counted, not the one that is set; steps of its tables lie 3 % apart or more
_SAME_CLOCK: Final = 0.015


class Known(NamedTuple):
    """A sensor, as the sampler told it."""

    source: str
    name: str
    kind: ChannelKind
    unit: Unit
    update_ns: int | None
    slows: bool | None


def junction_among(sensors: Sequence[Known], rows: Rows) -> str | None:
    """The sensor that stands for the die, of those that answered; where no name is known, the first temperature."""
    return junction_by_name([sensor.name for sensor, _ in _columns(sensors, rows, "temperature")])


def junction_by_name(names: Sequence[str]) -> str | None:
    """Of these temperatures, the one that stands for the die."""
    return next((name for name in _JUNCTIONS if name in names), names[0] if names else None)


def summarize(
    sensors: Sequence[Known],
    rows: Rows,
    measured: Measured,
    *,
    interval_ns: int,
    limits: tuple[Limits, Limits | None] | None,
    lost: str | None,
    file: str | None,
) -> Telemetry | None:
    """The record of one source; `None` where it never took a row.

    Args:
        sensors: of this source.
        rows: (n, 2 + sensors): time before, time after, values.
        measured: the measured time; rows from the last before it to the first after it count.
        interval_ns: between samples.
        limits: of the clocks, before and after; `None` where the source knows none.
        lost: why there are no more rows.
        file: that keeps them all.
    """
    if not len(rows):
        return None
    within = around(rows, measured)
    channels = [_channel(sensor, within[:, TIMES + index]) for index, sensor in enumerate(sensors)]
    gaps = np.diff(np.concatenate((within[:, 0], [max(measured.end_ns, int(within[-1, 1]))])))
    return Telemetry(
        source=sensors[0].source,
        interval_ns=interval_ns,
        longest_gap_ns=int(gaps.max()),
        channels=tuple(channel for channel in channels if channel is not None),
        throttled=_throttled(sensors, within),
        throttled_at_start=_slowed(sensors, rows[:1]),
        over_current_events=_events(sensors, within),
        clocks_changed=None if limits is None else _clocks_changed(sensors, within, *limits),
        junction=junction_among(sensors, rows),
        file=file,
        lost=lost,
    )


def around(rows: Rows, measured: Measured) -> Rows:
    """Rows in the measured time, with the last before and the first after it."""
    first = max(0, int(np.searchsorted(rows[:, 1], measured.start_ns, side="right")) - 1)
    end = int(np.searchsorted(rows[:, 0], measured.end_ns, side="left")) + 1
    return rows[min(first, len(rows) - 1) : max(end, first + 1)]


def _channel(sensor: Known, column: NDArray[np.int64]) -> Channel | None:
    values = column[column != MISSING]
    if not len(values):
        return None
    return Channel(
        name=sensor.name,
        kind=sensor.kind,
        unit=sensor.unit,
        samples=len(values),
        first=int(values[0]),
        last=int(values[-1]),
        min=int(values.min()),
        median=median_of(values),
        max=int(values.max()),
    )


def _columns(sensors: Sequence[Known], rows: Rows, kind: ChannelKind) -> list[tuple[Known, NDArray[np.int64]]]:
    """Sensors of a kind that answered at least once, with what they said."""
    chosen = [(sensor, rows[:, TIMES + index]) for index, sensor in enumerate(sensors) if sensor.kind == kind]
    kept = [(sensor, column[column != MISSING]) for sensor, column in chosen]
    return [(sensor, values) for sensor, values in kept if len(values)]


def _slowed(sensors: Sequence[Known], rows: Rows) -> bool | None:
    """Whether something was being slowed; `None`: nothing here tells."""
    states = _columns(sensors, rows, "slowdown")
    return any(bool((values != 0).any()) for _, values in states) if states else None


def _throttled(sensors: Sequence[Known], rows: Rows) -> bool | None:
    """Slowed for heat or power, or an over-current guard fired that slows the clocks (or may)."""
    guards = _columns(sensors, rows, "counter")
    slowed = _slowed(sensors, rows)
    if not guards:
        return slowed
    fired = any(_rise(values) for sensor, values in guards if sensor.slows is not False)
    return fired or bool(slowed)


def _events(sensors: Sequence[Known], rows: Rows) -> int | None:
    guards = _columns(sensors, rows, "counter")
    return sum(_rise(values) for _, values in guards) if guards else None


def _rise(values: NDArray[np.int64]) -> int:
    """How far a counter rose; one that begins anew (its driver was loaded again) counts from there."""
    steps = np.diff(values)
    return int(np.where(steps >= 0, steps, values[1:]).sum())


def _clocks_changed(sensors: Sequence[Known], rows: Rows, before: Limits, after: Limits | None) -> bool | None:
    """Whether limits changed, or a clock that they leave one frequency had another. A GPU asleep says 0."""
    if before.state is None:
        return None
    if after is not None and before.differ(after):
        return True
    pinned = before.pinned()
    for sensor, values in _columns(sensors, rows, "clock"):
        if (hertz := pinned.get(sensor.name)) is not None:
            awake = values[values > 0]
            if (np.abs(awake - hertz) > _SAME_CLOCK * hertz).any():
                return True
    return False
