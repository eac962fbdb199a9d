"""The sampler as a process beside a run: what it records, and what happens when it, or its parent, is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgemed.base.child import package_environment
from edgemed.profile.beside import Measured, Telemetry
from edgemed.profile.telemetry.recorder import FILE, Recorder
from tests.device.roots.boards import board, rail_file, set_now

MS = 1_000_000
WATCH_S = 60


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    return board(tmp_path / "root", "orin-nano-8gb")


def recorder(tmp_path: Path, root: Path, **changed) -> Recorder:
    (tmp_path / "out").mkdir(exist_ok=True)
    return Recorder(tmp_path / "out", root, **{"interval_ns": 10 * MS, "nvml": False, **changed})


def only(found) -> Telemetry:
    (telemetry,) = found
    assert isinstance(telemetry, Telemetry)
    return telemetry


def while_running(recorder: Recorder, *changes) -> Telemetry:
    """A run in which files change one after the other, each seen by the sampler."""
    with recorder:
        start = time.monotonic_ns()
        for change in changes:
            change()
            recorder.sample_now()
        end = time.monotonic_ns()
    return only(recorder.findings(Measured(start, end, 1)))


def channels(telemetry: Telemetry) -> dict:
    return {channel.name: channel for channel in telemetry.channels}


def test_what_changes_meanwhile_is_recorded(tmp_path: Path, orin: Path) -> None:
    steps = [lambda c=c: set_now(orin, rail_file(orin), c) for c in (1000, 3000, 2000)]
    telemetry = while_running(recorder(tmp_path, orin), *steps)
    power = channels(telemetry)["VDD_IN"]
    assert (power.min, power.max, power.last) == (5000, 15_000, 10_000)
    assert power.first == 5500  # the last sample before the measured time
    assert power.samples >= 4
    assert "cv0-thermal" not in channels(telemetry)  # it is off: no channel, not a 0
    assert telemetry.junction == "tj-thermal"
    assert (telemetry.throttled, telemetry.throttled_at_start) == (False, False)
    assert (telemetry.over_current_events, telemetry.clocks_changed, telemetry.lost) == (0, False, None)
    assert telemetry.longest_gap_ns > 0


def test_series_can_be_read_while_it_runs_and_rise(tmp_path: Path, orin: Path) -> None:
    with recorder(tmp_path, orin) as running:
        before = len(running.named("tj-thermal").times_ns)
        running.sample_now()
        series = running.named("tj-thermal")
        assert len(series.times_ns) > before
        assert (np.diff(series.times_ns) > 0).all()
        assert set(series.values.tolist()) == {50_000}
        assert len(running.named("cv0-thermal").values) == 0


OC3 = "sys/class/hwmon/hwmon3/oc3_event_cnt"
COOLING = "sys/class/thermal/cooling_device1/cur_state"
GPU = "sys/class/devfreq/17000000.gpu"


def test_over_current_events_are_counted_and_are_throttling(tmp_path: Path, orin: Path) -> None:
    set_now(orin, OC3, 100)
    telemetry = while_running(
        recorder(tmp_path, orin), lambda: set_now(orin, OC3, 103), lambda: set_now(orin, OC3, 117)
    )
    assert (telemetry.over_current_events, telemetry.throttled) == (17, True)


def test_events_of_a_guard_that_does_not_slow_the_clocks_are_no_throttling(tmp_path: Path, orin: Path) -> None:
    set_now(orin, "sys/class/hwmon/hwmon3/oc3_throt_en", 0)
    telemetry = while_running(recorder(tmp_path, orin), lambda: set_now(orin, OC3, 5))
    assert (telemetry.over_current_events, telemetry.throttled) == (5, False)


def test_cooling_that_slows_is_throttling_also_when_it_is_over_at_the_end(tmp_path: Path, orin: Path) -> None:
    telemetry = while_running(
        recorder(tmp_path, orin), lambda: set_now(orin, COOLING, 2), lambda: set_now(orin, COOLING, 0)
    )
    assert (telemetry.throttled, telemetry.throttled_at_start) == (True, False)


def test_a_device_that_is_throttled_before_it_begins_is_told(tmp_path: Path, orin: Path) -> None:
    set_now(orin, COOLING, 1)
    telemetry = while_running(recorder(tmp_path, orin), lambda: set_now(orin, COOLING, 0))
    assert telemetry.throttled_at_start is True


def test_free_clocks_may_move(tmp_path: Path, orin: Path) -> None:
    telemetry = while_running(recorder(tmp_path, orin), lambda: set_now(orin, f"{GPU}/cur_freq", 408_000_000))
    assert telemetry.clocks_changed is False


@pytest.mark.parametrize(("hertz", "changed"), [(0, False), (612_500_000, False), (510_000_000, True)])
def test_locked_clocks_may_not_move_but_sleep(tmp_path: Path, orin: Path, hertz: int, changed: bool) -> None:
    set_now(orin, f"{GPU}/min_freq", 612_000_000)
    telemetry = while_running(recorder(tmp_path, orin), lambda: set_now(orin, f"{GPU}/cur_freq", hertz))
    assert telemetry.clocks_changed is changed


def test_a_limit_that_changes_meanwhile_is_a_changed_clock(tmp_path: Path, orin: Path) -> None:
    telemetry = while_running(recorder(tmp_path, orin), lambda: set_now(orin, f"{GPU}/max_freq", 408_000_000))
    assert telemetry.clocks_changed is True


def test_a_part_without_power_is_not_what_steadiness_is_judged_by(tmp_path: Path, orin: Path) -> None:
    set_now(orin, "sys/class/thermal/thermal_zone3/temp", -256_000)  # the junction's sensor is off
    with recorder(tmp_path, orin) as running:
        assert running.junction == "gpu-thermal"


def test_all_samples_are_kept_where_they_are_wanted(tmp_path: Path, orin: Path) -> None:
    telemetry = while_running(recorder(tmp_path, orin, keep=True), lambda: None)
    assert telemetry.file == FILE
    with np.load(tmp_path / "out" / FILE) as kept:
        assert set(kept["VDD_IN"].tolist()) == {5500}
        assert len(kept["VDD_IN"]) == len(kept["VDD_IN.ns"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == [FILE]


def test_without_sensors_there_is_nothing_to_tell(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with recorder(tmp_path, empty) as running:
        assert running.series == ()
        assert running.junction is None
    assert running.findings(Measured(0, 1, 1)) == []
    assert list((tmp_path / "out").iterdir()) == []


def test_a_sampler_that_is_killed_is_said_and_what_it_saw_stays(tmp_path: Path, orin: Path) -> None:
    with recorder(tmp_path, orin) as running:
        start = time.monotonic_ns()
        running.sample_now()
        os.kill(running._process.pid, signal.SIGKILL)
        running._process.wait()
        running.sample_now()  # asking a dead sampler neither raises nor hangs
    telemetry = only(running.findings(Measured(start, time.monotonic_ns(), 1)))
    assert "signal 9" in telemetry.lost
    assert channels(telemetry)["VDD_IN"].samples >= 1
    assert telemetry.longest_gap_ns > 0


def test_a_sampler_that_cannot_write_says_why(tmp_path: Path, orin: Path) -> None:
    running = recorder(tmp_path, orin)
    (tmp_path / "out").rmdir()
    with running:
        assert running.series == ()
    assert "No such file" in running.lost
    assert running.findings(Measured(0, 1, 1)) == []


PARENT = """
import os, sys, time
from pathlib import Path
from edgemed.profile.telemetry.recorder import Recorder
with Recorder(Path(sys.argv[1]), Path(sys.argv[2]), nvml=False) as running:
    print(running._process.pid, flush=True)
    time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Whether a process ended: a zombie that nobody reaps has."""
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_sampler_does_not_outlive_its_parent(tmp_path: Path, orin: Path, how: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), str(orin)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=package_environment(),
        text=True,
    )
    with parent:
        child = int(parent.stdout.readline())
        parent.send_signal(how)
        parent.wait(WATCH_S)
    watch = time.monotonic_ns() + WATCH_S * 10**9
    while not gone(child) and time.monotonic_ns() < watch:
        time.sleep(0.01)
    assert gone(child)
