"""CUDA graphs: what a slot puts on its stream each time is recorded once, and put there by one call from then on."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edgemed.runtime.arena import Arena
from edgemed.runtime.driver import Graph
from edgemed.runtime.streams import Stream

_MOST_CAPTURES = 8  # of one slot: where shapes keep changing, recording costs more than it saves

_log = logging.getLogger(__name__)


class Recorded:
    """What one slot has recorded."""

    __slots__ = ("captures", "enqueued", "generation", "graph")

    def __init__(self) -> None:
        self.graph: Graph | None = None
        self.generation = -1  # of the graph
        self.enqueued = -1  # generation of the last normal enqueue
        self.captures = 0


class Replay:
    """Records each slot's work after it ran once as it is, and replays it; without, where that is refused.

    A graph is for one slot (its addresses) and one generation: as long as the execution context keeps its shapes.
    TensorRT may keep state of the shapes in the context, so an earlier generation's graph is never replayed.

    Args:
        arena: owns the graphs.
        refused: why not to record at all; empty: do.
    """

    def __init__(self, arena: Arena, refused: str = "") -> None:
        self._arena = arena
        self._refused = refused
        self._replayed = False

    @property
    def state(self) -> str:
        """`replayed`, `not used: …` with the reason, or `not yet recorded`."""
        if self._refused:
            return f"not used: {self._refused}"
        return "replayed" if self._replayed else "not yet recorded"

    def put(self, mine: Recorded, generation: int, stream: Stream, work: Callable[[], None]) -> None:
        """Put a slot's work on its stream, in whichever way.

        Raises:
            GpuError, …: what `work` raises; the driver refused.
        """
        if not self._refused:
            if mine.generation != generation and mine.enqueued == generation and mine.captures < _MOST_CAPTURES:
                self._record(mine, generation, stream, work)
            if mine.graph is not None and mine.generation == generation:
                mine.graph.launch(stream.handle)
                self._replayed = True
                return
        work()
        mine.enqueued = generation

    def _record(self, mine: Recorded, generation: int, stream: Stream, work: Callable[[], None]) -> None:
        captured = self._arena.capture(stream, work)
        if not isinstance(captured, Graph):
            self._refused = captured.reason
            _log.info("CUDA graphs are not used: %s", captured.reason)
            return
        if mine.graph is not None:
            mine.graph.destroy()
        mine.graph, mine.generation = captured, generation
        mine.captures += 1
