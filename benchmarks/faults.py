"""A campaign of faults: contained workers are broken in every way at any moment, under load, and every request is held
to its account: `python -m benchmarks.faults [FAULTS]`.

Each bench is a contained model with several threads that ask it without pause, and one that breaks it. The model's
answer is computed a second time here and compared bit for bit; after the first sign of its fault a broken worker's
answers are wrong on purpose. A request that does not end within a minute of the end counts as lost.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError
from edgemed.runtime.contained.requests import Reply
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.runtime.contained.states import State
from edgemed.runtime.contained.supervisor import Supervisor
from tests.runtime.contained.faulty import AT_INFER, AT_LOAD, FAULTS, LOADS, Control, answer
from tests.runtime.contained.kit import QUICK, worker

BENCHES, ASKERS, SLOTS = 2, 3, 3
SHAPE = (1, 16)
PENDING = 8  # requests of one asker under way
END_S = 60
MS = 1_000_000
LIMITS = replace(QUICK, hang_ns=250 * MS, rebuilds=10**9, waiting=SLOTS * ASKERS * PENDING)
SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE)
SOUND = ("exception", "memory", "python_memory", "missing_output", "misshapen", "input", "loud")
BREAKING = tuple(fault for fault in FAULTS if fault not in (*SOUND, "drift", "close"))  # its second is another's twenty
LOADING = tuple(fault for fault in LOADS if fault not in ("slow", "refused", "lie", "too_large"))


class Tally:
    """What became of the requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.backends: Counter[str] = Counter()

    def ended(self, x: NDArray[Any], future: Future[Reply]) -> None:
        """Judge a request that has ended."""
        error = future.exception()
        with self._lock:
            if isinstance(error, EdgemedError):
                self.counts["failed"] += 1
                self.reasons[type(error).__name__] += 1
            elif error is not None:
                self.counts["bugs"] += 1
                self.reasons[repr(error)] += 1
            else:
                reply = future.result()
                right = reply.outputs.keys() == {"y"} and np.array_equal(reply.outputs["y"], answer(x))
                self.counts["answered" if right else "wrong"] += 1
                self.counts["retried"] += reply.tries > 1
                self.backends[reply.info.backend] += 1

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number


class Bench:
    """One contained model, broken again and again.

    Args:
        folder: for the file that tells the worker to fail.
        seed: of everything that is random.
        fallback: whether another worker answers while the first is lost.
        tally: where requests are counted.
    """

    def __init__(self, folder: Path, seed: int, fallback: bool, tally: Tally) -> None:
        self._control_path = folder / f"control-{seed}"
        self._random = random.Random(seed)
        self._seed = seed
        self.runner = ContainedRunner(
            worker(self._control_path, work_us=100, lane=not fallback),  # driven as a lane, or as a Runner
            fallback=worker(work_us=300, backend="fallback") if fallback else None,
            slots=SLOTS,
            limits=LIMITS,
        )
        self._control = Control(self._control_path)
        self._tally = tally
        self._stop = threading.Event()
        self._pending: list[Future[Reply]] = []
        self.kinds: Counter[str] = Counter()

    @property
    def model(self) -> Supervisor:
        return self.runner.model

    # -- asking ----------------------------------------------------------------------------------------------------

    def ask(self, number: int) -> None:
        """One asker's life."""
        chance = random.Random(self._seed * 100 + number)
        pending: list[Future[Reply]] = []
        serial = 0
        while not self._stop.is_set():
            serial += 1
            x = np.arange(16, dtype=np.float32).reshape(SHAPE) + np.float32(serial + number * 500_000)
            timeout_ns = chance.choice((None, None, None, 20 * MS, 500 * MS))
            self._tally.count("asked")
            future = self.runner.submit({"x": x}, timeout_ns=timeout_ns, retries=chance.choice((0, 1, 1, 2)))
            future.add_done_callback(lambda done, x=x: self._tally.ended(x, done))  # type: ignore[misc]
            pending = [one for one in [*pending, future] if not one.done()]
            if len(pending) >= chance.randint(1, PENDING):
                wait(pending[:1], END_S)
        self._pending += pending

    # -- breaking --------------------------------------------------------------------------------------------------

    def break_once(self) -> None:
        """Break it, and wait until that shows."""
        kind = self._random.choices(("infer", "sound", "load", "signal", "check"), (10, 3, 4, 6, 2))[0]
        time.sleep(self._random.uniform(0, 0.01))
        how: dict[str, Callable[[], str]] = {
            "infer": self._in_inference,
            "sound": self._soundly,
            "load": self._while_loading,
            "signal": self._from_outside,
            "check": self._while_checking,
        }
        self.kinds[how[kind]()] += 1
        if self._random.random() < 0.5:
            self._until(lambda: self.model.health.state is State.READY)
            time.sleep(self._random.uniform(0, 0.05))

    def _in_inference(self) -> str:
        fault = self._random.choice(BREAKING)
        self._lose(lambda: self._control.tell(fault))
        return fault

    def _soundly(self) -> str:
        fault = self._random.choice(SOUND)
        self._control.tell(fault)
        self._until(lambda: not self._control.words[AT_INFER])
        return fault

    def _while_loading(self) -> str:
        fault = self._random.choice(LOADING)
        self._control.tell(fault)
        self._lose(self._kill)
        self._until(lambda: not self._control.words[AT_LOAD])
        return fault

    def _from_outside(self) -> str:
        number = self._random.choice(SIGNALS)
        self._lose(lambda: self._kill(number))
        return number.name

    def _while_checking(self) -> str:
        self.model.check()
        time.sleep(self._random.uniform(0, 0.001))
        self._lose(self._kill)
        return "SIGKILL while checking"

    def _kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """A signal to whatever worker there is now, loading or not."""
        pid = self.model.health.pid
        while pid is None and not self._stop.is_set():
            time.sleep(0.001)
            pid = self.model.health.pid
        if pid is not None:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return

    def _lose(self, act: Callable[[], None]) -> None:
        generation = self.model.health.generation
        act()
        self._until(lambda: self.model.health.generation > generation)

    def _until(self, there: Callable[[], bool]) -> None:
        by_ns = time.monotonic_ns() + END_S * 1000 * MS
        while not there():
            if time.monotonic_ns() > by_ns:
                raise RuntimeError(f"a fault did not show in {END_S} s: {self.runner.status}")
            time.sleep(0.001)

    # -- life ------------------------------------------------------------------------------------------------------

    def live(self, turns: Callable[[], bool]) -> None:
        """Break it while `turns` says so; then let every request end."""
        with self.runner:
            askers = [threading.Thread(target=self.ask, args=(number,), daemon=True) for number in range(ASKERS)]
            for asker in askers:
                asker.start()
            try:
                while turns():
                    self.break_once()
            finally:
                self._stop.set()
                for asker in askers:
                    asker.join(END_S)
            _, lost = wait(self._pending, END_S)
            self._tally.count("lost", len(lost) + sum(asker.is_alive() for asker in askers))
            self._tally.count("rebuilds", self.model.health.rebuilds)


def fault_campaign(
    faults: int = 1000, *, benches: int = BENCHES, seed: int = 0, progress: bool = True
) -> dict[str, Any]:
    """Run a campaign.

    Args:
        faults: how many.
        benches: contained models that are broken side by side; every second one has a fallback.
        seed: of everything that is random; the interleaving of processes stays what it is.
        progress: draw a bar on standard error, if that is a terminal.

    Returns:
        Counts: `faults`, `asked`, `answered`, `failed` (with a reason), `retried`, `wrong`, `lost`, `rebuilds`,
        `left_processes`, `seconds`; and `kinds`, `reasons`, `backends`.
    """
    begun_ns = time.monotonic_ns()
    tally, lock, done = Tally(), threading.Lock(), 0
    errors: list[BaseException] = []
    progress = progress and sys.stderr.isatty()
    before = _children()

    def turns() -> bool:
        nonlocal done
        with lock:
            if done >= faults or errors:
                return False
            done += 1
            if progress:
                _draw(done, faults, tally)
            return True

    def live(bench: Bench) -> None:
        try:
            bench.live(turns)
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)

    with tempfile.TemporaryDirectory() as folder:
        all_benches = [Bench(Path(folder), seed * 1000 + n, n % 2 == 1, tally) for n in range(benches)]
        threads = [threading.Thread(target=live, args=(bench,)) for bench in all_benches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if progress:
        print(file=sys.stderr)
    if errors:
        raise errors[0]
    counts = tally.counts
    ended = counts["answered"] + counts["failed"] + counts["wrong"] + counts["bugs"] + counts["lost"]
    return {
        "faults": faults,
        **{key: counts[key] for key in ("asked", "answered", "failed", "retried", "wrong", "bugs", "lost", "rebuilds")},
        "unaccounted": counts["asked"] - ended,
        "left_processes": len(_children() - before),
        "seconds": round((time.monotonic_ns() - begun_ns) / 1e9, 1),
        "kinds": dict(sum((bench.kinds for bench in all_benches), Counter())),
        "reasons": dict(tally.reasons),
        "backends": dict(tally.backends),
    }


def _children() -> set[int]:
    """Processes whose parent this is; zombies too."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    tasks = Path("/proc/self/task").iterdir() if listed.exists() else []
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def _draw(done: int, faults: int, tally: Tally) -> None:
    filled = 30 * done // faults
    answered, failed, wrong = (tally.counts[key] for key in ("answered", "failed", "wrong"))
    bar = "█" * filled + "░" * (30 - filled)
    print(
        f"\rfaults {bar} {done}/{faults}  {answered} answered  {failed} failed  {wrong} wrong ", end="", file=sys.stderr
    )


def main() -> None:
    """Print what came out."""
    result = fault_campaign(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    print(json.dumps(result, indent=2))
    sys.exit(bool(result["wrong"] or result["lost"] or result["bugs"] or result["unaccounted"]))


if __name__ == "__main__":
    main()
