"""Cost of a command and all that it starts: wall time, processor time, peak memory."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_INTERVAL_S = 0.05
_PARENT, _RESIDENT = 1, 21  # fields of /proc/PID/stat, counted from the one after the name
_PAGE = os.sysconf("SC_PAGE_SIZE")


class CommandError(Exception):
    """A command failed; the last line that it wrote."""


@dataclass(frozen=True)
class Cost:
    """What a command took.

    `peak_bytes` is resident memory summed over its processes, pages that they share counted for each; `largest_bytes`
    that of the largest among them.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    largest_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        """One after the other."""
        wall, cpu = self.wall_s + other.wall_s, self.cpu_s + other.cpu_s
        largest = max(self.largest_bytes, other.largest_bytes)
        return Cost(wall, cpu, max(self.peak_bytes, other.peak_bytes), largest)


def measure(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command in `folder`.

    Raises:
        CommandError: it failed.
    """
    log = folder / "command.log"
    start_ns = time.monotonic_ns()
    with log.open("wb") as sink:
        env = {**os.environ, **(environment or {})}
        process = subprocess.Popen(list(map(str, command)), cwd=folder, env=env, stdout=sink, stderr=sink)
    watch = _Watch(process.pid)
    watch.start()
    _, status, usage = os.wait4(process.pid, 0)  # with all children that were waited for
    wall_s = (time.monotonic_ns() - start_ns) / 1e9
    watch.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise CommandError(f"status {process.returncode}: {lines[-1][:200] if lines else 'no output'}")
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, watch.peak, usage.ru_maxrss * 1024)


class _Watch(threading.Thread):
    """Looks at the memory of a process and its descendants until it is told to stop."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._ended = threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            self.peak = max(self.peak, _resident(self._root))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _resident(root: int) -> int:
    children: dict[int, list[int]] = defaultdict(list)
    resident: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children[int(fields[_PARENT])].append(int(entry.name))
        resident[int(entry.name)] = int(fields[_RESIDENT]) * _PAGE
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        total += resident.get(process, 0)
        waiting += children[process]
    return total
