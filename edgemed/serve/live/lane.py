"""A lane through the daemon's own model: frames of a stream go where everything else goes, before what is not live."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError
from edgemed.base.quantity import SECOND
from edgemed.base.runner import RunnerInfo, RunnerSpecs
from edgemed.runtime.contained.requests import Reply
from edgemed.runtime.lane import SLOTS, Shapes, Stage
from edgemed.serve.models.served import Served

_LEAST_WANTED_NS: Final = 2 * SECOND


class ServedLane:
    """See `Lane` and `MixedLane`.

    Args:
        served: the model.
        stale_ns: an answer is due within that; after twice that, two seconds at least, nobody wants it.
        slots: frames under way at a time.
    """

    overlaps = True

    def __init__(self, served: Served, stale_ns: int, slots: int = SLOTS) -> None:
        self.timed = False
        self.served = served
        self._stale_ns = stale_ns
        self._slots = slots
        self._memory: list[dict[str, NDArray[Any]]] = [{} for _ in range(slots)]
        self._asked: list[Future[Reply] | None] = [None] * slots
        self._replies: list[Reply | None] = [None] * slots

    @property
    def specs(self) -> RunnerSpecs:
        return self.served.specs

    @property
    def info(self) -> RunnerInfo:
        return self.served.info

    @property
    def slots(self) -> int:
        return self._slots

    def answered_by(self, slot: int) -> RunnerInfo:
        """See `MixedLane.answered_by`."""
        reply = self._replies[slot]
        return self.info if reply is None else reply.info

    def inputs(self, slot: int, shapes: Shapes | None = None) -> Mapping[str, NDArray[Any]]:
        """See `Lane.inputs`."""
        memory = self._memory[slot]
        for spec in self.specs.inputs:
            wanted = (shapes or {}).get(spec.name)
            if wanted is None:
                wanted = memory[spec.name].shape if spec.name in memory else tuple(size or 1 for size in spec.shape)
            if spec.name not in memory or memory[spec.name].shape != wanted:
                memory[spec.name] = np.zeros(wanted, spec.dtype)
        return memory

    def start(self, slot: int) -> None:
        """See `Lane.start`; a refusal is raised by `finish`."""
        now_ns = time.monotonic_ns()
        wanted_ns = max(2 * self._stale_ns, _LEAST_WANTED_NS)
        try:
            asked = self.served.submit(
                self._memory[slot], due_ns=now_ns + self._stale_ns, deadline_ns=now_ns + wanted_ns, live=True
            )
        except EdgemedError as error:
            asked = Future()
            asked.set_exception(error)
        self._asked[slot] = asked

    def finish(self, slot: int) -> Mapping[str, NDArray[Any]]:
        """See `Lane.finish`.

        Raises:
            EdgemedError: there is no answer, and why.
        """
        asked = self._asked[slot]
        assert asked is not None, "a slot is started before it is finished"
        self._replies[slot] = None
        reply = self._replies[slot] = asked.result()
        return reply.outputs

    def stages(self, slot: int) -> Sequence[Stage]:
        """See `Lane.stages`."""
        reply = self._replies[slot]
        return [] if reply is None else [(span.name, span.start_ns, span.end_ns) for span in reply.spans]

    def __enter__(self) -> ServedLane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The model is the daemon's, and stays."""
