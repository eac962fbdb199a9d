"""Threads that must keep going, and the proof that they do: each beats, and who watches them sees when one does not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edgemed.base.errors import EdgemedError

log = logging.getLogger(__name__)

_BACKOFF_NS = 1_000_000_000
_BACKOFF_CAP_NS = 30_000_000_000


@dataclass
class Beat:
    """The pulse of one loop.

    Attributes:
        name: of the loop.
        limit_ns: silence after which it is taken to hang.
        last_ns: `time.monotonic_ns` of its last beat.
        failures: times it ended by an exception and was started again.
        since_ns: `time.monotonic_ns` of the last such time, or of its start.
    """

    name: str
    limit_ns: int
    stopping: threading.Event
    wake: threading.Event = field(default_factory=threading.Event)
    last_ns: int = field(default_factory=time.monotonic_ns)
    failures: int = 0
    since_ns: int = field(default_factory=time.monotonic_ns)

    def __call__(self) -> None:
        """Show progress; to be called between steps that may take long."""
        self.last_ns = time.monotonic_ns()

    def wait(self, seconds: float) -> bool:
        """Sleep, beating, until the time is over, somebody wakes it, or the end.

        Returns:
            Whether to go on.
        """
        end_ns = time.monotonic_ns() + int(seconds * 1e9)
        most = self.limit_ns / 4e9
        while not self.stopping.is_set():
            self()
            left = (end_ns - time.monotonic_ns()) / 1e9
            if self.wake.wait(max(0.0, min(left, most))):
                self.wake.clear()
                break
            if left <= most:
                break
        self()
        return not self.stopping.is_set()

    @property
    def silent_ns(self) -> int:
        return time.monotonic_ns() - self.last_ns

    @property
    def beats(self) -> bool:
        return self.silent_ns <= self.limit_ns


Body = Callable[[Beat], None]
OnFailure = Callable[[str, Exception], None]


class Loops:
    """All loops of the daemon.

    A loop that ends by an exception is started again, later each time: the daemon goes on without help. What happened
    is told to `on_failure`, which raises the alarm.
    """

    def __init__(self, on_failure: OnFailure | None = None) -> None:
        self._on_failure = on_failure
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.beats: dict[str, Beat] = {}

    def start(self, name: str, body: Body, *, limit_ns: int = 10_000_000_000) -> Beat:
        """Run `body(beat)` in a thread of its own until the end. It returns when `beat.wait` says so.

        Args:
            name: of thread and beat.
            body: the loop.
            limit_ns: the longest that one step of it may take.
        """
        beat = Beat(name, limit_ns, self._stopping)
        thread = threading.Thread(target=self._run, args=(beat, body), name=name, daemon=True)
        thread.start()  # where there can be no more threads, there is no such loop: who wants it tries again
        self._threads.append(thread)
        self.beats[name] = beat
        return beat

    def wake(self, name: str) -> None:
        """Let a loop that waits look again now."""
        if name in self.beats:
            self.beats[name].wake.set()

    @property
    def silent(self) -> list[str]:
        """Loops that do not beat."""
        return [name for name, beat in list(self.beats.items()) if not beat.beats]

    def stop(self, timeout_ns: int) -> list[str]:
        """Ask every loop to end, and wait for them.

        Returns:
            Names of those that have not ended in time.
        """
        self._stopping.set()
        for beat in list(self.beats.values()):
            beat.wake.set()
        end_ns = time.monotonic_ns() + timeout_ns
        for thread in self._threads:
            thread.join(max(0.0, (end_ns - time.monotonic_ns()) / 1e9))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _tell(self, name: str, error: Exception) -> None:
        """Whatever becomes of the alarm, the loop goes on."""
        try:
            if self._on_failure is not None:
                self._on_failure(name, error)
        except Exception:
            log.exception("that loop %s failed could not be told", name)

    def _run(self, beat: Beat, body: Body) -> None:
        pause_ns = _BACKOFF_NS
        while not self._stopping.is_set():
            began_ns = time.monotonic_ns()
            try:
                body(beat)
                return
            except Exception as error:
                beat.failures, beat.since_ns = beat.failures + 1, time.monotonic_ns()
                known = isinstance(error, EdgemedError)
                log.error("loop %s failed: %s", beat.name, type(error).__name__, exc_info=not known)
                self._tell(beat.name, error)
            if time.monotonic_ns() - began_ns > _BACKOFF_CAP_NS:
                pause_ns = _BACKOFF_NS
            beat.wait(pause_ns / 1e9)
            pause_ns = min(2 * pause_ns, _BACKOFF_CAP_NS)
