"""Whether what comes in, and what is answered, changes over the months: numbers without names, kept beside the journal.

The first tasks of a bundle at this bedside are the reference; after that, every window of tasks is held against them
by the two-sample test of Kolmogorov and Smirnov, one test for each number that is watched. The level is shared among
them (Bonferroni), so a window of inputs like the reference raises a false alarm with a chance of `LEVEL` at most, where
tasks are independent of each other. Images of one patient in a row are not; tasks, not frames, are counted for that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from edgemed.base.errors import EdgemedError
from edgemed.base.store import write_atomic

REFERENCE: Final = 300
WINDOW: Final = 100
LEVEL: Final = 0.001
MOST_WATCHED: Final = 16


@dataclass
class Drift:
    """Of one bundle.

    Attributes:
        digest: of the bundle; another one begins anew.
        reference: the first values of each number.
        window: the last ones, fewer than `WINDOW`.
        shifted: what differed in the last whole window.
        windows: whole ones so far.
    """

    digest: str
    reference: dict[str, list[float]] = field(default_factory=dict)
    window: dict[str, list[float]] = field(default_factory=dict)
    shifted: tuple[str, ...] = ()
    windows: int = 0

    def add(self, values: Mapping[str, float]) -> bool:
        """Count one task; whether a window was completed by it."""
        if self._count(self.reference) < REFERENCE:
            _append(self.reference, values)
            return False
        _append(self.window, values)
        if self._count(self.window) < WINDOW:
            return False
        level = LEVEL / max(1, len(self.reference))
        self.shifted = tuple(
            name for name, before in self.reference.items() if differ(before, self.window.get(name, []), level)
        )
        self.window, self.windows = {}, self.windows + 1
        return True

    def to_json(self) -> str:
        """As it is kept."""
        return json.dumps({"schema": "edgemed/drift/1", **vars(self)})

    @staticmethod
    def _count(values: Mapping[str, Sequence[float]]) -> int:
        return max(map(len, values.values()), default=0)

    @classmethod
    def load(cls, path: Path, digest: str) -> Drift:
        """What was kept of this bundle; anew where there is nothing, or nothing of use."""
        try:
            kept = json.loads(path.read_text())
            if kept.pop("schema") == "edgemed/drift/1" and kept["digest"] == digest:
                return cls(**{**kept, "shifted": tuple(kept["shifted"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return cls(digest)

    def keep(self, path: Path) -> None:
        """Write it; it is not so dear that anything should fail for it."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(path, self.to_json().encode())
        except (OSError, EdgemedError):
            return


def differ(one: Sequence[float], other: Sequence[float], level: float) -> bool:
    """Whether two samples are of different distributions, wrongly said with a chance of `level` at most.

    The critical value is that of large samples; ties, of which there are many in answers of 0 and 1, only make it
    more careful.
    """
    n, m = len(one), len(other)
    if n < 20 or m < 20:
        return False
    return distance(one, other) > math.sqrt(-math.log(level / 2) / 2 * (n + m) / (n * m))


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Greatest difference between the two shares of what lies at or below a value."""
    first, second = np.sort(np.asarray(one)), np.sort(np.asarray(other))
    where = np.concatenate([first, second])
    shares = (np.searchsorted(each, where, side="right") / len(each) for each in (first, second))
    return float(np.max(np.abs(next(shares) - next(shares))))


def _append(kept: dict[str, list[float]], values: Mapping[str, float]) -> None:
    for name, value in values.items():
        if math.isfinite(value) and (name in kept or len(kept) < MOST_WATCHED):
            kept.setdefault(name, []).append(float(f"{value:.6g}"))
