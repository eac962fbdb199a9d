"""How busy the machine's processors were, all programs together: `/proc/stat` before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edgemed.device.sysfs import Tree
from edgemed.profile.beside import CpuLoad, Finding, Measured, Series

_BYTES = 1 << 20  # the line of interrupts grows with the machine


@dataclass(frozen=True)
class Reading:
    """Ticks since boot, all processors together."""

    busy: int
    all: int
    cores: int
    switches: int

    @staticmethod
    def now(tree: Tree) -> Reading | None:
        """As it stands; `None` where there is no such file."""
        lines = [line.split() for line in (tree.text("proc/stat", _BYTES) or "").splitlines()]
        named = {line[0]: line[1:] for line in lines if line}
        try:
            ticks = [int(each) for each in named["cpu"][:8]]  # guests are within user and nice already
            idle = ticks[3] + ticks[4]
            cores = sum(name.startswith("cpu") and name != "cpu" for name in named)
            return Reading(sum(ticks) - idle, sum(ticks), cores, int(named["ctxt"][0]))
        except (KeyError, IndexError, ValueError):
            return None


class ProcStat:
    """The machine's load from the beginning of a run, warm-up included, to its end."""

    series: Sequence[Series] = ()
    junction: str | None = None

    def __init__(self, root: Path = Path("/")) -> None:
        self._tree = Tree(root)
        self._before: Reading | None = None
        self._after: Reading | None = None

    def __enter__(self) -> ProcStat:
        self._before = Reading.now(self._tree)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._after = Reading.now(self._tree)

    def findings(self, measured: Measured) -> Sequence[Finding]:  # noqa: ARG002
        """One record; none where nothing tells, or the run was shorter than a tick."""
        a, b = self._before, self._after
        if a is None or b is None or b.all <= a.all or not b.cores:
            return ()
        busy = min(max(b.busy - a.busy, 0) / (b.all - a.all), 1.0)
        return (CpuLoad(busy=busy, cores=b.cores, context_switches=max(0, b.switches - a.switches)),)
