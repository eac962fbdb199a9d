"""Preparing on the device: work that a CUDA lane puts ahead of the model, on the same stream.

A slot of such a lane takes raw frames instead of the model's own input: `Prepare.raw` stands in the place of the inputs
named in `Prepare.makes`. For each slot the lane asks once for the work on that slot's addresses, and calls it for each
frame before the execution is enqueued; the work is one or more launches, and may be captured into a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from edgemed.base.runner import TensorSpec

if TYPE_CHECKING:
    from edgemed.runtime.arena import Arena
    from edgemed.runtime.cuda import Facts
    from edgemed.runtime.streams import Stream

Work = Callable[["Stream"], None]
"""Puts one frame's preparation on a stream, and returns at once. It allocates nothing; `GpuError` where refused."""


Choice = Callable[["Facts"], "Prepare | None"]
"""Asked once for each lane, when its engine is loaded and the device known: what prepares on this device, if anything.
By then the lane is nearly ready, so that a live source may be opened for the answer: few of its frames will wait."""


class Prepare(Protocol):
    """Makes inputs of a model out of raw frames. One for each lane."""

    @property
    def raw(self) -> tuple[TensorSpec, ...]:
        """What the host gives for each frame, all sizes known."""
        ...

    @property
    def makes(self) -> tuple[TensorSpec, ...]:
        """The inputs of the model that it writes, all sizes known."""
        ...

    def load(self, arena: Arena, stream: Stream) -> None:
        """Load kernels and tables into the arena, once, with the context current; returns when they are there.

        Raises:
            GpuError: the driver refused them.
        """
        ...

    def work(self, raw: Mapping[str, int], made: Mapping[str, int]) -> Work:
        """The work of one slot.

        Args:
            raw: device address of each raw buffer by name: a copy, or mapped host memory.
            made: device address of each input that it makes.
        """
        ...
