"""A run as pictures need it: a thousand points of any number of frames, with no spike lost.

Time is cut into slices of equal length; of each, the smallest, the median and the largest latency are kept, so what a
frame in a million did is still drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemed.profile.stamps import ANSWERED, DONE, INTENDED, OUTCOME, STATUS, WARMUP
from edgemed.profile.stats import median_of

SLICES: Final = 720
BINS: Final = 160
_TAIL_POINTS: Final = 400

Array = NDArray[Any]


class Stamps(Protocol):
    """Rows of `stamps.COLUMNS`, in chunks: of a file, or in memory."""

    def __len__(self) -> int: ...

    def chunks(self) -> Iterator[NDArray[np.int64]]: ...


@dataclass(frozen=True)
class Overview:
    """What is drawn of a run.

    Attributes:
        start_ns: intended arrival of the first frame.
        warm_ns: when the warm-up was over, since then; 0 without one.
        time_ns: (k,) middle of each slice, since the start.
        low, median, high: (k,) latencies of the answers in it, ns.
        lost_ns: (≤ `SLICES`,) slices with frames that were never answered.
        edges, counts: (bins + 1,), (bins,) histogram of all measured answers, on a logarithmic axis.
        tail_ns, tail_share: (t,) latencies in rising order, and the share of answers above each.
        answered: how many were measured.
        slowest_ns: when the slowest frame was meant to arrive, since the start.
    """

    start_ns: int
    warm_ns: int
    time_ns: Array
    low: Array
    median: Array
    high: Array
    lost_ns: Array
    edges: Array
    counts: Array
    tail_ns: Array
    tail_share: Array
    answered: int
    slowest_ns: int


def overview(samples: Stamps, slices: int = SLICES, bins: int = BINS) -> Overview | None:
    """Look at a whole run; `None` where nothing was answered. Memory is that of one column, and of one slice.

    Args:
        samples: the stamps.
        slices: of time.
        bins: of the histogram.
    """
    start, end = _ends(samples)
    if end is None:
        return None
    cuts = _Slices(start, max(1, end - start), slices)
    for rows in samples.chunks():
        cuts.add(rows)
    cuts.finish()
    if not cuts.stretches:
        return None
    time, low, median, high = (np.array(column) for column in zip(*cuts.stretches, strict=True))
    kept = _latencies(samples)
    kept.sort()
    edges, counts = _histogram(kept, bins)
    ranks = _tail_ranks(len(kept))
    return Overview(
        start_ns=start,
        warm_ns=cuts.warm_ns,
        time_ns=time,
        low=low,
        median=median,
        high=high,
        lost_ns=np.array(sorted(cuts.lost)),
        edges=edges,
        counts=counts,
        tail_ns=kept[ranks],
        tail_share=(len(kept) - ranks) / len(kept),
        answered=len(kept),
        slowest_ns=cuts.slowest[1],
    )


def _ends(samples: Stamps) -> tuple[int, int | None]:
    """The first and the last intended arrival; None where no frame arrived."""
    first, last = 1 << 62, -1
    for rows in samples.chunks():
        arrived = rows[rows[:, INTENDED] > 0, INTENDED]
        if len(arrived):
            first, last = min(first, int(arrived.min())), max(last, int(arrived.max()))
    return first, None if last < 0 else last


def _latencies(samples: Stamps) -> Array:
    """Latencies of all measured answers; of all answers, where everything was warm-up."""
    kept = np.empty(len(samples), np.int64)
    for warm in (0, WARMUP):
        n = 0
        for rows in samples.chunks():
            chosen = rows[(rows[:, STATUS] & (OUTCOME | WARMUP)) == ANSWERED | warm]
            kept[n : n + len(chosen)] = chosen[:, DONE] - chosen[:, INTENDED]
            n += len(chosen)
        if n:
            return kept[:n]
    return kept[:0]


class _Slices:
    """Cuts rows into slices of time as they come. Arrivals rise, so a slice is a stretch of rows."""

    def __init__(self, start: int, span: int, slices: int) -> None:
        self._start, self._width, self._last = start, span / slices, slices - 1
        self._slice = -1
        self._pending: list[Array] = []  # (k, 2): time since the start, latency
        self.stretches: list[tuple[float, int, int, int]] = []  # time, smallest, median, largest
        self.lost: set[float] = set()
        self.warm_ns = 0
        self.slowest = (-1, 0)  # latency, time
        self._was_warm = False

    def add(self, rows: Array) -> None:
        rows = rows[rows[:, INTENDED] > 0]
        if not len(rows):
            return
        since = rows[:, INTENDED] - self._start
        where = np.minimum((since / self._width).astype(np.int64), self._last)
        answered = (rows[:, STATUS] & OUTCOME) == ANSWERED
        self.lost.update(((np.unique(where[~answered]) + 0.5) * self._width).tolist())
        self._warm(rows, since)
        points = np.column_stack((since, rows[:, DONE] - rows[:, INTENDED]))[answered]
        if not len(points):
            return
        worst = int(np.argmax(points[:, 1]))
        self.slowest = max(self.slowest, (int(points[worst, 1]), int(points[worst, 0])), key=lambda pair: pair[0])
        numbers = where[answered]
        for part in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers)) + 1):
            if numbers[part[0]] != self._slice:
                self.finish()
                self._slice = int(numbers[part[0]])
            self._pending.append(points[part])

    def _warm(self, rows: Array, since: Array) -> None:
        """Where the warm-up ends: at the first measured arrival behind it."""
        warm = (rows[:, STATUS] & WARMUP) != 0
        if warm.any():
            self._was_warm = True
        if self._was_warm and not self.warm_ns and not warm.all():
            self.warm_ns = int(since[np.argmin(warm)])

    def finish(self) -> None:
        """Close the slice that is open."""
        if not self._pending:
            return
        points = np.concatenate(self._pending)
        time = float(points[0, 0]) if len(points) == 1 else (self._slice + 0.5) * self._width
        latency = points[:, 1]
        self.stretches.append((time, int(latency.min()), median_of(latency), int(latency.max())))
        self._pending = []


def _histogram(ordered: Array, bins: int) -> tuple[Array, Array]:
    low, high = max(1, int(ordered[0])), max(2, int(ordered[-1]))
    if high < low * 1.02:  # one value, or nearly: a width that can be seen
        low, high = int(low * 0.98), int(high * 1.02) + 1
    edges = np.geomspace(low, high, bins + 1)
    edges[0], edges[-1] = min(edges[0], float(ordered[0])), max(edges[-1], float(ordered[-1]))
    cuts = np.searchsorted(ordered, edges[1:-1], side="left")
    return edges, np.diff(np.concatenate(([0], cuts, [len(ordered)])))


def _tail_ranks(n: int) -> Array:
    """Ranks from 0 that are dense towards the largest: each of the last ones is there."""
    far = np.unique(np.geomspace(1, n, _TAIL_POINTS).astype(np.int64))
    ranks: Array = (n - far)[::-1]
    return ranks
