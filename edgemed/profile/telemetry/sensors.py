"""Which sensors this machine has. What is missing has no sensor here: it is never a 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgemed.device.clocks import cpu_clocks, gpu_clock
from edgemed.device.power import monitors, rail_files
from edgemed.device.sysfs import IntegerFile, Tree

if TYPE_CHECKING:  # the sampler stays small: neither NumPy nor pydantic
    from edgemed.profile.beside import ChannelKind, Unit

_DEVFREQ: Final = "sys/class/devfreq"
_STAT_BYTES: Final = 4096
_LINES_BYTES: Final = 1 << 18  # /proc/stat grows with the machine
_THERMAL: Final = "sys/class/thermal"
_CPUS: Final = "sys/devices/system/cpu"
_OFF_MC: Final = -256_000  # what Tegra's sensors say of a part without power
_EMC: Final = ("emc", "dram", "mc")  # memory's clock: names of devfreq nodes that have one
# which on Jetson only root may read, in debugfs (rbonghi/jetson_stats#360)
_EMC_FILES: Final = ("sys/kernel/debug/bpmp/debug/clk/emc/rate", "sys/kernel/debug/clk/emc/clk_rate")
# where the load of the GPU is told in tenths of a percent: L4T's own file, beside devfreq
_LOADS: Final = ("sys/devices/platform/gpu.0/load", "sys/devices/gpu.0/load")


@dataclass(frozen=True)
class Sensor:
    """One sensor.

    Attributes:
        name: unique within its source.
        kind, unit: of what it shows.
        read: its value now; `None` where it does not answer, or is off.
        update_ns: how old a reading of it may be by itself; `None`: unknown.
        slows: of a counter: whether the device slows down when it counts; `None`: unknown.
    """

    name: str
    kind: ChannelKind
    unit: Unit
    read: Callable[[], int | None]
    update_ns: int | None = None
    slows: bool | None = None


def sysfs_sensors(tree: Tree) -> tuple[Sensor, ...]:
    """All sensors under a root that answer, or are off now."""
    found = (*_rails(tree), *_zones(tree), *_clocks(tree), *_loads(tree), *_guards(tree), *_cooling(tree), *_fans(tree))
    names = [sensor.name for sensor in found]
    return tuple(_told_apart(sensor, names, index) for index, sensor in enumerate(found))


def kernel_sensors(tree: Tree, process: int) -> tuple[Sensor, ...]:
    """What the kernel counts of a process and of the machine: why one frame was slow, and its neighbours were not."""
    fields = {"minor faults": 7, "major faults": 9, "user ticks": 11, "system ticks": 12}  # from the state on
    stat = tree.open(f"proc/{process}/stat")
    found = [] if stat is None else [_activity(f"own {name}", _word(stat, at)) for name, at in fields.items()]
    lines = {
        f"proc/{process}/status": {
            "voluntary_ctxt_switches": "own waits",
            "nonvoluntary_ctxt_switches": "own evictions",
        },
        "proc/stat": {"ctxt": "context switches", "procs_running": "runnable threads"},
        "proc/vmstat": {"pgmajfault": "pages from disk", "allocstall_normal": "stalls for memory"},
    }
    for path, names in lines.items():
        if (file := tree.open(path)) is not None:
            found += [_activity(name, _line(file, key)) for key, name in names.items()]
    return tuple(found)


def _activity(name: str, read: Callable[[], int | None]) -> Sensor:
    return Sensor(name, "activity", "events", read)


def _word(file: IntegerFile, at: int) -> Callable[[], int | None]:
    """A word behind the name of the program, which may itself hold blanks and brackets."""

    def read() -> int | None:
        words = file.text(_STAT_BYTES).rpartition(")")[2].split()
        return int(words[at]) if len(words) > at and words[at].isdecimal() else None

    return read


def _line(file: IntegerFile, key: str) -> Callable[[], int | None]:
    """The number of a line `key 123` or `key: 123`."""

    def read() -> int | None:
        for line in file.text(_LINES_BYTES).splitlines():
            name, _, rest = line.replace(":", " ", 1).partition(" ")
            if name == key:
                value = rest.strip()
                return int(value) if value.isdecimal() else None
        return None

    return read


def _told_apart(sensor: Sensor, names: list[str], index: int) -> Sensor:
    """Two zones may have one name: all but the first get a number."""
    before = names[:index].count(sensor.name)
    if not before:
        return sensor
    name = f"{sensor.name}#{before + 1}"
    return Sensor(name, sensor.kind, sensor.unit, sensor.read, sensor.update_ns, sensor.slows)


def _file(tree: Tree, path: str, scale: int = 1) -> Callable[[], int | None] | None:
    file = tree.open(path)
    if file is None:
        return None
    if scale == 1:
        return file.read

    def scaled() -> int | None:
        value = file.read()
        return None if value is None else value * scale

    return scaled


def _rails(tree: Tree) -> Iterator[Sensor]:
    for files in rail_files(tree):
        volts, amperes = tree.open(files.millivolts), tree.open(files.milliamperes)
        if volts is not None and amperes is not None:

            def milliwatts(volts=volts.read, amperes=amperes.read) -> int | None:  # type: ignore[no-untyped-def]
                millivolts, milliamperes = volts(), amperes()
                return None if millivolts is None or milliamperes is None else millivolts * milliamperes // 1000

            yield Sensor(files.name, "power", "mW", milliwatts, files.update_ns)


def _zones(tree: Tree) -> Iterator[Sensor]:
    for entry in tree.names(_THERMAL):
        file = tree.open(f"{_THERMAL}/{entry}/temp") if entry.startswith("thermal_zone") else None
        if file is not None:

            def temperature(read=file.read) -> int | None:  # type: ignore[no-untyped-def]
                value: int | None = read()
                return None if value is None or value <= _OFF_MC else value

            yield Sensor(tree.text(f"{_THERMAL}/{entry}/type", 64) or entry, "temperature", "mC", temperature)


def _clocks(tree: Tree) -> Iterator[Sensor]:
    gpu = gpu_clock(tree)
    nodes = {} if gpu is None else {gpu.name: "GPU clock"}
    for name in tree.names(_DEVFREQ):
        if any(part in _EMC for part in name.replace("-", ".").split(".")):
            nodes.setdefault(name, "EMC clock")
    for node, name in nodes.items():
        if (read := _file(tree, f"{_DEVFREQ}/{node}/cur_freq")) is not None:
            yield Sensor(name, "clock", "Hz", read)
    if "EMC clock" not in nodes.values():
        found = (read for path in _EMC_FILES if (read := _file(tree, path)) is not None)
        if (emc := next(found, None)) is not None:
            yield Sensor("EMC clock", "clock", "Hz", emc)
    for core in cpu_clocks(tree):
        if (read := _file(tree, f"{_CPUS}/{core.name}/cpufreq/scaling_cur_freq", 1000)) is not None:
            yield Sensor(f"{core.name} clock", "clock", "Hz", read)


def _loads(tree: Tree) -> Iterator[Sensor]:
    gpu = gpu_clock(tree)
    beside = () if gpu is None else (f"{_DEVFREQ}/{gpu.name}/device/load", f"{_DEVFREQ}/{gpu.name}/load")
    for path in (*beside, *_LOADS):
        if (read := _file(tree, path)) is not None:
            yield Sensor("GPU load", "load", "permille", read)
            return


def _guards(tree: Tree) -> Iterator[Sensor]:
    for folder in monitors(tree, "soctherm_oc"):
        for number in (1, 2, 3):
            if (read := _file(tree, f"{folder}/oc{number}_event_cnt")) is not None:
                enabled = tree.integer(f"{folder}/oc{number}_throt_en")
                yield Sensor(f"OC{number}", "counter", "events", read, slows=None if enabled is None else enabled != 0)


def _cooling(tree: Tree) -> Iterator[Sensor]:
    """Means of cooling that take speed away; fans do not."""
    for entry in tree.names(_THERMAL):
        name = tree.text(f"{_THERMAL}/{entry}/type", 64) if entry.startswith("cooling_device") else None
        # alerts tell that the hardware slows down; `cpufreq` and `devfreq` devices do it by the clock's limit
        if name and "fan" not in name and (name.startswith(("cpufreq", "devfreq")) or "throttle" in name):
            read = _file(tree, f"{_THERMAL}/{entry}/cur_state")
            if read is not None:
                yield Sensor(name, "slowdown", "state", read, slows=True)


def _fans(tree: Tree) -> Iterator[Sensor]:
    for name in ("pwm_tach", "pwmfan"):
        for folder in monitors(tree, name):
            for file in ("rpm", "fan1_input"):
                if (read := _file(tree, f"{folder}/{file}")) is not None:
                    yield Sensor("fan", "fan", "rpm", read)
                    return
