"""Ends a run once it is steady: asked at the edge of each window, while the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgemed.profile.beside import Beside, junction_of
from edgemed.profile.stamps import ANSWERED, DONE, INTENDED, OUTCOME, STATUS, StampFile
from edgemed.profile.steady import SteadyRule, Window, is_steady, mean_between, summarize


def until_steady(rule: SteadyRule, beside: Sequence[Beside] = ()) -> Callable[[StampFile, int, int], bool]:
    """What `Plan.until` takes: whether the last windows were steady together."""
    windows: list[Window] = []
    first_ns: list[int] = []

    def steady(file: StampFile, first: int, end: int) -> bool:
        rows = file.read(first, end)
        if not len(rows):
            return False
        if not first_ns:
            first_ns.append(int(rows[0, INTENDED]))
        start = int(rows[0, INTENDED])
        rows = rows[(rows[:, STATUS] & OUTCOME) == ANSWERED]
        latency = (rows[:, DONE] - rows[:, INTENDED]).astype(np.int64)
        junction = junction_of(beside)
        temperature = mean_between(junction, start, start + rule.window_ns)
        windows.append(summarize(start - first_ns[0], latency, temperature))
        return is_steady(windows[-rule.windows :], rule, sensor=junction is not None)[0]

    return steady
