"""What goes on beside `edgemed profile`, as processes on fake boards: sensors, energy, loads, starts, wrong states."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from evaluate.bundles import write_bundle
from evaluate.hostile import with_golden

from tests.device.roots.boards import board, set_now

COMMAND = [sys.executable, "-m", "edgemed", "profile"]
SLO = 'schema = "edgemed/slo/1"\n[latency]\np50_ms = 3600000.0\n'
FAST = ("--load", "rate:200", "--frames", "100", "--warmup", "50ms")
LONG = ("--load", "rate:50", "--duration", "10500ms", "--warmup", "50ms")
WATCH_S = 120


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_golden(write_bundle(tmp_path_factory.mktemp("user") / "little.edgemed", boundaries={"float": 0.5}))[0]


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    return board(tmp_path / "root", "orin-nano-8gb")


def slo(tmp_path: Path, text: str = "") -> Path:
    (tmp_path / "slo.toml").write_text(SLO + text)
    return tmp_path / "slo.toml"


def result_of(out: Path) -> dict:
    return json.loads((out / "result.json").read_text())


def test_a_board_tells_its_state_and_its_sensors(bundle, orin, tmp_path):
    out = tmp_path / "out"
    done = run(bundle, *FAST, "--root", orin, "--slo", slo(tmp_path), "--output", out)
    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(out)
    mark = result["fingerprint"]
    assert (mark["board"], mark["power_mode"], mark["clocks"], mark["jetpack"]) == (
        "orin-nano-8gb",
        "15W",
        "free",
        "6.2",
    )
    (telemetry,) = result["telemetry"]
    assert (telemetry["source"], telemetry["junction"], telemetry["throttled"]) == ("sysfs", "tj-thermal", False)
    channels = {each["name"]: each for each in telemetry["channels"]}
    assert (channels["VDD_IN"]["median"], channels["tj-thermal"]["max"]) == (5500, 50_000)
    assert "cv0-thermal" not in channels
    with np.load(out / "telemetry.npz") as kept:
        assert set(kept["VDD_IN"].tolist()) == {5500}
    assert result["cpu"]["cores"] >= 1 if result["cpu"] is not None else True
    assert "VDD_IN 5.50 W" in done.stdout


@pytest.mark.parametrize(
    ("prepare", "state", "why"),
    [
        (lambda root: None, '[state]\nclocks = "locked"\n', "clocks is free"),
        (lambda root: None, '[state]\npower_mode = "MAXN"\n', "power mode is 15W"),
        (lambda root: None, '[state]\nboard = "agx-orin-64gb"\n', "board is orin-nano-8gb"),
        (lambda root: set_now(root, "sys/class/thermal/cooling_device1/cur_state", 3), "", "throttled before"),
    ],
)
def test_a_device_in_another_state_is_exit_code_4_and_the_result_is_there(bundle, orin, tmp_path, prepare, state, why):
    prepare(orin)
    done = run(bundle, *FAST, "--root", orin, "--slo", slo(tmp_path, state), "--output", tmp_path / "out")
    assert done.returncode == 4, done.stdout + done.stderr
    assert why in result_of(tmp_path / "out")["verdict"]["wrong_state"][0]
    if state:  # known before, so it is said before an hour is spent
        assert f"note: {why}" in done.stderr


def test_energy_of_a_board_that_has_a_total(bundle, orin, tmp_path):
    out = tmp_path / "out"
    limit = slo(tmp_path, "[energy]\ngross_mj = 100000.0\n")
    done = run(bundle, *LONG, "--root", orin, "--energy", "--slo", limit, "--output", out)
    result = result_of(out)
    if not result["energy"]:  # a machine so busy that the sampler missed its turns says so
        assert any("was not read for" in text for text in result["not_measured"])
        assert done.returncode == 3
        return
    assert done.returncode == 0, done.stdout + done.stderr
    (energy,) = result["energy"]
    assert (energy["rail"], energy["total"], energy["mean_mw"], energy["idle_mw"]) == ("VDD_IN", True, 5500, 5500)
    # 5.5 W, 50 inferences a second: 110 mJ; the window begins with the first arrival and ends with the last answer
    assert energy["gross_mj"] == pytest.approx(5.5 * energy["window_ns"] / 1e6 / energy["inferences"])
    assert energy["net_mj"] == 0
    assert energy["idle_window_ns"] >= 10 * 10**9
    assert not any("energy" in text for text in result["not_measured"])


def test_energy_that_cannot_be_is_refused_or_said(bundle, tmp_path):
    short = run(bundle, "--duration", "5s", "--energy")
    assert short.returncode == 2
    assert "too short for energy" in short.stderr
    agx = board(tmp_path / "agx", "agx-orin-64gb")
    limit = slo(tmp_path, "[energy]\ngross_mj = 100000.0\n")
    done = run(bundle, *FAST, "--root", agx, "--energy", "--slo", limit, "--output", tmp_path / "out")
    assert done.returncode == 3, done.stdout + done.stderr
    result = result_of(tmp_path / "out")
    assert result["energy"] == []
    assert any("no rail of VDD_GPU_SOC" in text for text in result["not_measured"])


def test_interference_is_measured_beside_the_quiet_run(bundle, tmp_path):
    out = tmp_path / "out"
    done = run(bundle, *FAST, "--interference", "cpu:1,memory:50MiB/s", "--no-telemetry", "--output", out)
    assert done.returncode == 0, done.stdout + done.stderr
    loaded, quiet = result_of(out), result_of(out / "quiet")
    assert [load["asked"] for load in loaded["interference"]] == ["cpu:1", "memory:50MiB/s"]
    assert quiet["interference"] == []
    assert loaded["quiet"] == quiet["latency"]
    assert "processors busy" in done.stdout
    assert run(bundle, *FAST, "--interference", "gpu").returncode == 2


def test_cold_starts_stand_in_the_result(bundle):
    done = run(bundle, *FAST, "--cold-start", "2", "--no-telemetry", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["cold_start"]["runs"], result["cold_start"]["page_cache"]) == (2, "kept")
    assert not any("start of the process" in text for text in result["not_measured"])


def test_frames_above_a_limit_are_written_down(bundle, tmp_path):
    out = tmp_path / "out"
    done = run(bundle, *FAST, "--trigger", "1us", "--output", out)
    assert done.returncode == 0, done.stderr
    (event,) = [json.loads(line) for line in (out / "outliers.jsonl").read_text().splitlines()]
    assert event["limit_ns"] == 1000
    assert "own waits" in event["sensors"]
    assert run(bundle, *FAST, "--trigger", "1us").returncode == 2  # nowhere to write to


def children_of(pid: int, module: str) -> list[int]:
    """Child processes that run a module of ours."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == pid and module.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_for(check, process: subprocess.Popen) -> list[int]:
    watch = time.monotonic_ns() + WATCH_S * 10**9
    while not (found := check()) and process.poll() is None and time.monotonic_ns() < watch:
        time.sleep(0.02)
    return found


def started(*arguments: str | Path) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_a_sampler_that_is_killed_costs_the_verdict_not_the_run(bundle, orin, tmp_path):
    out = tmp_path / "out"
    arguments = ("--load", "rate:100", "--duration", "4s", "--root", orin, "--slo", slo(tmp_path), "--output", out)
    with started(bundle, *arguments) as running:
        # killed once it has taken several rows: the run has begun then, or is about to
        rows = out / ".telemetry.rows"
        pids = wait_for(
            lambda: (
                children_of(running.pid, "telemetry.sampler") if rows.exists() and rows.stat().st_size > 2000 else []
            ),
            running,
        )
        os.kill(pids[0], signal.SIGKILL)
        assert running.wait(WATCH_S) == 3
    result = result_of(out)
    assert result["counts"]["answered"] == 400
    assert "signal 9" in result["telemetry"][0]["lost"]
    assert any("went on without it" in text for text in result["warnings"])


def test_a_run_that_is_told_to_stop_stops_its_loads(bundle, tmp_path):
    arguments = ("--load", "rate:100", "--duration", "2s", "--interference", "cpu:2", "--no-telemetry")
    with started(bundle, *arguments, "--output", tmp_path / "out") as running:
        pids = wait_for(lambda: children_of(running.pid, "interference.worker"), running)
        running.send_signal(signal.SIGTERM)
        assert running.wait(WATCH_S) == 143
    assert len(pids) >= 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
