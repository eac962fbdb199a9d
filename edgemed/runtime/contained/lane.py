"""A contained model as a lane: its slots lie in the shared memory, so a ring fills them where the worker reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from edgemed.base.errors import ResourceError
from edgemed.base.runner import RunnerInfo, RunnerSpecs
from edgemed.runtime.contained.requests import Reply, Request
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.runtime.contained.shared import Layout, Shapes, Slots, create
from edgemed.runtime.lane import Stage


class ContainedLane:
    """Gives a `ContainedRunner` a lane's slots.

    The memory of the inputs is the same for all workers that are built one after the other, and no worker can write to
    it: a frame whose worker is lost is computed by the next one, or by the fallback. Outputs are copies in this
    process's own memory, made when the answer is believed; they are used again.

    Args:
        runner: entered and left with the lane; made with as many `lane_slots`.
        slots: frames that may be filled, computed or held at a time.
        retries: how many more workers may be asked for a frame when one is lost under way.
    """

    overlaps = True

    def __init__(self, runner: ContainedRunner, slots: int = 3, *, retries: int = 1) -> None:
        if not 1 <= slots <= runner.lane_slots:
            raise ValueError(f"the runner was made with {runner.lane_slots} slots for a lane, not {slots}")
        self._runner = runner
        self._slots = slots
        self._retries = retries
        self._memory: Slots | None = None
        self._home: object | None = None
        self._requests: list[Future[Reply] | None] = [None] * slots
        self._replies: list[Reply | None] = [None] * slots

    @property
    def timed(self) -> bool:
        """Whether `stages` tells those of the device; set before entering."""
        return self._runner.timed

    @timed.setter
    def timed(self, timed: bool) -> None:
        self._runner.timed = timed

    @property
    def specs(self) -> RunnerSpecs:
        return self._runner.specs

    @property
    def info(self) -> RunnerInfo:
        return self._runner.info

    @property
    def slots(self) -> int:
        return self._slots

    def answered_by(self, slot: int) -> RunnerInfo:
        """Who computed the slot finished last in it: the model's own worker, or the fallback."""
        reply = self._replies[slot]
        return self.info if reply is None else reply.info

    def __enter__(self) -> ContainedLane:
        self._runner.__enter__()
        try:
            self._memory, self._home = self._runner.model.inputs, self._runner.model.desk
            if self._memory is None:  # nothing but the fallback could be started: its slots are filled by copies
                self._memory, self._home = self._own_memory(), None
        except BaseException:
            self._runner.close()
            raise
        return self

    def _own_memory(self) -> Slots:
        layout = Layout.of(self.specs.inputs, self._runner.model.read().greatest, self._slots)
        descriptor = create("edgemed-lane", layout.size)
        try:
            return Slots(descriptor, layout, write=True)
        finally:
            os.close(descriptor)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runner.__exit__(kind, value, traceback)
        self._memory = None

    def inputs(self, slot: int, shapes: Shapes | None = None) -> Mapping[str, NDArray[Any]]:
        """See `Lane.inputs`."""
        return self._entered.arrays(slot, shapes)

    def start(self, slot: int) -> None:
        """Ask for the slot. What goes wrong, a refusal too, is raised by `finish`."""
        last = self._replies[slot]
        request = Request(
            self._entered.arrays(slot),
            retries=self._retries,
            home=self._home,
            slot=slot,
            into=None if last is None else last.outputs,
        )
        self._requests[slot] = request.future
        try:
            self._runner.place(request)
        except BaseException:  # Ctrl-C: it may wait for nobody now
            request.fail(ResourceError("The request was interrupted.", "Ask again."))
            raise

    def finish(self, slot: int) -> Mapping[str, NDArray[Any]]:
        """Wait for the answer; the outputs are good until the slot's next `start`.

        Raises:
            EdgemedError: there is none, and why.
        """
        future = self._requests[slot]
        assert future is not None, "a slot is started before it is finished"
        reply = future.result()  # on Ctrl-C the slot is still under way: it can be finished again
        self._replies[slot] = reply
        return reply.outputs

    def stages(self, slot: int) -> Sequence[Stage]:
        """When the worker worked on the slot finished last."""
        reply = self._replies[slot]
        spans = () if reply is None else reply.spans[1:]  # the first one is our own: it waited
        return [(span.name, span.start_ns, span.end_ns) for span in spans]

    @property
    def _entered(self) -> Slots:
        if self._memory is None:
            raise RuntimeError("the lane was not entered")
        return self._memory
