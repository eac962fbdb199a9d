"""A run as pictures need it: a thousand points of any number of frames, with no spike lost.

Time is cut into slices of equal length; of each, the smallest, the median and the largest latency are kept, so what a
frame in a million did is still drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.profile.stamps import ANSWERED, DONE, INTENDED, OUTCOME, STATUS, WARMUP, Samples

SLICES: Final = 720
BINS: Final = 160
_TAIL_POINTS: Final = 400

Array = NDArray[Any]


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


def overview(samples: Samples, slices: int = SLICES, bins: int = BINS) -> Overview | None:
    """Look at a whole run; `None` where nothing was answered. Memory is that of two columns, once sorted.

    Args:
        samples: the stamps.
        slices: of time.
        bins: of the histogram.
    """
    intended, latency, warm = _columns(samples)
    answered = latency >= 0
    if not answered.any():
        return None
    start, end = int(intended[0]), int(intended.max())
    edges = np.linspace(0, max(1, end - start), slices + 1)
    since = intended - start
    lost = np.unique(np.searchsorted(edges, since[~answered], side="right") - 1)
    middle = (edges[:-1] + edges[1:]) / 2
    time, low, median, high = _envelope(since[answered], latency[answered], edges)
    slowest = int(since[np.argmax(latency)])
    kept = np.sort(latency[answered & ~warm]) if (answered & ~warm).any() else np.sort(latency[answered])
    histogram = _histogram(kept, bins)
    ranks = _tail_ranks(len(kept))
    return Overview(
        start_ns=start,
        warm_ns=int(since[~warm][0]) if warm.any() and not warm.all() else 0,
        time_ns=time,
        low=low,
        median=median,
        high=high,
        lost_ns=middle[np.clip(lost, 0, slices - 1)],
        edges=histogram[0],
        counts=histogram[1],
        tail_ns=kept[ranks],
        tail_share=(len(kept) - ranks) / len(kept),
        answered=len(kept),
        slowest_ns=slowest,
    )


def _columns(samples: Samples) -> tuple[Array, Array, Array]:
    """Intended arrival, latency (-1: never answered) and whether it was warm-up, of all frames that arrived."""
    intended, latency = np.empty(len(samples), np.int64), np.empty(len(samples), np.int64)
    warm, n = np.empty(len(samples), bool), 0
    for chunk in samples.chunks():
        rows = chunk[chunk[:, INTENDED] > 0]
        part = slice(n, n + len(rows))
        intended[part] = rows[:, INTENDED]
        answered = (rows[:, STATUS] & OUTCOME) == ANSWERED
        latency[part] = np.where(answered, rows[:, DONE] - rows[:, INTENDED], -1)
        warm[part] = (rows[:, STATUS] & WARMUP) != 0
        n += len(rows)
    return intended[:n], latency[:n], warm[:n]


def _envelope(since: Array, latency: Array, edges: Array) -> tuple[Array, Array, Array, Array]:
    """Extremes and medians of each slice that holds answers; arrivals rise, so slices are stretches of them."""
    bounds = np.searchsorted(since, edges[1:-1], side="left")
    starts = np.concatenate(([0], bounds))
    ends = np.concatenate((bounds, [len(since)]))
    used = ends > starts
    starts, ends = starts[used], ends[used]
    low, high = np.minimum.reduceat(latency, starts), np.maximum.reduceat(latency, starts)
    medians = np.array(
        [np.partition(latency[a:b], (b - a - 1) // 2)[(b - a - 1) // 2] for a, b in zip(starts, ends, strict=True)]
    )
    middle = ((edges[:-1] + edges[1:]) / 2)[used]
    alone = ends - starts == 1
    return np.where(alone, since[starts], middle), low, medians, high


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
