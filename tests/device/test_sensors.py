"""What is read of clocks, rails, heat and memory; the profiler reads the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemed.device.clocks import Clock, cpu_clocks, gpu_clock
from edgemed.device.memory import Memory, Swap, read_memory, read_swaps
from edgemed.device.packages import installed_packages, upstream
from edgemed.device.power import Mode, OverCurrent, Rail, read_over_current, read_power_mode, read_rails
from edgemed.device.profile import load_profile
from edgemed.device.sysfs import Tree
from edgemed.device.thermal import Cooling, Zone, read_cooling, read_zones
from tests.device.roots.builder import STEPS_HZ, healthy, write


@pytest.fixture
def orin(tmp_path: Path) -> Tree:
    return Tree(healthy(tmp_path, *load_profile("orin-nano-8gb@6.2")))


def test_clocks_of_gpu_and_cores(orin: Tree) -> None:
    top = STEPS_HZ[-1]
    expected = Clock("17000000.gpu", top, top, top, STEPS_HZ[0], top, "nvhost_podgov")
    assert gpu_clock(orin) == expected
    assert expected.is_pinned
    cores = cpu_clocks(orin)
    assert [core.name for core in cores] == ["cpu0", "cpu1", "cpu10"]
    assert (cores[0].minimum, cores[0].maximum, cores[0].governor) == (729_600_000, 1_510_400_000, "schedutil")
    assert not cores[0].is_pinned


@pytest.mark.parametrize(
    ("device", "node"),
    [
        ("nano@4.6.6", "57000000.gpu"),
        ("tx2@4.6.6", "17000000.gp10b"),
        ("agx-xavier@5.1.6", "17000000.gv11b"),
        ("agx-orin-64gb@5.1.6", "17000000.ga10b"),
        ("agx-orin-64gb@6.2", "17000000.gpu"),
        ("thor-t5000@7.0", "gpu-gpc-0"),
    ],
)
def test_the_gpus_node_is_found_under_every_name(tmp_path: Path, device: str, node: str) -> None:
    clock = gpu_clock(Tree(healthy(tmp_path, *load_profile(device))))
    assert clock is not None
    assert (clock.name, clock.maximum) == (node, STEPS_HZ[-1])


def test_a_node_is_also_known_by_its_device_tree_entry(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/devfreq/17000000.thing/device/of_node/name", b"ga10b\0")
    write(tmp_path, "sys/class/devfreq/17000000.thing/cur_freq", "0\n")
    assert gpu_clock(Tree(tmp_path)) == Clock("17000000.thing", current=0)
    assert gpu_clock(Tree(tmp_path / "nothing")) is None


def test_power_modes_and_the_choice(orin: Tree) -> None:
    mode = read_power_mode(orin)
    assert mode.modes == {0: Mode(0, "15W", 612_000_000), 1: Mode(1, "MAXN")}
    assert (mode.current, mode.default, mode.table) == (1, 0, "board_super.conf")
    assert mode.chosen == Mode(1, "MAXN")


def test_rails_leave_out_what_is_no_rail(orin: Tree) -> None:
    assert read_rails(orin) == (Rail("VDD_IN", 5000, 1200), Rail("VDD_CPU_GPU_CV", 5000, 1200))
    assert read_rails(orin)[0].milliwatts == 6000
    assert read_over_current(orin) == tuple(OverCurrent(f"OC{number}", 0, True) for number in (1, 2, 3))


def test_heat_leaves_out_sensors_that_are_off_and_fans(orin: Tree) -> None:
    assert read_zones(orin) == (Zone("cpu-thermal", 48_500, 99_000), Zone("gpu-thermal", 47_000, 99_000))
    assert [(c.name, c.slows) for c in read_cooling(orin)] == [
        ("pwm-fan", False),
        ("cpufreq-cpu0", True),
        ("gpu-throttle-alert", True),
    ]
    assert Cooling("devfreq-17000000.gpu", 1).slows


def test_memory_and_swap_in_bytes(tmp_path: Path) -> None:
    write(tmp_path, "proc/meminfo", "MemTotal: 8000 kB\nMemAvailable: 4000 kB\nHugePages_Total: 3\nSwapTotal: 0 kB\n")
    write(tmp_path, "proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 100 10 5\n/x file bad 1 1\n")
    assert read_memory(Tree(tmp_path)) == Memory(8000 << 10, 4000 << 10, 0, None, None)
    assert read_swaps(Tree(tmp_path)) == (Swap("/dev/zram0", 100 << 10, 10 << 10),)
    assert read_swaps(Tree(tmp_path))[0].is_zram
    assert read_memory(Tree(tmp_path / "nothing")) == Memory()


@pytest.mark.parametrize(
    ("version", "leading"),
    [
        ("6.2.1+b38", "6.2.1"),
        ("1:10.3.0.30-1+cuda12.5", "10.3.0.30"),
        ("36.4.3-2025", "36.4.3"),
        ("x", None),
        (None, None),
    ],
)
def test_versions_of_packages(version: str | None, leading: str | None) -> None:
    assert upstream(version) == leading


def test_only_installed_packages_count(tmp_path: Path) -> None:
    stanzas = "Package: a\nStatus: install ok installed\nVersion: 1\n\n"
    stanzas += "Package: b\nStatus: deinstall ok config-files\nVersion: 2\n"
    write(tmp_path, "var/lib/dpkg/status", stanzas)
    assert installed_packages(Tree(tmp_path)) == {"a": "1"}
    assert installed_packages(Tree(tmp_path / "nothing")) == {}


def test_a_tree_reads_no_more_than_it_is_told(tmp_path: Path) -> None:
    write(tmp_path, "big", b"x" * 200_000)
    assert len(Tree(tmp_path).data("big") or b"") == 1 << 16
    assert Tree(tmp_path).text("big", 3) == "xxx"
    assert Tree(tmp_path).data("none") is None
    assert Tree(tmp_path).data("a\0b") is None


def test_integers_are_strict(tmp_path: Path) -> None:
    for content, value in (("12\n", 12), (" -5 kB", -5), ("0x10", None), ("12abc", None), ("", None), ("9" * 20, None)):
        write(tmp_path, "n", content)
        assert Tree(tmp_path).integer("n") == value
    write(tmp_path, "n", "1 2 -3\n")
    assert Tree(tmp_path).integers("n") == (1, 2, -3)
    write(tmp_path, "n", "1 two\n")
    assert Tree(tmp_path).integers("n") == ()
