"""Frames that took too long, each with what went on around it: its neighbours' stages, and what sensors showed.

All stamps of a run are kept anyway, so the loop pays nothing for this: it is taken out of them after the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.store import write_atomic
from edgemed.profile.beside import Series
from edgemed.profile.stamps import ANSWERED, DONE, INTENDED, OUTCOME, STAGES, STATUS, WARMUP, Samples, stage_of

FILE: Final = "outliers.jsonl"
BEFORE, AFTER = 32, 8  # frames: what led to it counts more than what followed
_AROUND_NS: Final = 2_000_000_000  # of sensors, on each side
_MOST: Final = 1000  # events in a file: more are no outliers


@dataclass(frozen=True)
class Outliers:
    """Frames above a limit, gathered in events.

    Attributes:
        limit_ns: their latency is above it.
        frames: how many there are in the run, the warm-up apart.
        events: (first frame, last frame) of those that lie closer than a window to each other, the first `_MOST`.
    """

    limit_ns: int
    frames: int
    events: tuple[tuple[int, int], ...]


def find_outliers(samples: Samples, limit_ns: int) -> Outliers:
    """Frames that were answered later than `limit_ns` after they were meant to arrive."""
    events: list[tuple[int, int]] = []
    start = frames = 0
    for rows in samples.chunks():
        measured = (rows[:, STATUS] & (OUTCOME | WARMUP)) == ANSWERED
        late = np.flatnonzero(measured & (rows[:, DONE] - rows[:, INTENDED] > limit_ns))
        frames += len(late)
        for frame in (late + start).tolist():
            if events and frame - events[-1][1] <= BEFORE:
                events[-1] = (events[-1][0], frame)
            elif len(events) < _MOST:
                events.append((frame, frame))
            else:
                break
        start += len(rows)
    return Outliers(limit_ns, frames, tuple(events))


def write_outliers(samples: Samples, found: Outliers, series: Sequence[Series], path: Path) -> None:
    """One line of JSON for each event.

    Raises:
        ResourceError: it may not be written, or the disk is full.
    """
    lines = [json.dumps(event, separators=(",", ":")) for event in _events(samples, found, series)]
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode())


def _events(samples: Samples, found: Outliers, series: Sequence[Series]) -> Iterator[dict[str, Any]]:
    if not found.events:
        return
    table = np.load(samples.path, mmap_mode="r", allow_pickle=False)
    for first, last in found.events:
        begin = max(0, first - BEFORE)
        # an event that does not end is told by its beginning
        end = min(len(table), min(last, first + BEFORE) + AFTER + 1)
        rows = np.array(table[begin:end])
        start, stop = int(rows[0, INTENDED]), int(rows[:, DONE].max())
        yield {
            "first_frame": first,
            "last_frame": last,
            "limit_ns": found.limit_ns,
            "frames": [_frame(begin + offset, rows[offset : offset + 1], found) for offset in range(len(rows))],
            "sensors": {
                each.name: {"unit": each.unit, "at_ns": times, "values": values}
                for each in series
                for times, values in [_around(each, start, stop)]
                if times
            },
        }


def _frame(number: int, row: NDArray[np.int64], found: Outliers) -> dict[str, Any]:
    status, intended, done = (int(row[0, column]) for column in (STATUS, INTENDED, DONE))
    if status & OUTCOME != ANSWERED:
        return {"frame": number, "intended_ns": intended, "answered": False}
    stages = {}
    for name in STAGES:
        duration, known = stage_of(row, name)
        if known[0]:
            stages[name] = int(duration[0])
    latency = done - intended
    return {
        "frame": number,
        "intended_ns": intended,
        "latency_ns": latency,
        "over": latency > found.limit_ns,
        "stages_ns": stages,
    }


def _around(series: Series, start_ns: int, end_ns: int) -> tuple[list[int], list[int]]:
    first, end = np.searchsorted(series.times_ns, [start_ns - _AROUND_NS, end_ns + _AROUND_NS])
    return series.times_ns[first:end].tolist(), series.values[first:end].tolist()
