"""Berths: slots of the shared memory that are filled before anybody knows whether a worker will be asked for them.

What comes from a socket can so be put where the worker reads it, without a copy. A berth is free again as soon as
nobody has it any more: not who fills it, not a request that waits, and not a worker that may be reading it still.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from edgemed.runtime.contained.supervisor import Supervisor


class Berth(dict[str, NDArray[Any]]):
    """Feeds that lie in a slot. Who took it fills them, and changes nothing once it was submitted.

    Args:
        feeds: views of the slot.
        home: the slots that it is one of, as in `Request`.
        slot: likewise.
        free: called with the slot when nobody has it any more.
    """

    def __init__(self, feeds: Mapping[str, NDArray[Any]], home: object, slot: int, free: Callable[[int], None]) -> None:
        super().__init__(feeds)
        self.home = home
        self.slot = slot
        self._free = free

    def __del__(self) -> None:
        self._free(self.slot)


class Berths:
    """Gives them out, in any thread.

    Args:
        supervisor: of the workers that read them; the memory is the same for all of these.
        slots: its reserved ones that are berths.
    """

    def __init__(self, supervisor: Supervisor, slots: range) -> None:
        self._supervisor = supervisor
        self._free = deque(slots)

    def take(self) -> Berth | None:
        """One that is free; `None` where there is none, no worker has loaded yet, or shapes vary."""
        inputs = self._supervisor.inputs
        if inputs is None or not inputs.layout.fixed:
            return None
        try:
            slot = self._free.pop()
        except IndexError:
            return None
        return Berth(inputs.arrays(slot), self._supervisor.desk, slot, self._free.append)
