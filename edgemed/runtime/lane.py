"""The lane: what a ring drives. It owns N slots of input and output memory and computes one frame in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, runtime_checkable

from numpy.typing import NDArray

from edgemed.base.runner import RunnerInfo, RunnerSpecs

Shapes = Mapping[str, tuple[int, ...]]
Stage = tuple[str, int, int]  # name, start_ns, end_ns on the clock of time.monotonic_ns

SLOTS: Final = 4
"""Slots where nobody says how many. Three keep copies both ways and the computation busy; with the fourth, what is done
with an answer before its release overlaps too. It costs the inputs and outputs of one more frame (some 13 MB for a
1024x1024 colour image in FP32, twice that where device and host share no memory), no scratch memory of the engine, and
no delay of the newest frame: under `latest` the lane works on two slots at most, however many there are."""


class Lane(Protocol):
    """Slots are started and finished in the same order, each by one thread at a time; a ring sees to both.

    `timed` says whether `stages` is wanted, and is set before the lane is entered.

    `start` and `finish` may be called from different threads. The lane takes care of whatever a thread needs (a CUDA
    context) within each call, and leaves nothing behind in it.
    """

    timed: bool

    @property
    def specs(self) -> RunnerSpecs: ...

    @property
    def info(self) -> RunnerInfo: ...

    @property
    def slots(self) -> int: ...

    @property
    def overlaps(self) -> bool:
        """Whether a started slot gets on while an earlier one is computed."""
        ...

    def inputs(self, slot: int, shapes: Shapes | None = None) -> Mapping[str, NDArray[Any]]:
        """Host memory of a free slot that the caller fills before `start`.

        Args:
            slot: index from 0.
            shapes: of the inputs that may vary; `None` keeps those of the last time.

        Raises:
            InputError: a shape that the engine does not take.
        """
        ...

    def start(self, slot: int) -> None:
        """Enqueue the slot's copies and computation, and return at once.

        Raises:
            GpuError: the device refused; the slot is free again.
        """
        ...

    def finish(self, slot: int) -> Mapping[str, NDArray[Any]]:
        """Wait until a started slot is done. Gives views of its output memory, good until its next `start`.

        Raises:
            GpuError: the computation failed.
        """
        ...

    def stages(self, slot: int) -> Sequence[Stage]:
        """When the device worked on the slot finished last: `copy-in`, `compute`, `copy-out`, as far as is known."""
        ...

    def __enter__(self) -> Lane: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


@runtime_checkable
class MixedLane(Protocol):
    """A lane whose answers may come from different Runners: one that falls back on another."""

    def answered_by(self, slot: int) -> RunnerInfo:
        """Who computed the slot finished last in it."""
        ...
