"""Loads as processes: what they were asked for, what they managed, and that they stop whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgemed.base.child import package_environment
from edgemed.base.errors import ChildError, UsageError
from edgemed.profile.beside import Measured, Unmeasured
from edgemed.profile.interference.interferer import Interferer
from edgemed.profile.interference.spec import LoadSpec, parse_interference
from edgemed.profile.interference.worker import cpu, memory

WATCH_S = 60
MEASURED = Measured(0, 1, 1)


def test_what_was_asked_for() -> None:
    cores = len(os.sched_getaffinity(0))
    assert parse_interference("cpu:4,memory:2GiB/s, disk:1.5MB/s,network") == (
        LoadSpec("cpu", 4, None, "cpu:4"),
        LoadSpec("memory", 1, 2 * 2**30, "memory:2GiB/s"),
        LoadSpec("disk", 1, 1_500_000, "disk:1.5MB/s"),
        LoadSpec("network", 1, None, "network"),
    )
    assert parse_interference("cpu")[0].workers == cores


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpu",
        "cpu:0",
        "cpu:",
        "cpu:x",
        "cpu:4GiB/s",
        "cpu:9999",
        "memory:2",
        "memory:2XB/s",
        "disk:0MB/s",
        "cpu,cpu",
    ],
)
def test_what_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_interference(text)


def test_steps_count_what_they_do() -> None:
    assert cpu()() > 0
    assert memory()() == 1 << 20


def running(interferer: Interferer) -> list[int]:
    return [worker.pid for worker in interferer._workers]


def gone(pid: int) -> bool:
    """Whether a process ended: a zombie that nobody reaps has."""
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("text", ["cpu:2", "memory", "disk:4MiB/s", "network:3MiB/s"])
def test_a_load_is_on_and_then_off_and_tells_what_it_managed(tmp_path: Path, text: str) -> None:
    (spec,) = parse_interference(text)
    with Interferer(spec, tmp_path) as load:
        pids = running(load)
        assert len(pids) == spec.workers
        assert not any(map(gone, pids))
        time.sleep(0.3)
        assert list(tmp_path.iterdir()) == []  # the file of a disk load has no name
    assert all(map(gone, pids))
    (told,) = load.findings(MEASURED)
    assert (told.kind, told.workers, told.asked) == (spec.kind, spec.workers, text)
    amount = float(re.match(r"[\d.]+", told.achieved)[0])
    assert amount > 0
    if spec.kind == "cpu":
        assert amount <= 2.05  # two processes cannot use more than two processors; 5 %: of the tick of the clock
    if spec.rate is not None:
        # never ahead of its schedule by more than the last chunk, over at least the 0.3 s it ran
        assert amount <= spec.rate / 2**20 + 1 / 0.3


def test_loads_are_off_when_the_run_fails(tmp_path: Path) -> None:
    pids = []

    def run() -> None:
        with Interferer(parse_interference("cpu:2")[0], tmp_path) as load:
            pids.extend(running(load))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(pids) == 2
    assert all(map(gone, pids))


def test_a_load_that_cannot_be_is_an_error_and_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="No such file"), Interferer(parse_interference("disk")[0], tmp_path / "none"):
        pass


def test_a_worker_that_dies_is_said(tmp_path: Path) -> None:
    with Interferer(parse_interference("cpu:2")[0], tmp_path) as load:
        os.kill(load._workers[0].pid, signal.SIGKILL)
        load._workers[0].wait()
    told, lost = load.findings(MEASURED)
    assert told.achieved != "n/a"
    assert isinstance(lost, Unmeasured)
    assert "signal 9" in lost.what


PARENT = """
import sys, time
from pathlib import Path
from edgemed.profile.interference.interferer import Interferer
from edgemed.profile.interference.spec import parse_interference
with Interferer(parse_interference("cpu:2")[0], Path(sys.argv[1])) as load:
    print(*[worker.pid for worker in load._workers], flush=True)
    time.sleep(600)
"""


def test_loads_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, env=package_environment(), text=True
    )
    with parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    watch = time.monotonic_ns() + WATCH_S * 10**9
    while not all(map(gone, pids)) and time.monotonic_ns() < watch:
        time.sleep(0.01)
    assert len(pids) == 2
    assert all(map(gone, pids))
