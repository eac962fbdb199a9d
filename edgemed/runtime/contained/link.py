"""One generation's way to its worker: what it takes to ask for a slot, and to believe an answer."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.spans import Span
from edgemed.runtime.contained.loaded import Loaded
from edgemed.runtime.contained.protocol import Channel, Kind, Message, ProtocolError, unpack_stages
from edgemed.runtime.contained.requests import Arrays, Reply, Request
from edgemed.runtime.contained.shared import Shapes, Slots, pack_shapes, unpack_shapes
from edgemed.runtime.lane import Stage

Outputs = dict[str, NDArray[Any]]


class Link:
    """Made when a worker has loaded; thrown away when it is lost, and with it whatever it may still say.

    Args:
        channel: to the worker.
        generation: its number.
        loaded: what it said of itself.
        inputs: the slots that it reads.
        outputs: the slots that it writes, its own.
    """

    def __init__(self, channel: Channel, generation: int, loaded: Loaded, inputs: Slots, outputs: Slots) -> None:
        self.generation = generation
        self.loaded = loaded
        self.inputs = inputs
        self.outputs = outputs
        self._channel = channel

    def fill(self, slot: int, feeds: Arrays) -> None:
        """Put feeds into a slot that nobody else uses."""
        shapes = None if self.inputs.layout.fixed else {name: array.shape for name, array in feeds.items()}
        for name, target in self.inputs.arrays(slot, shapes).items():
            np.copyto(target, feeds[name], casting="no")

    def run(self, slot: int, number: int, shapes: Shapes) -> None:
        """Ask for what lies in a slot.

        Raises:
            OSError: the worker is gone, or does not read.
        """
        body = pack_shapes(self.inputs.layout, shapes)
        self._channel.send(Message(Kind.RUN, self.generation, slot, number, body))

    def answer(self, message: Message, into: Outputs | None = None) -> tuple[Outputs, list[Stage]]:
        """What a `DONE` message is about: copies of the outputs, and the stages.

        Args:
            message: it.
            into: where to put them, if they fit there; `None`: fresh arrays.

        Raises:
            ProtocolError: it tells of shapes or stages that cannot be.
        """
        shapes, rest = unpack_shapes(self.outputs.layout, message.body)
        stages = unpack_stages(rest)
        views = self.outputs.arrays(message.slot, shapes)
        if into is None or any(into[name].shape != view.shape for name, view in views.items()):
            return {name: view.copy() for name, view in views.items()}, stages
        for name, view in views.items():
            np.copyto(into[name], view)
        return into, stages

    def reply(self, request: Request, message: Message) -> Reply:
        """The reply that a `DONE` message gives to a request.

        Raises:
            ProtocolError: see `answer`.
        """
        outputs, stages = self.answer(message, request.into)
        spans = [Span("queue", request.submitted_ns, request.sent_ns, request.frame)]
        spans += [Span(name, start, end, request.frame) for name, start, end in stages]
        return Reply(outputs, self.loaded.info, tuple(spans), self.generation, request.tries)


def check_answer(message: Message, generation: int, kinds: Container[Kind]) -> None:
    """Hold a message against what may come now.

    Raises:
        ProtocolError: it is of another generation, or of a kind that makes no sense here.
    """
    if message.generation != generation:
        raise ProtocolError(f"a message of generation {message.generation}, in generation {generation}")
    if message.kind not in kinds:
        raise ProtocolError(f"a {message.kind.name} message at the wrong time")
