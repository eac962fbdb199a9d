"""Temperatures, and what is being slowed because of them. Temperatures are thousandths of a degree Celsius (mc)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edgemed.device.sysfs import Tree

_THERMAL: Final = "sys/class/thermal"
_OFF: Final = -256_000  # what Tegra's sensors say of a part without power
_MOST_TRIPS: Final = 12
_LIMITS: Final = ("passive", "hot", "critical")


@dataclass(frozen=True)
class Zone:
    """One sensor, and the lowest temperature at which the kernel slows something down for it."""

    name: str
    temperature_mc: int
    limit_mc: int | None = None


@dataclass(frozen=True)
class Cooling:
    """One means of cooling and how far it is on: 0 is off."""

    name: str
    state: int

    @property
    def slows(self) -> bool:
        """Whether it takes speed away; a fan, and an alert that is only shown, do not."""
        return "fan" not in self.name and (self.name.startswith(("cpufreq", "devfreq")) or "throttle" in self.name)


def read_zones(tree: Tree) -> tuple[Zone, ...]:
    """All sensors that are on."""
    return tuple(_zones(tree))


def read_cooling(tree: Tree) -> tuple[Cooling, ...]:
    """All means of cooling whose state can be read."""
    folders = [f"{_THERMAL}/{name}" for name in tree.names(_THERMAL) if name.startswith("cooling_device")]
    found = [(tree.text(f"{folder}/type", 64), tree.integer(f"{folder}/cur_state")) for folder in folders]
    return tuple(Cooling(name, state) for name, state in found if name and state is not None)


def _zones(tree: Tree) -> Iterator[Zone]:
    for entry in tree.names(_THERMAL):
        folder = f"{_THERMAL}/{entry}"
        temperature = tree.integer(f"{folder}/temp") if entry.startswith("thermal_zone") else None
        if temperature is not None and temperature > _OFF:
            yield Zone(tree.text(f"{folder}/type", 64) or entry, temperature, _limit(tree, folder))


def _limit(tree: Tree, folder: str) -> int | None:
    """The lowest trip point above 0 that slows or stops the machine."""
    kinds = [(tree.text(f"{folder}/trip_point_{i}_type", 64), f"trip_point_{i}_temp") for i in range(_MOST_TRIPS)]
    points = [tree.integer(f"{folder}/{file}") for kind, file in kinds if kind in _LIMITS]
    return min((point for point in points if point is not None and point > 0), default=None)
