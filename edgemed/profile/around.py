"""What stands beside a run, by what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgemed.base.errors import UsageError
from edgemed.device.power import read_power_mode
from edgemed.device.sysfs import Tree
from edgemed.profile.beside import Beside
from edgemed.profile.cpuload import ProcStat
from edgemed.profile.energy import LEAST_NS, EnergyMeter, ExternalMeter
from edgemed.profile.interference.interferer import Interferer
from edgemed.profile.interference.spec import LoadSpec, parse_interference
from edgemed.profile.telemetry.limits import Limits
from edgemed.profile.telemetry.recorder import Recorder


@dataclass(frozen=True)
class Around:
    """What was asked for beside a run.

    Attributes:
        telemetry: sample the sensors.
        energy: of an inference, over `rail`, or the one that carries all power.
        rail: name of a rail; it implies `energy`.
        meter: record of an external power meter.
        interference: loads on purpose, as on the command line.
        trigger_ns: a frame above it is written down with what went on around it.
        root: where `sys` and `proc` are.
    """

    telemetry: bool = True
    energy: bool = False
    rail: str | None = None
    meter: Path | None = None
    interference: str | None = None
    trigger_ns: int | None = None
    root: Path = Path("/")

    @property
    def wants_energy(self) -> bool:
        return self.energy or self.rail is not None or self.meter is not None

    def check(self, duration_ns: int | None) -> None:
        """Refuse what could not come to anything.

        Args:
            duration_ns: of the measured time, where it is known before.

        Raises:
            UsageError: the run is too short for energy, or sensors are needed that shall not be read.
        """
        if (self.energy or self.rail is not None) and not self.telemetry:
            raise UsageError("Energy is read from sensors.", "Leave out --no-telemetry, or --energy.")
        if self.wants_energy and duration_ns is not None and duration_ns < LEAST_NS:
            raise UsageError(
                f"{duration_ns / 1e9:g} s are too short for energy: it takes {LEAST_NS / 1e9:g} s.",
                f"Give --duration {2 * LEAST_NS // 10**9}s or longer.",
            )
        self.loads()

    def loads(self) -> tuple[LoadSpec, ...]:
        """Loads on purpose.

        Raises:
            UsageError: there are no such loads.
        """
        return () if self.interference is None else parse_interference(self.interference)

    def beside(self, folder: Path, *, keep: bool, quiet: bool = False) -> list[Beside]:
        """What is entered before the first frame, in this order.

        Args:
            folder: takes files, for a while or to stay.
            keep: whether all samples stay.
            quiet: leave out the loads.
        """
        found: list[Beside] = [] if quiet else [Interferer(spec, folder) for spec in self.loads()]
        if self.telemetry:
            recorder = Recorder(folder, self.root, kernel=self.trigger_ns is not None, keep=keep)
            found.append(recorder)
            if self.energy or self.rail is not None:
                found.append(EnergyMeter(recorder, self.rail))
        if self.meter is not None:
            found.append(ExternalMeter(self.meter))
        return [*found, ProcStat(self.root)]


def device_state(root: Path = Path("/")) -> tuple[str | None, Literal["locked", "free"] | None]:
    """Name of the power mode, and whether clocks are locked; `None` for what nothing tells."""
    tree = Tree(root)
    mode = read_power_mode(tree)
    name = None if mode.chosen is None else mode.chosen.name
    return name, Limits.read(tree).state
