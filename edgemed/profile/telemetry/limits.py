"""Limits of the clocks: read before and after a run, outside the measured time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgemed.device.clocks import Clock, cpu_clocks, gpu_clock
from edgemed.device.sysfs import Tree


@dataclass(frozen=True)
class Limits:
    """Clocks of the GPU and the cores with the limits that are in force. Their names are those of the sensors."""

    clocks: tuple[tuple[str, Clock], ...]

    @staticmethod
    def read(tree: Tree) -> Limits:
        """As they are now."""
        gpu = gpu_clock(tree)
        named = [] if gpu is None else [("GPU clock", gpu)]
        return Limits((*named, *((f"{core.name} clock", core) for core in cpu_clocks(tree))))

    @property
    def state(self) -> Literal["locked", "free"] | None:
        """Whether every clock is left one frequency, as by `jetson_clocks`; `None`: no clock tells its limits."""
        known = [clock for _, clock in self.clocks if clock.minimum is not None and clock.maximum is not None]
        if not known:
            return None
        return "locked" if all(clock.is_pinned for clock in known) else "free"

    def differ(self, other: Limits) -> bool:
        """Whether limits of a clock are others, or a core came or went."""
        return self._in_force() != other._in_force()

    def _in_force(self) -> dict[str, tuple[int | None, int | None]]:
        return {name: (clock.minimum, clock.maximum) for name, clock in self.clocks}

    def pinned(self) -> dict[str, int]:
        """The frequency (Hz) of each clock that is left only one, by the name of its sensor."""
        return {name: clock.maximum for name, clock in self.clocks if clock.is_pinned and clock.maximum is not None}
