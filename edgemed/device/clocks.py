"""Clocks of the GPU and the CPU cores, and the limits that are in force. Frequencies are Hz.

A power mode's name says what was asked for; these files say what the hardware is allowed and does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edgemed.device.sysfs import Tree

_DEVFREQ: Final = "sys/class/devfreq"
_CPUS: Final = "sys/devices/system/cpu"
# names of the node or of its device-tree entry: Nano and Orin (r36) `gpu`, TX2, Xavier and Orin (r35) by chip,
# Thor by cluster (graphics; `gpu-nvd-0` is its video engines)
_GPU_NODES: Final = ("gpu", "gp10b", "gv11b", "ga10b", "gpu-gpc-0")


@dataclass(frozen=True)
class Clock:
    """One clock. `minimum` and `maximum` are the limits in force, `lowest` and `highest` what the hardware has.

    `current` of a GPU that sleeps may be 0.
    """

    name: str
    current: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    lowest: int | None = None
    highest: int | None = None
    governor: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether limits leave it one frequency, as `jetson_clocks` does."""
        return self.maximum is not None and self.minimum == self.maximum


def gpu_clock(tree: Tree) -> Clock | None:
    """The clock of the integrated GPU; None where no node of that name is there (a discrete GPU has none)."""
    return next(_gpu_clocks(tree), None)


def cpu_clocks(tree: Tree) -> tuple[Clock, ...]:
    """One clock for each core that is online and scales."""
    cores = [name for name in tree.names(_CPUS) if name.startswith("cpu") and name[3:].isdecimal()]
    folders = [(name, f"{_CPUS}/{name}/cpufreq") for name in cores]
    return tuple(_cpu_clock(tree, name, folder) for name, folder in folders if tree.exists(folder))


def _gpu_clocks(tree: Tree) -> Iterator[Clock]:
    for name in tree.names(_DEVFREQ):
        folder = f"{_DEVFREQ}/{name}"
        entry = next(iter(tree.strings(f"{folder}/device/of_node/name")), "").strip()
        if name in _GPU_NODES or name.rpartition(".")[2] in _GPU_NODES or entry in _GPU_NODES:
            steps = tree.integers(f"{folder}/available_frequencies")
            yield Clock(
                name,
                current=tree.integer(f"{folder}/cur_freq"),
                minimum=tree.integer(f"{folder}/min_freq"),
                maximum=tree.integer(f"{folder}/max_freq"),
                lowest=min(steps, default=None),
                highest=max(steps, default=None),
                governor=tree.text(f"{folder}/governor", 64) or None,
            )


def _cpu_clock(tree: Tree, name: str, folder: str) -> Clock:
    def hertz(file: str) -> int | None:
        khz = tree.integer(f"{folder}/{file}")
        return None if khz is None else khz * 1000

    return Clock(
        name,
        current=hertz("scaling_cur_freq"),
        minimum=hertz("scaling_min_freq"),
        maximum=hertz("scaling_max_freq"),
        lowest=hertz("cpuinfo_min_freq"),
        highest=hertz("cpuinfo_max_freq"),
        governor=tree.text(f"{folder}/scaling_governor", 64) or None,
    )
