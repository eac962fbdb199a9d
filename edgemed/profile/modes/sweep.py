"""Every mode, clocks locked and free: in random order, so that what drifts meanwhile falls on all alike."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from edgemed.base.errors import ChildError, DeviceStateError
from edgemed.device.board import detect_board
from edgemed.device.power import Mode
from edgemed.device.sysfs import Tree
from edgemed.device.thermal import read_zones
from edgemed.profile.interleave import run_once
from edgemed.profile.modes.guard import Guard
from edgemed.profile.modes.record import SCHEMA, Sweep, SweepRow, filled, write_sweep
from edgemed.profile.modes.tools import Clocks, NeedsReboot, NotReached, PowerTools
from edgemed.profile.telemetry.summary import junction_by_name

COOL_NS: Final = 900_000_000_000  # a board under a fan is back after some minutes
_COOLER_MC: Final = 1000  # two readings of one temperature differ by up to half a degree each
_LOOK_S: Final = 1.0


@dataclass(frozen=True)
class SweepPlan:
    """What is to be measured.

    Attributes:
        bundle: what is measured.
        arguments: of `edgemed profile` for each run.
        output: folder, new or empty.
        seed: of the order.
        cool_to_mc: begin each run at this temperature or below; `None`: as warm as the first, a degree more at most.
        cool_ns: wait so long for it at most.
    """

    bundle: Path
    arguments: Sequence[str]
    output: Path
    seed: int = 0
    cool_to_mc: int | None = None
    cool_ns: int = COOL_NS


def junction_now(tree: Tree) -> int | None:
    """Temperature of the die (mC); `None` without a sensor."""
    zones: dict[str, int] = {}
    for zone in read_zones(tree):
        zones.setdefault(zone.name, zone.temperature_mc)
    name = junction_by_name(list(zones))
    return None if name is None else zones[name]


def order_of(modes: Sequence[Mode], seed: int) -> list[tuple[Mode, Clocks]]:
    """All pairs, shuffled."""
    kinds: tuple[Clocks, ...] = ("locked", "free")
    pairs = [(mode, clocks) for mode in modes for clocks in kinds]
    random.Random(seed).shuffle(pairs)  # noqa: S311 - an order, no secret
    return pairs


def sweep(plan: SweepPlan, tools: PowerTools, tell: Callable[[str], None]) -> Sweep:
    """Measure all modes. `sweep.json` is written after each, so that an interrupted sweep keeps what it has.

    Raises:
        DeviceStateError: the state cannot be read, so nothing was changed; or it could not be restored.
    """
    pairs, conductor = order_of(tools.modes(), plan.seed), _Conductor(plan, tools, tell)
    conductor.begin(pairs)
    with Guard(tools, plan.output):
        for index, (mode, clocks) in enumerate(pairs):
            tell(f"{index + 1} of {len(pairs)}: mode {mode.id} ({mode.name}), clocks {clocks}")
            conductor.measure(index, mode, clocks)
    return conductor.record


class _Conductor:
    """Takes the rows one by one, and keeps the record on disk as it grows."""

    def __init__(self, plan: SweepPlan, tools: PowerTools, tell: Callable[[str], None]) -> None:
        self._plan, self._tools, self._tell = plan, tools, tell
        start = junction_now(tools.tree)
        cool_to = plan.cool_to_mc if plan.cool_to_mc is not None or start is None else start + _COOLER_MC
        self._cool_to = None if start is None else cool_to
        self._rebooting: set[int] = set()
        self.record: Sweep

    def begin(self, pairs: Sequence[tuple[Mode, Clocks]]) -> None:
        rows = tuple(
            SweepRow(mode=mode.id, name=mode.name, clocks=clocks, outcome="not-tried", why=None)
            for mode, clocks in pairs
        )
        board = detect_board(self._tools.tree.root)
        self.record = Sweep(
            schema_=SCHEMA,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
            name=self._plan.bundle.name,
            board=None if board is None else board.id,
            seed=self._plan.seed,
            cool_to_mc=self._cool_to,
            found_mode=self._tools.mode(),
            found_clocks=self._tools.clocks(),
            runs=len(rows),
            rows=rows,
        )

    def measure(self, index: int, mode: Mode, clocks: Clocks) -> None:
        """One row; what goes wrong with it stands in it, and the next one is tried."""
        row = self.record.rows[index]
        try:
            if mode.id in self._rebooting:
                raise NeedsReboot
            self._tools.choose(mode.id)
            row = self._clocked(row, index, mode, clocks)
        except NeedsReboot:
            self._rebooting.add(mode.id)
            row = row.model_copy(update={"outcome": "needs-reboot", "why": "it takes effect after a restart only"})
        except NotReached as error:
            row = row.model_copy(update={"outcome": "not-reached", "why": str(error)})
        except (ChildError, DeviceStateError) as error:
            row = row.model_copy(update={"outcome": "failed", "why": str(error)})
        rows = (*self.record.rows[:index], row, *self.record.rows[index + 1 :])
        self.record = self.record.model_copy(update={"rows": rows})
        write_sweep(self.record, self._plan.output)

    def _clocked(self, row: SweepRow, index: int, mode: Mode, clocks: Clocks) -> SweepRow:
        """Measure with clocks locked, and then as the mode has them again; or free."""
        if clocks == "free":
            if self._tools.clocks() == "locked":
                raise NotReached("clocks stay locked in this mode: `jetson_clocks --restore` may know no free ones")
            return self._run(row, index, mode, clocks)
        stored = self._plan.output / f".clocks-{index}.conf"
        self._tools.store(stored)
        try:
            self._tools.lock()
            return self._run(row, index, mode, clocks)
        finally:
            self._tools.restore(stored)
            stored.unlink(missing_ok=True)

    def _run(self, row: SweepRow, index: int, mode: Mode, clocks: Clocks) -> SweepRow:
        reached = self._cool_down()
        start = junction_now(self._tools.tree)
        folder = f"{index:03d}-mode{mode.id}-{clocks}"
        result = run_once(self._plan.bundle, self._plan.arguments, self._plan.output / folder)
        row = filled(row, result, folder)
        if self._tools.mode() != mode.id or (self._tools.clocks() or clocks) != clocks:
            raise NotReached("mode or clocks were changed by something else while it ran")
        why = None if reached else f"it did not cool down to {(self._cool_to or 0) / 1000:.1f} °C before"
        return row.model_copy(update={"start_mc": start, "why": why})

    def _cool_down(self) -> bool:
        """Wait until it is cool enough; whether it got so in time."""
        if self._cool_to is None:
            return True
        limit = time.monotonic_ns() + self._plan.cool_ns
        told = False
        while True:
            now = junction_now(self._tools.tree)
            if now is None or now <= self._cool_to:
                return True
            if time.monotonic_ns() >= limit:
                return False
            if not told:
                self._tell(f"cooling down from {now / 1000:.1f} to {self._cool_to / 1000:.1f} °C …")
                told = True
            threading.Event().wait(_LOOK_S)
