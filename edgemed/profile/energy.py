"""Energy of an inference: the trapezoid rule over one rail, gross and above idle.

mJ = mW · s. Power between two readings is taken as the straight line between them, so a window's ends are interpolated
between fresh samples on both sides; a window without such samples is refused.
"""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError, InputError, from_os_error
from edgemed.device.power import total_rail
from edgemed.profile.beside import Energy, Finding, Measured, Series, Unmeasured
from edgemed.profile.telemetry.nvml import BOARD
from edgemed.profile.telemetry.recorder import Recorder

LEAST_NS: Final = 10_000_000_000  # a shorter window holds too few readings of a monitor that averages
IDLE_NS: Final = 10_000_000_000
_FRESH: Final = 3  # intervals: a sample at a window's end may be late by a scheduler's turn or two, not by more
_METER_BYTES: Final = 256 << 20
_METER_COLUMNS: Final = ("time", "watts")

Integers = NDArray[np.int64]


def integrate(times_ns: Integers, values: Integers, start_ns: int, end_ns: int) -> Fraction:
    """∫ of the line through the samples, exactly, in (unit of `values`) · ns.

    Args:
        times_ns: (n,) rising; the first is not after `start_ns`, the last not before `end_ns`.
        values: (n,).
        start_ns, end_ns: the window.
    """
    inner = (times_ns > start_ns) & (times_ns < end_ns)
    t = [start_ns, *times_ns[inner].tolist(), end_ns]
    ends = (_between(times_ns, values, start_ns), _between(times_ns, values, end_ns))
    p = [ends[0], *values[inner].tolist(), ends[1]]
    doubled = sum(((p[i] + p[i + 1]) * (t[i + 1] - t[i]) for i in range(len(t) - 1)), Fraction(0))
    return doubled / 2


def _between(times_ns: Integers, values: Integers, at_ns: int) -> Fraction:
    """The line's value at a time within the samples."""
    right = min(int(np.searchsorted(times_ns, at_ns, side="left")), len(times_ns) - 1)
    left = max(right - 1, 0)
    t0, t1, p0, p1 = (int(each) for each in (times_ns[left], times_ns[right], values[left], values[right]))
    return Fraction(p1) if t1 == t0 else p0 + Fraction((p1 - p0) * (at_ns - t0), t1 - t0)


def lacking(series: Series, start_ns: int, end_ns: int, interval_ns: int, least_ns: int) -> str | None:
    """What a window lacks to be integrated; `None`: nothing."""
    if end_ns - start_ns < least_ns:
        return f"measured for {(end_ns - start_ns) / 1e9:.1f} s of the {least_ns / 1e9:g} s that it takes"
    times = series.times_ns
    if not len(times):
        return f"{series.name} never answered"
    if times[0] > start_ns or times[-1] < end_ns:
        return f"{series.name} was not read at both ends of the measured time"
    if (gap := _longest_gap(times, start_ns, end_ns)) > _FRESH * interval_ns:
        return f"{series.name} was not read for {gap / 1e9:.2f} s, although every {interval_ns / 1e9:g} s was asked for"
    return None


def _longest_gap(times: Integers, start_ns: int, end_ns: int) -> int:
    """Longest time between two samples that a window needs: those in it, and one on each side."""
    first = max(0, int(np.searchsorted(times, start_ns, side="right")) - 1)
    end = int(np.searchsorted(times, end_ns, side="left")) + 1
    return int(np.diff(times[first:end]).max(initial=0))


def spent(
    series: Series,
    measured: Measured,
    idle: tuple[int, int] | None,
    *,
    total: bool,
    interval_ns: int,
    update_ns: int | None,
    least_ns: int = LEAST_NS,
) -> Energy | Unmeasured:
    """Energy of an inference over one rail.

    Args:
        series: of the rail, mW.
        measured: the window, and how many inferences it held.
        idle: a window before it in which nothing ran, the model loaded; `None`: not measured.
        total: whether the rail carries all of the module's power.
        interval_ns: that was asked for between samples.
        update_ns: how old a reading may be by itself; `None`: unknown, and then not in the bound.
        least_ns: shortest window.
    """
    start, end = measured.start_ns, measured.end_ns
    what = lacking(series, start, end, interval_ns, least_ns)
    if what is None and not measured.answered:
        what = "no inference was answered"
    if what is not None:
        return Unmeasured(what=f"energy: {what}")
    power = integrate(series.times_ns, series.values, start, end)
    mean_mw = power / (end - start)
    idle_mw = None if idle is None else _mean(series, *idle)
    within = (series.times_ns >= start) & (series.times_ns <= end)
    return Energy(
        rail=series.name,
        total=total,
        window_ns=end - start,
        samples=max(1, int(within.sum())),
        interval_ns=interval_ns,
        staleness_ns=_longest_gap(series.times_ns, start, end) + (update_ns or 0),
        inferences=measured.answered,
        idle_mw=None if idle_mw is None else round(idle_mw),
        idle_window_ns=None if idle is None or idle_mw is None else idle[1] - idle[0],
        mean_mw=round(mean_mw),
        gross_mj=float(power / 10**9 / measured.answered),
        net_mj=None if idle_mw is None else float((mean_mw - idle_mw) * (end - start) / 10**9 / measured.answered),
    )


def _mean(series: Series, start_ns: int, end_ns: int) -> Fraction | None:
    """Mean power of a window; `None` where its ends were not sampled."""
    times = series.times_ns
    if end_ns <= start_ns or not len(times) or times[0] > start_ns or times[-1] < end_ns:
        return None
    return integrate(times, series.values, start_ns, end_ns) / (end_ns - start_ns)


class EnergyMeter:
    """Energy by the sensors of a recorder that stands before it among what goes on beside.

    Entering it waits while nothing runs: that is the idle baseline, with the model loaded.

    Args:
        recorder: entered before.
        rail: to integrate; `None`: the one that carries all of the module's power, by its name.
        idle_ns: length of the baseline; 0: none.
        least_ns: shortest window that is integrated.
    """

    series: Sequence[Series] = ()
    junction: str | None = None

    def __init__(
        self, recorder: Recorder, rail: str | None = None, *, idle_ns: int = IDLE_NS, least_ns: int = LEAST_NS
    ) -> None:
        self._recorder, self._rail, self._idle_ns, self._least_ns = recorder, rail, idle_ns, least_ns
        self._idle: tuple[int, int] | None = None

    def __enter__(self) -> EnergyMeter:
        if self._chosen() is not None and self._idle_ns:
            start = self._now()
            threading.Event().wait(self._idle_ns / 1e9)
            self._idle = (start, time.monotonic_ns())
        self._recorder.sample_now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._recorder.sample_now()

    def _now(self) -> int:
        self._recorder.sample_now()
        return time.monotonic_ns()

    def _chosen(self) -> str | None:
        """The rail's name; `None` where there is none."""
        names = [sensor.name for sensor in self._recorder.sensors if sensor.kind == "power"]
        if self._rail is not None:
            return self._rail if self._rail in names else None
        return total_rail(names) or (BOARD if BOARD in names else None)

    def findings(self, measured: Measured) -> Sequence[Finding]:
        """Energy, or what was missing."""
        names = [sensor.name for sensor in self._recorder.sensors if sensor.kind == "power"]
        chosen = self._chosen()
        if chosen is None:
            return (Unmeasured(what=f"energy: {_no_rail(self._rail, names)}"),)
        series, sensor = self._recorder.named(chosen), self._recorder.sensor(chosen)
        assert series is not None
        assert sensor is not None
        energy = spent(
            series,
            measured,
            self._idle,
            total=chosen == total_rail(names) or chosen == BOARD,
            interval_ns=self._recorder.interval_ns,
            update_ns=sensor.update_ns,
            least_ns=self._least_ns,
        )
        return (energy,)


def _no_rail(asked: str | None, names: Sequence[str]) -> str:
    listed = ", ".join(names)
    if asked is not None:
        return f"there is no rail {asked} here" + (f"; there are {listed}" if names else "")
    if not names:
        return "no power monitor answers here"
    return f"no rail of {listed} carries all of the module's power; name one with --rail"


class ExternalMeter:
    """An external power meter's own record, read after the run: the wall's view, which rails do not have.

    Args:
        path: CSV with the columns `time` (seconds since 1970 or ISO 8601 with its offset) and `watts`.
        least_ns: shortest window that is integrated.
    """

    series: Sequence[Series] = ()
    junction: str | None = None

    def __init__(self, path: Path, *, least_ns: int = LEAST_NS) -> None:
        self._path, self._least_ns = path, least_ns
        self._offset_ns = 0

    def __enter__(self) -> ExternalMeter:
        self._offset_ns = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def findings(self, measured: Measured) -> Sequence[Finding]:
        """Energy at the meter, or what was missing; a file that is none does not lose the run."""
        try:
            series = read_meter(self._path, self._offset_ns)
        except EdgemedError as error:
            return (Unmeasured(what=f"energy: {error}"),)
        gaps = np.diff(series.times_ns)
        interval = int(np.median(gaps)) if len(gaps) else 1
        return (
            spent(series, measured, None, total=True, interval_ns=interval, update_ns=None, least_ns=self._least_ns),
        )


def read_meter(path: Path, offset_ns: int) -> Series:
    """A meter's record on `time.monotonic_ns`, mW.

    Args:
        path: the CSV.
        offset_ns: of the wall's clock against `time.monotonic_ns`.

    Raises:
        InputError: it is none, or its times do not rise.
        ResourceError: it cannot be read.
    """
    try:
        if path.stat().st_size > _METER_BYTES:
            raise InputError(f"{path} is too large for a meter's record.", "Cut it to the time of the run.")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not set(_METER_COLUMNS) <= set(rows.fieldnames or ()):
                raise InputError(f"{path} lacks the columns time and watts.", "Give them names in its first line.")
            pairs = [(_nanoseconds(row["time"]) - offset_ns, round(float(row["watts"]) * 1000)) for row in rows]
            times, values = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    except OSError as error:
        raise from_os_error(error, path) from error
    except (ValueError, TypeError, OverflowError, csv.Error) as error:
        raise InputError(f"{path} is not a meter's record: {error}.", "Give numbers in time and watts.") from error
    if (np.diff(times) <= 0).any():
        raise InputError(f"The times of {path} do not rise.", "Give the meter's record as it was written.")
    return Series(f"meter {path.name}", "power", "mW", times, values)


def _nanoseconds(text: str) -> int:
    """Since 1970, exactly: a float of today's seconds has steps of 240 ns."""
    try:
        return round(Fraction(text.strip()) * 10**9)
    except (ValueError, ZeroDivisionError):
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError(f"the time {text} has no offset from UTC")
    return round(Fraction(moment.timestamp()).limit_denominator(10**6) * 10**9)
