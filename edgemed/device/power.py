"""Power: the mode of `nvpmodel`, the rails of the INA3221 and INA238, and the counters of over-current events.

Read from files that need no privileges. `nvpmodel` writes its mode to `/var/lib/nvpmodel/status`; what a mode allows
stands in `/etc/nvpmodel.conf`, which the boot links to the table of this very board.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from edgemed.device.sysfs import Tree

CONF: Final = "etc/nvpmodel.conf"
STATUS: Final = "var/lib/nvpmodel/status"
TOTAL_RAILS: Final = ("VDD_IN", "POM_5V_IN", "VIN")  # Orin Nano and NX; Nano and TX2; Thor
_HWMON: Final = "sys/class/hwmon"
_CONF_BYTES: Final = 1 << 20
_MODE: Final = re.compile(r"<\s*POWER_MODEL\s+ID\s*=\s*(\d{1,4})\s+NAME\s*=\s*([^\s>]{1,64})")
_DEFAULT: Final = re.compile(r"<\s*PM_CONFIG\s+DEFAULT\s*=\s*(\d{1,4})")
_GPU_CAP: Final = re.compile(r"GPU\w*\s+MAX_FREQ\s+(-?\d{1,19})\s*$")
_CURRENT: Final = re.compile(r"pmode:\s*(\d{1,9})")
_UNLIMITED: Final = 2**31 - 1  # how older tables write "no limit"; newer ones write -1


@dataclass(frozen=True)
class Mode:
    """One mode; `gpu_cap` is its limit of the GPU's clock in Hz, None where it sets none."""

    id: int
    name: str
    gpu_cap: int | None = None


@dataclass(frozen=True)
class PowerMode:
    """The modes of this board and the one that is chosen. `table` is the file that the link points to."""

    modes: Mapping[int, Mode] = field(default_factory=dict)
    current: int | None = None
    default: int | None = None
    table: str | None = None

    @property
    def chosen(self) -> Mode | None:
        """The current mode, where the table has it."""
        return None if self.current is None else self.modes.get(self.current)


@dataclass(frozen=True)
class RailFiles:
    """Where a rail is read, and how old a reading may be by itself: the monitor's own interval."""

    name: str
    millivolts: str
    milliamperes: str
    update_ns: int | None = None


@dataclass(frozen=True)
class Rail:
    """One rail of a power monitor: its name on the board, millivolts and milliamperes now."""

    name: str
    millivolts: int
    milliamperes: int

    @property
    def milliwatts(self) -> int:
        """Power now."""
        return self.millivolts * self.milliamperes // 1000


@dataclass(frozen=True)
class OverCurrent:
    """One of the SoC's guards: how often it fired since boot, and whether it slows the clocks when it does."""

    name: str
    events: int
    throttles: bool | None


def read_power_mode(tree: Tree) -> PowerMode:
    """The table and the choice; empty where there is no `nvpmodel`."""
    text = (tree.text(CONF, _CONF_BYTES) or "").split("\n")
    lines = [line for line in text if not line.lstrip().startswith("#")]
    default = next((int(match[1]) for line in lines if (match := _DEFAULT.search(line))), None)
    current = _CURRENT.search(tree.text(STATUS) or "")
    return PowerMode(dict(_modes(lines)), int(current[1]) if current else None, default, tree.link(CONF))


def read_rails(tree: Tree) -> tuple[Rail, ...]:
    """All rails; channels that are not connected, and the sum of shunts, are left out."""
    return tuple(rail for files in rail_files(tree) if (rail := _rail(tree, files)) is not None)


def rail_files(tree: Tree) -> tuple[RailFiles, ...]:
    """Where the rails are read: INA3221 monitors of the module, and the INA238 at Thor's input."""
    module = [files for folder in monitors(tree, "ina3221") for files in _rail_files(tree, folder, (1, 2, 3))]
    # one channel, whose node says no name: on Thor's carrier board it measures the input (rbonghi/jetson_stats#900)
    board = [files for folder in monitors(tree, "ina238") for files in _rail_files(tree, folder, (1,), "VIN")]
    return (*module, *board)


def total_rail(names: Iterable[str]) -> str | None:
    """The rail that carries all of the module's power; None where no rail's name says so, as on AGX Orin.

    There, three rails are measured behind converters of their own: their sum is neither the module's power nor the
    board's (`VIN_SYS_5V0` is one consumer's input, not the sum).
    """
    known = set(names)
    return next((name for name in TOTAL_RAILS if name in known), None)


def read_over_current(tree: Tree) -> tuple[OverCurrent, ...]:
    """`soctherm_oc` of Orin: OC1 under-voltage, OC2 average, OC3 instantaneous over-current."""
    return tuple(guard for folder in monitors(tree, "soctherm_oc") for guard in _guards(tree, folder))


def _modes(lines: list[str]) -> Iterator[tuple[int, Mode]]:
    found: list[Mode] = []
    for line in lines:
        if match := _MODE.search(line):
            found.append(Mode(int(match[1]), match[2]))
        elif found and (cap := _GPU_CAP.match(line.strip())):
            limit = int(cap[1])
            if 0 < limit < _UNLIMITED:
                found[-1] = Mode(found[-1].id, found[-1].name, limit)
    return ((mode.id, mode) for mode in found)


def monitors(tree: Tree, name: str) -> list[str]:
    """Folders of the hwmon devices of that name."""
    folders = [f"{_HWMON}/{entry}" for entry in tree.names(_HWMON)]
    return [folder for folder in folders if tree.text(f"{folder}/name", 64) == name]


def _rail_files(tree: Tree, folder: str, channels: tuple[int, ...], unnamed: str | None = None) -> Iterator[RailFiles]:
    milliseconds = tree.integer(f"{folder}/update_interval")
    for channel in channels:  # of the INA3221, 4 to 6 are shunt voltages, 7 their sum
        label = tree.text(f"{folder}/in{channel}_label", 64) or unnamed
        if label and label != "NC":
            yield RailFiles(
                label,
                f"{folder}/in{channel}_input",
                f"{folder}/curr{channel}_input",
                None if milliseconds is None else milliseconds * 1_000_000,
            )


def _rail(tree: Tree, files: RailFiles) -> Rail | None:
    volts, amperes = tree.integer(files.millivolts), tree.integer(files.milliamperes)
    return None if volts is None or amperes is None else Rail(files.name, volts, amperes)


def _guards(tree: Tree, folder: str) -> Iterator[OverCurrent]:
    for number in (1, 2, 3):
        events = tree.integer(f"{folder}/oc{number}_event_cnt")
        if events is not None:
            enabled = tree.integer(f"{folder}/oc{number}_throt_en")
            yield OverCurrent(f"OC{number}", events, None if enabled is None else enabled != 0)
