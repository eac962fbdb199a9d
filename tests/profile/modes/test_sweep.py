"""Power modes on fake boards with programs that change them: order, cooling, what is skipped, and what is restored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from evaluate.bundles import write_bundle
from evaluate.hostile import with_golden

from edgemed.base.child import package_environment
from edgemed.base.errors import DeviceStateError
from edgemed.device.power import Mode
from edgemed.device.sysfs import Tree
from edgemed.profile.modes import guard as guard_module
from edgemed.profile.modes.guard import Guard, restore
from edgemed.profile.modes.sweep import SweepPlan, _Conductor, junction_now, order_of
from edgemed.profile.modes.tools import NeedsReboot, NotReached, PowerTools
from tests.device.roots.boards import BOARDS, MODES, NEEDS_REBOOT, board, calls, set_now
from tests.device.roots.builder import gpu_folder

WATCH_S = 120


def tools_of(root: Path) -> PowerTools:
    return PowerTools(str(root / "bin/nvpmodel"), str(root / "bin/jetson_clocks"), Tree(root))


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    return board(tmp_path / "root", "orin-nano-8gb")


def state(root: Path) -> dict[str, str]:
    """Everything that a sweep may change."""
    gpu = gpu_folder(root)
    cpus = sorted((root / "sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_m*_freq"))
    files = [root / "var/lib/nvpmodel/status", gpu / "min_freq", gpu / "max_freq", *cpus]
    return {str(path): path.read_text().strip() for path in files}


@pytest.mark.parametrize("name", BOARDS)
def test_modes_and_clocks_are_changed_and_read_back(tmp_path: Path, name: str) -> None:
    tools = tools_of(board(tmp_path, name))
    assert [mode.name for mode in tools.modes()] == [name for name, _ in MODES]
    assert (tools.mode(), tools.clocks()) == (1, "free")
    tools.choose(2)
    tools.lock()
    assert (tools.mode(), tools.clocks()) == (2, "locked")


def test_a_mode_that_needs_a_restart_is_refused_and_nothing_is_answered(orin: Path) -> None:
    tools, before = tools_of(orin), state(orin)
    with pytest.raises(NeedsReboot):
        tools.choose(NEEDS_REBOOT)
    assert state(orin) == before
    assert not (orin / "rebooted").exists()


def test_a_mode_that_is_said_to_be_on_and_is_not_is_not_believed(orin: Path) -> None:
    (orin / "broken").touch()
    with pytest.raises(NotReached, match=r"mode 1 is on.*failed to set power mode"):
        tools_of(orin).choose(2)


def test_a_machine_without_the_programs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceStateError, match="no power modes"):
        PowerTools.find(tmp_path)


def test_the_order_is_random_and_of_all_pairs() -> None:
    modes = [Mode(number, str(number)) for number in range(5)]
    orders = [[(mode.id, clocks) for mode, clocks in order_of(modes, seed)] for seed in range(20)]
    assert all(sorted(order) == sorted((i, c) for i in range(5) for c in ("locked", "free")) for order in orders)
    assert len({tuple(order) for order in orders}) == 20
    assert order_of(modes, 7) == order_of(modes, 7)


def test_the_guard_restores_mode_and_clocks(tmp_path: Path, orin: Path) -> None:
    before, tools = state(orin), tools_of(orin)
    with Guard(tools, tmp_path / "out") as guard:
        tools.choose(0)
        tools.lock()
        assert state(orin) != before
        assert "nvpmodel -m 1" in (tmp_path / "out/power-state/restore.txt").read_text()
    assert guard.restored
    assert state(orin) == before
    assert list((tmp_path / "out").iterdir()) == []


def test_clocks_that_were_locked_are_locked_again(tmp_path: Path, orin: Path) -> None:
    tools = tools_of(orin)
    tools.lock()
    before = state(orin)
    with Guard(tools, tmp_path / "out"):
        tools.choose(2)
    assert state(orin) == before
    assert tools.clocks() == "locked"


def test_a_state_that_cannot_be_restored_is_said_with_what_to_do(
    tmp_path: Path, orin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tools_of(orin)

    def sweep() -> None:
        with Guard(tools, tmp_path / "out"):
            tools.choose(0)
            (orin / "broken").touch()

    with pytest.raises(DeviceStateError, match=r"could not be restored: nvpmodel says that mode 0 is on"):
        sweep()
    kept = tmp_path / "out/power-state"
    assert {path.name for path in kept.iterdir()} == {"restore.txt", "clocks.conf"}
    with pytest.raises(DeviceStateError, match="earlier sweep"), Guard(tools, tmp_path / "out"):
        pass


def test_restoring_is_tried_again(orin: Path) -> None:
    """A program of the sweep that was killed late may change the mode once more."""
    tools = tools_of(orin)
    (orin / "broken").touch()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        (orin / "broken").unlink()

    tools_now = [tools.nvpmodel, "-m", "2"]
    assert restore([tools_now], [tools.nvpmodel, "-q"], 2, pause) is None
    assert len(pauses) == 1
    assert restore([["/none"]], [tools.nvpmodel, "-q"], 2, lambda _: None) is not None


def test_state_that_cannot_be_written_down_is_not_changed(tmp_path: Path, orin: Path) -> None:
    (orin / "bin/jetson_clocks").write_text("#!/bin/sh\necho must be root; exit 1\n")
    tools = tools_of(orin)
    with pytest.raises(DeviceStateError, match="must be root"), Guard(tools, tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []
    assert not any("-m" in call for call in calls(orin))


SWEEPER = """
import sys, time
from pathlib import Path
from edgemed.device.sysfs import Tree
from edgemed.profile.modes.guard import Guard
from edgemed.profile.modes.tools import PowerTools
root = Path(sys.argv[1])
tools = PowerTools(str(root / "bin/nvpmodel"), str(root / "bin/jetson_clocks"), Tree(root))
with Guard(tools, Path(sys.argv[2])):
    tools.choose(0)
    tools.lock()
    print("changed", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_state_is_restored_however_the_sweep_ends(tmp_path: Path, orin: Path, how: signal.Signals) -> None:
    """To the whole process group, as a terminal sends Ctrl-C."""
    before = state(orin)
    sweeper = subprocess.Popen(
        [sys.executable, "-c", SWEEPER, str(orin), str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=package_environment(),
        text=True,
        start_new_session=True,
    )
    with sweeper:
        assert sweeper.stdout.readline() == "changed\n"
        assert state(orin) != before
        os.killpg(sweeper.pid, how)
    watch = time.monotonic_ns() + WATCH_S * 10**9
    while (tmp_path / "out/power-state").exists() and time.monotonic_ns() < watch:
        time.sleep(0.02)
    assert state(orin) == before


def conductor(orin: Path, tmp_path: Path, told: list[str], **changed) -> _Conductor:
    return _Conductor(SweepPlan(tmp_path, [], tmp_path, **changed), tools_of(orin), told.append)


JUNCTION = "sys/class/thermal/thermal_zone3/temp"


def test_a_run_waits_until_it_is_cool(tmp_path: Path, orin: Path) -> None:
    told: list[str] = []
    waiting = conductor(orin, tmp_path, told)  # 50 °C now, so 51 °C will do
    assert junction_now(Tree(orin)) == 50_000
    set_now(orin, JUNCTION, 70_000)
    cooling = threading.Timer(0.3, set_now, (orin, JUNCTION, 51_000))
    cooling.start()
    assert waiting._cool_down()
    cooling.join()
    assert told == ["cooling down from 70.0 to 51.0 °C …"]


def test_it_does_not_wait_for_ever_nor_without_a_sensor(tmp_path: Path, orin: Path) -> None:
    assert not conductor(orin, tmp_path, [], cool_to_mc=40_000, cool_ns=1)._cool_down()
    for zone in (orin / "sys/class/thermal").glob("thermal_zone*/temp"):
        zone.write_text("-256000\n")
    assert junction_now(Tree(orin)) is None
    assert conductor(orin, tmp_path, [], cool_to_mc=40_000, cool_ns=1)._cool_down()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_golden(write_bundle(tmp_path_factory.mktemp("user") / "little.edgemed", boundaries={"float": 0.5}))[0]


def command(bundle: Path, root: Path, out: Path, *more: str) -> list[str]:
    fast = ["--load", "rate:200", "--frames", "100", "--warmup", "1ms", "--root", str(root), "--output", str(out)]
    return [sys.executable, "-m", "edgemed", "profile", str(bundle), "--sweep-power", *fast, *more]


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def test_a_sweep_measures_every_mode_and_marks_those_that_pass(tmp_path: Path, orin: Path, bundle: Path) -> None:
    before, out = state(orin), tmp_path / "out"
    (tmp_path / "slo.toml").write_text('schema = "edgemed/slo/1"\n[latency]\np50_ms = 3600000.0\n')
    done = subprocess.run(
        command(bundle, orin, out, "--slo", str(tmp_path / "slo.toml")),
        env=environment(orin),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((out / "sweep.json").read_text())
    rows = {(row["name"], row["clocks"]): row for row in record["rows"]}
    assert len(rows) == 2 * len(MODES)
    assert (record["board"], record["found_mode"], record["found_clocks"]) == ("orin-nano-8gb", 1, "free")
    for (name, clocks), row in rows.items():
        if name == MODES[NEEDS_REBOOT][0]:
            assert (row["outcome"], row["p50_ns"]) == ("needs-reboot", None)
            continue
        assert (row["outcome"], row["n"], row["verdict"], row["start_mc"]) == ("measured", 100, "pass", 50_000)
        mark = json.loads((out / row["folder"] / "result.json").read_text())["fingerprint"]
        assert (mark["power_mode"], mark["clocks"], mark["board"]) == (name, clocks, "orin-nano-8gb")
    assert done.stdout.count("* pass") == 6
    assert "restart" in done.stdout
    assert state(orin) == before
    assert not (out / "power-state").exists()
    assert not list(out.glob(".clocks-*"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_stopped_restores_and_keeps_what_it_has(
    tmp_path: Path, orin: Path, bundle: Path, how: signal.Signals
) -> None:
    before, out = state(orin), tmp_path / "out"
    running = subprocess.Popen(
        command(bundle, orin, out, "--seed", "3"),
        env=environment(orin),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with running:
        watch = time.monotonic_ns() + WATCH_S * 10**9
        while not (out / "sweep.json").exists() and running.poll() is None and time.monotonic_ns() < watch:
            time.sleep(0.02)
        os.killpg(running.pid, how)
        error = running.stderr.read().decode()
    assert running.returncode == 128 + how, error
    assert state(orin) == before
    rows = json.loads((out / "sweep.json").read_text())["rows"]
    assert {row["outcome"] for row in rows} >= {"not-tried"}


def test_a_mode_that_is_not_reached_is_exit_code_4(tmp_path: Path, orin: Path, bundle: Path) -> None:
    (orin / "broken").touch()
    done = subprocess.run(
        command(bundle, orin, tmp_path / "out"), env=environment(orin), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 4, done.stdout + done.stderr
    rows = json.loads((tmp_path / "out/sweep.json").read_text())["rows"]
    assert {row["outcome"] for row in rows if row["mode"] != 1} == {"not-reached"}
    assert guard_module.KEPT not in {path.name for path in (tmp_path / "out").iterdir()}
