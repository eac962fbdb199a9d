"""A run in the Trace Event Format, which ui.perfetto.dev and chrome://tracing open.

Slices of one track must nest. So each stage has tracks of its own, one for each slot in flight: a slice goes to the
lowest slot that is free, and slices of a track never overlap. Times are microseconds since the first arrival, with
three decimals: nanoseconds. Arrows lead from where a frame arrives to where its answer leaves.
"""

from __future__ import annotations

import heapq
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

from edgemed.profile.beside import Series
from edgemed.profile.export import whole_file
from edgemed.profile.pictures import KINDS
from edgemed.profile.stamps import (
    ANSWERED,
    COMPUTE_END,
    COMPUTE_START,
    COPY_IN_END,
    COPY_IN_START,
    COPY_OUT_END,
    COPY_OUT_START,
    DONE,
    DROP_REASONS,
    DROPPED,
    FAILED,
    FILLED,
    INTENDED,
    OUTCOME,
    REASON_SHIFT,
    STATUS,
    TAKEN,
    WARMUP,
    Samples,
)

MOST_FRAMES: Final = 50_000  # about 60 MB: more make browsers stop
_PROCESS, _SENSORS = 1, 2
_TRACKS_PER_STAGE = 10_000
STAGES: Final = (
    ("wait", INTENDED, TAKEN),
    ("pre", TAKEN, FILLED),
    ("copy-in", COPY_IN_START, COPY_IN_END),
    ("compute", COMPUTE_START, COMPUTE_END),
    ("copy-out", COPY_OUT_START, COPY_OUT_END),
)
_ORDER: Final = (*(name for name, _, _ in STAGES), "post", "lost")

Event = dict[str, Any]


def write_trace(
    samples: Samples,
    path: Path,
    *,
    name: str,
    series: Sequence[Series] = (),
    deadline_ns: int | None = None,
    most: int = MOST_FRAMES,
) -> tuple[int, int]:
    """Write a trace of a run; of a long one, the frames around the slowest.

    Args:
        samples: the stamps.
        path: the JSON file.
        name: of what was measured.
        series: sensors, as counters.
        deadline_ns: frames later than it are marked.
        most: frames.

    Returns:
        Index of the first frame in it, and of the one behind its last.

    Raises:
        ResourceError: it cannot be written; nothing is left behind.
    """
    first, end = _window(samples, most)
    rows = _rows(samples, first, end)
    start = int(rows[rows[:, INTENDED] > 0, INTENDED].min(initial=1 << 62)) if len(rows) else 0
    about = {"frames": len(samples), "first": first, "end": end, "clock": "CLOCK_MONOTONIC", "start_ns": start}
    with whole_file(path) as raw, io.TextIOWrapper(raw, encoding="ascii") as text:
        out = _Writer(text)
        out.begin()
        for event in _frames(rows, first, start, name, deadline_ns):
            out.write(event)
        last = int(rows[:, DONE].max(initial=0))
        for event in _counters(series, start, last):
            out.write(event)
        out.end({"name": name, **about})
    return first, end


class _Writer:
    """One event a line, so that a file of any size is written as it comes."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._separator = file, "\n"

    def begin(self) -> None:
        self._file.write('{"displayTimeUnit":"ns","traceEvents":[')

    def write(self, event: Event) -> None:
        self._file.write(self._separator + json.dumps(event, separators=(",", ":")))
        self._separator = ",\n"

    def end(self, other: Event) -> None:
        self._file.write(f'\n],"otherData":{json.dumps(other)}}}\n')


def _window(samples: Samples, most: int) -> tuple[int, int]:
    """All frames; of too many, those around the slowest."""
    if len(samples) <= most:
        return 0, len(samples)
    worst, slowest, at = 0, -1, 0
    for rows in samples.chunks():
        answered = (rows[:, STATUS] & OUTCOME) == ANSWERED
        latency = np.where(answered, rows[:, DONE] - rows[:, INTENDED], -1)
        if int(latency.max(initial=-1)) > slowest:
            slowest, worst = int(latency.max()), at + int(np.argmax(latency))
        at += len(rows)
    first = min(max(0, worst - most // 2), len(samples) - most)
    return first, first + most


def _rows(samples: Samples, first: int, end: int) -> NDArray[np.int64]:
    parts, at = [], 0
    for rows in samples.chunks():
        a, b = max(first - at, 0), min(end - at, len(rows))
        if b > a:
            parts.append(rows[a:b].copy())
        at += len(rows)
    return np.concatenate(parts) if parts else np.empty((0, DONE + 1), np.int64)


class _Slots:
    """The lowest free slot of a stage. Slices come in the order of their starts.

    A slot rests for 2 ns: readers turn microseconds into nanoseconds in floating point.
    """

    def __init__(self) -> None:
        self._busy: list[tuple[int, int]] = []  # end, slot
        self._free: list[int] = []
        self.count = 0

    def take(self, start: int, end: int) -> int:
        while self._busy and self._busy[0][0] <= start:
            heapq.heappush(self._free, heapq.heappop(self._busy)[1])
        if self._free:
            slot = heapq.heappop(self._free)
        else:
            slot, self.count = self.count, self.count + 1
        heapq.heappush(self._busy, (end + 2, slot))
        return slot


def _frames(rows: NDArray[np.int64], first: int, start: int, name: str, deadline_ns: int | None) -> Iterator[Event]:
    answered = np.flatnonzero((rows[:, STATUS] & OUTCOME) == ANSWERED)
    ends: dict[int, list[tuple[int, int, int]]] = {}  # frame → (start, end, track) of its slices
    tracks: list[tuple[int, str]] = []
    for order, (stage, spans) in enumerate(_spans(rows, answered)):
        slots = _Slots()
        for index, begin, end in spans:
            track = order * _TRACKS_PER_STAGE + min(slots.take(begin, end), _TRACKS_PER_STAGE - 2) + 1
            ends.setdefault(index, []).append((begin, end, track))
            yield _slice(stage, track, begin - start, end - begin, _told(rows[index], first + index, deadline_ns))
        tracks += [
            (order * _TRACKS_PER_STAGE + slot + 1, stage if slots.count == 1 else f"{stage} {slot + 1}")
            for slot in range(min(slots.count, _TRACKS_PER_STAGE - 1))
        ]
    yield from _lost(rows, first, start, tracks)
    for index, spans_of in ends.items():
        yield from _arrow(first + index, sorted(spans_of), start)
    yield _meta("process_name", _PROCESS, 0, name=name)
    for track, label in tracks:
        yield _meta("thread_name", _PROCESS, track, name=label)
        yield _meta("thread_sort_index", _PROCESS, track, sort_index=track)


def _spans(rows: NDArray[np.int64], answered: NDArray[np.intp]) -> Iterator[tuple[str, Iterator[tuple[int, int, int]]]]:
    """Stage by stage: (frame, start, end) in the order of starts; stages that were not stamped are left out."""
    taken = rows[answered]
    columns = [(name, taken[:, a], taken[:, b]) for name, a, b in STAGES]
    last = taken[:, TAKEN : COPY_OUT_END + 1].max(axis=1, initial=0)
    for name, begins, ends in (*columns, ("post", last, taken[:, DONE])):
        known = np.flatnonzero((begins > 0) & (ends > 0) & ((ends > begins) | (name not in ("wait", "pre", "post"))))
        order = known[np.argsort(begins[known], kind="stable")]
        yield name, zip(answered[order].tolist(), begins[order].tolist(), ends[order].tolist(), strict=True)


def _told(row: NDArray[np.int64], frame: int, deadline_ns: int | None) -> Event:
    latency = int(row[DONE] - row[INTENDED])
    told: Event = {"frame": frame, "latency_ms": latency / 1e6}
    if row[STATUS] & WARMUP:
        told["warmup"] = True
    if deadline_ns is not None and latency > deadline_ns:
        told["missed"] = True
    return told


def _slice(name: str, track: int, begin: int, length: int, told: Event) -> Event:
    return {
        "ph": "X",
        "name": name,
        "cat": "late" if "missed" in told else "frame",
        "pid": _PROCESS,
        "tid": track,
        "ts": begin / 1e3,
        "dur": length / 1e3,
        "args": told,
    }


def _lost(rows: NDArray[np.int64], first: int, start: int, tracks: list[tuple[int, str]]) -> Iterator[Event]:
    """Frames without an answer, as instants where they were given up."""
    outcome = rows[:, STATUS] & OUTCOME
    lost = np.flatnonzero((outcome != ANSWERED) & (rows[:, INTENDED] > 0))
    track = (len(_ORDER) - 1) * _TRACKS_PER_STAGE + 1
    for index in lost.tolist():
        row = rows[index]
        what = "unfinished"
        if outcome[index] == FAILED:
            what = "failed"
        elif outcome[index] == DROPPED:
            what = f"dropped: {DROP_REASONS[max(0, (int(row[STATUS]) >> REASON_SHIFT) - 1)]}"
        at = max(int(row[DONE]), int(row[INTENDED])) - start
        yield {
            "ph": "i",
            "s": "t",
            "name": what,
            "cat": "lost",
            "pid": _PROCESS,
            "tid": track,
            "ts": at / 1e3,
            "args": {"frame": first + index},
        }
    if len(lost):
        tracks.append((track, "never answered"))


def _arrow(frame: int, spans: Sequence[tuple[int, int, int]], start: int) -> Iterator[Event]:
    """From a frame's first slice to its last; both ends bind to the slice that encloses them."""
    long = [span for span in spans if span[1] > span[0]]
    if len(long) < 2:
        return
    (begin, _, track), (last, _, end_track) = long[0], long[-1]
    both = {"cat": "flow", "name": "arrival to result", "pid": _PROCESS, "id": frame}
    yield {"ph": "s", **both, "tid": track, "ts": (begin - start) / 1e3}
    yield {"ph": "f", "bp": "e", **both, "tid": end_track, "ts": (last - start) / 1e3}


def _counters(series: Sequence[Series], start: int, last: int) -> Iterator[Event]:
    for each in series:
        name, unit, scale = KINDS[each.kind]
        inside = (each.times_ns >= start) & (each.times_ns <= last)
        for at, value in zip(each.times_ns[inside].tolist(), each.values[inside].tolist(), strict=True):
            yield {
                "ph": "C",
                "name": f"{name.lower()} {each.name}, {unit}",
                "pid": _SENSORS,
                "ts": (at - start) / 1e3,
                "args": {"value": value / scale},
            }
    if series:
        yield _meta("process_name", _SENSORS, 0, name="sensors")


def _meta(what: str, process: int, track: int, **args: Any) -> Event:
    return {"ph": "M", "name": what, "pid": process, "tid": track, "args": args}
