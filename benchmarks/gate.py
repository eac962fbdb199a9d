"""Readiness that means right answers: faults under load, how soon they are found, and what is answered meanwhile.

A model in a hosted worker fails on demand in ways that real ones do; two threads ask all the time, and every answer is
compared with the truth to the last bit. `drift` is the worst: wrong numbers and no other sign, which only the next
golden inference can find; what was answered before that is counted, too.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgemed.base.errors import EdgemedError
from edgemed.runtime.contained.requests import Reply
from edgemed.serve.models.agreement import upper_bound
from edgemed.serve.models.gate import Gate
from tests.runtime.contained.faulty import Control
from tests.runtime.contained.kit import frame, right
from tests.serve import kit
from tests.serve.models.kit import WAIT_S, Hosted, faulty_worker, hosting, wait_for, write_faulty

FAULTS = ("kill", "segv", "sticky", "exit", "rubbish", "stop", "drift")
TIMES = 15
EVERY_MS = 200
LOADS: list[Load] = []


@dataclass
class Seen:
    """Of one kind of fault."""

    found_ms: list[float] = field(default_factory=list)
    back_ms: list[float] = field(default_factory=list)
    wrong_before: int = 0
    wrong_after: int = 0
    answers: int = 0
    failed: int = 0


class Load:
    """Two threads that ask all the time; answers are judged in the thread that watches the worker."""

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted
        self._stop = threading.Event()
        self.seen = Seen()
        self.found = False  # the fault is known
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(2)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _ask(self, number: int) -> None:
        seed = number * 1_000_000
        while not self._stop.is_set():
            seed += 1
            feeds = frame(seed)
            future = self._hosted.services.models.get("chest").submit(feeds)
            future.add_done_callback(lambda done, feeds=feeds: self._judge(feeds, done))
            try:
                future.result(WAIT_S)
            except EdgemedError:
                time.sleep(0.005)

    def _judge(self, feeds: dict[str, Any], done: Future[Reply]) -> None:
        if done.exception() is not None:
            self.seen.failed += 1
            return
        self.seen.answers += 1
        if not right(feeds, done.result().outputs):
            if self.found:
                self.seen.wrong_after += 1
            else:
                self.seen.wrong_before += 1


def campaign(hosted: Hosted, control: Control, fault: str, times: int) -> Seen:
    """One kind of fault, again and again."""
    readiness = hosted.services.readiness
    wait_for(lambda: readiness.ready)
    load = Load(hosted)
    LOADS.append(load)
    try:
        for _ in range(times):
            wait_for(lambda: readiness.ready)
            time.sleep(0.05)
            load.found = False
            told_ns = time.monotonic_ns()
            control.tell(fault)
            wait_for(lambda: not readiness.ready)
            found_ns = time.monotonic_ns()
            wait_for(lambda: readiness.ready)
            load.seen.found_ms.append((found_ns - told_ns) / 1e6)
            load.seen.back_ms.append((time.monotonic_ns() - found_ns) / 1e6)
    finally:
        load.end()
    return load.seen


def main(times: int = TIMES) -> None:
    """Print the table and the line."""
    logging.disable(logging.CRITICAL)
    patch = pytest.MonkeyPatch()
    with tempfile.TemporaryDirectory(prefix="edgemed-gate") as folder, patch.context() as patched:
        root = Path(folder)
        control = faulty_worker(patched, root / "control", rebuilds=1_000_000)
        model = {"name": "chest", "bundle": write_faulty(root / "faulty.edgemed")}
        config = kit.bedside(root, models=[model], golden={"every": f"{EVERY_MS}ms", "believed": "10s"})
        rows: dict[str, Seen] = {}
        with hosting(config) as hosted:
            _tell_when_found(patched)
            for fault in FAULTS:
                rows[fault] = campaign(hosted, control, fault, times)
    _print(rows)


def _tell_when_found(patched: pytest.MonkeyPatch) -> None:
    """A wrong verdict is known in the very thread that hands out answers: their order is exact."""
    record: Callable[..., None] = Gate.record

    def recorded(self: Gate, result: Any, *others: Any) -> None:
        if not result.passed:
            for load in LOADS:
                load.found = True
        record(self, result, *others)

    patched.setattr(Gate, "record", recorded)


def _print(rows: dict[str, Seen]) -> None:
    heads = ("times", "found ms", "max", "ready ms", "max", "answers")
    print(f"{'fault':8} {' '.join(f'{head:>8}' for head in heads)} {'wrong after':>11}")
    for fault, seen in rows.items():
        found, back = sorted(seen.found_ms), sorted(seen.back_ms)
        middle = len(found) // 2
        print(
            f"{fault:8} {len(found):8} {found[middle]:8.0f} {found[-1]:8.0f} {back[middle]:8.0f} {back[-1]:8.0f}"
            f" {seen.answers:8} {seen.wrong_after:11}"
        )
    print(f"golden inferences every {EVERY_MS} ms; answers that were wrong before a drift was found: ", end="")
    print(rows["drift"].wrong_before)
    wrong, answers = (sum(getattr(seen, name) for seen in rows.values()) for name in ("wrong_after", "answers"))
    print(f"wrong after it was found: {wrong} of {answers} (at most {upper_bound(wrong, answers):.2%} at 95 %)")
    print(
        "BENCH "
        + json.dumps(
            {
                "name": "gate",
                "faults": sum(len(seen.found_ms) for seen in rows.values()),
                "answers": sum(seen.answers for seen in rows.values()),
                "wrong_after_found": sum(seen.wrong_after for seen in rows.values()),
                "wrong_without_drift": sum(seen.wrong_before for fault, seen in rows.items() if fault != "drift"),
                "found_ms_max": round(max(max(seen.found_ms) for seen in rows.values())),
                "ready_ms_max": round(max(max(seen.back_ms) for seen in rows.values())),
            }
        )
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
