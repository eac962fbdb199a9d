"""Which sensors each board has, and what they say; what is missing or off says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemed.device.power import read_rails, total_rail
from edgemed.device.sysfs import Tree
from edgemed.profile.telemetry.nvml import nvml_sensors
from edgemed.profile.telemetry.sensors import sysfs_sensors
from tests.device.roots.boards import BOARDS, RAILS, board, set_now
from tests.device.roots.builder import write

TOTAL = {"orin-nano-8gb": "VDD_IN", "orin-nx-16gb": "VDD_IN", "agx-orin-64gb": None, "thor-t5000": "VIN"}


@pytest.mark.parametrize("name", BOARDS)
def test_rails_of_each_board_and_its_total_by_name(tmp_path: Path, name: str) -> None:
    tree = Tree(board(tmp_path, name))
    expected = [rail for monitor in RAILS[name] for rail in monitor if rail != "NC"]
    expected += ["VIN"] if name == "thor-t5000" else []
    power = {sensor.name: sensor.read() for sensor in sysfs_sensors(tree) if sensor.kind == "power"}
    assert list(power) == expected
    assert power == {rail.name: rail.milliwatts for rail in read_rails(tree)}
    assert power[expected[0]] == 5000 * 1100 // 1000
    assert total_rail(power) == TOTAL[name]
    assert power.get("VIN") == (30_000 if name == "thor-t5000" else None)


def test_every_kind_of_sensor_with_its_unit(tmp_path: Path) -> None:
    sensors = {sensor.name: sensor for sensor in sysfs_sensors(Tree(board(tmp_path, "orin-nano-8gb")))}
    said = {name: (sensor.kind, sensor.unit, sensor.read()) for name, sensor in sensors.items()}
    assert said["tj-thermal"] == ("temperature", "mC", 50_000)
    assert said["cv0-thermal"] == ("temperature", "mC", None)  # -256: a part without power
    assert said["GPU clock"] == ("clock", "Hz", 612_000_000)
    assert said["cpu0 clock"] == ("clock", "Hz", 1_510_400_000)
    assert said["GPU load"] == ("load", "permille", 0)
    assert said["OC3"] == ("counter", "events", 0)
    assert sensors["OC3"].slows is True
    assert said["cpufreq-cpu0"] == ("slowdown", "state", 0)
    assert "pwm-fan" not in said


@pytest.mark.parametrize("path", ["sys/kernel/debug/bpmp/debug/clk/emc/rate", "sys/class/devfreq/emc/cur_freq"])
def test_memorys_clock_is_read_where_it_may_be(tmp_path: Path, path: str) -> None:
    root = board(tmp_path, "orin-nx-16gb")
    assert "EMC clock" not in {sensor.name for sensor in sysfs_sensors(Tree(root))}
    write(root, path, "2133000000\n")
    clocks = {sensor.name: sensor.read() for sensor in sysfs_sensors(Tree(root)) if sensor.kind == "clock"}
    assert clocks["EMC clock"] == 2_133_000_000
    assert clocks["GPU clock"] == 612_000_000


def test_a_sensor_that_goes_away_says_nothing_rather_than_0(tmp_path: Path) -> None:
    root = board(tmp_path, "orin-nano-8gb")
    sensors = {sensor.name: sensor for sensor in sysfs_sensors(Tree(root))}
    with (root / "sys/class/hwmon/hwmon1/curr1_input").open("w"):
        assert sensors["VDD_IN"].read() is None
    set_now(root, "sys/class/thermal/thermal_zone3/temp", -256_000)
    assert sensors["tj-thermal"].read() is None
    set_now(root, "sys/class/thermal/thermal_zone3/temp", 61_500)
    assert sensors["tj-thermal"].read() == 61_500


def test_zones_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / f"sys/class/thermal/thermal_zone{number}").mkdir(parents=True)
        (tmp_path / f"sys/class/thermal/thermal_zone{number}/type").write_text("acpitz\n")
        (tmp_path / f"sys/class/thermal/thermal_zone{number}/temp").write_text(f"{number}\n")
    assert [(s.name, s.read()) for s in sysfs_sensors(Tree(tmp_path))] == [("acpitz", 0), ("acpitz#2", 1)]


def test_the_monitors_own_interval_is_known(tmp_path: Path) -> None:
    root = board(tmp_path, "agx-orin-64gb")
    (root / "sys/class/hwmon/hwmon1/update_interval").write_text("35\n")
    updates = {sensor.name: sensor.update_ns for sensor in sysfs_sensors(Tree(root)) if sensor.kind == "power"}
    assert updates["VDD_GPU_SOC"] == 35_000_000
    assert updates["VDDQ_VDD2_1V8AO"] is None


def test_a_machine_without_any_of_it_has_no_sensors(tmp_path: Path) -> None:
    assert sysfs_sensors(Tree(tmp_path)) == ()


def test_nvml_answers_or_is_absent() -> None:
    """The real library. Without a driver it has no sensors; with one, those it has answer, and power is never 0."""
    for sensor in nvml_sensors():
        assert sensor.read() is not None
        assert sensor.kind != "power" or sensor.read() != 0
