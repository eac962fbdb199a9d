"""The slot ring: a lane behind four faces. One frame, a loop, a callback, asyncio; `ring_core` does the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

from numpy.typing import NDArray

from edgemed.base.errors import ResourceError
from edgemed.runtime.faces import AsyncStream, Frames, Requests, Stream, answer_of, iterate
from edgemed.runtime.frames import Answer, Arrays, Frame, Outcome
from edgemed.runtime.ring_core import RingCore
from edgemed.runtime.slots import Box


class Ring(RingCore):
    """Drives a lane. Frames enter at `submit`, outcomes leave at `collect`, in the order of submission.

    The faces stand on these two: `infer` for one frame, `run` for a source in a loop, `start` with a callback, `ainfer`
    and `astream` for asyncio. They may be used together and from several threads: an outcome goes to whoever put its
    frame in. Waiting for a result is done by the threads that ask for it; only live sources, `start` and the asyncio
    face have threads of their own.

    An answer holds its slot until it is released. `run`, `start` and `astream` release it when the loop goes on or the
    callback returns; `infer` and `ainfer` give copies; only after `collect` is it the caller's duty.

    Args:
        lane: entered and left together with the ring.
        policy: what happens when frames come faster than answers; it holds for the frames of every face.
        fill: writes a frame into a slot's memory; by default the frame's data are the model's feeds.
        depth: slots the lane works on at a time. Default: all; under `latest` two, or one where two gain nothing.
        on_drop: told of each frame that is dropped, in the thread where it happens. What it raises is raised there,
            once the frame is accounted for.
        spans: keep the stages of each frame, in `Answer.spans`.
    """

    _requests: Requests | None

    def _reset(self) -> None:
        super()._reset()
        self._requests = None

    def _end_faces(self) -> None:
        super()._end_faces()
        if self._requests is not None:
            self._requests.close()

    def infer(self, feeds: Arrays, *, deadline_ns: int | None = None) -> Answer:
        """Compute one frame and wait for it; its outputs are copies. Any number of threads may do so.

        Not from inside a loop of `run` or `astream`, or a callback of `start`: their frames are in all the slots.

        Raises:
            InputError: the feeds are not what the model takes.
            UsageError: this thread is in a loop of `run` or a callback, and would wait for itself.
            ResourceError: the frame was dropped, by policy or because the ring was closed.
            GpuError, …: what made the frame fail.
        """
        box = Box(sealed=True)
        try:
            self.submit(_frame(feeds, deadline_ns), box)
            return answer_of(self.collect(box), box)
        except BaseException:
            self.abandon(box)  # interrupted: nobody else would collect it
            raise

    def run(self, source: Frames) -> Generator[Outcome]:
        """Send a source through, and give its outcomes in order; each answer is released when the loop goes on.

        Frames of a source that is not live are taken in this thread: all slots are filled, then for each outcome one
        frame is taken. They are never superseded. A live source gets a thread; ending the loop early closes the source.

        Raises:
            Exception: what the source raised, after the outcomes of the frames that it gave.
        """
        return iterate(self, source)

    def start(self, source: Frames, on_outcome: Callable[[Outcome], None]) -> Stream:
        """Send a source through in two threads: one takes frames, one calls `on_outcome`, in order.

        An answer is released when the callback returns. If the callback or the source raises, the stream ends, and
        `Stream.wait` and `Stream.stop` raise it.
        """
        return Stream(self, source, on_outcome)

    async def ainfer(self, feeds: Arrays, *, deadline_ns: int | None = None) -> Answer:
        """`infer` for asyncio: the event loop never waits. Cancelled, the frame's answer is thrown away."""
        with self._lock:
            if self._ledger.closed:
                raise ResourceError("The ring is closed.", "Open it first.")
            if self._requests is None:
                self._requests = Requests(self)
            requests = self._requests
        return await requests.infer(_frame(feeds, deadline_ns))

    def astream(self, source: Frames) -> AsyncStream:
        """`run` for asyncio: `async with ring.astream(source) as stream: async for outcome in stream: …`.

        The source gets a thread. A cancelled wait for the next outcome loses none: the next wait gives it.
        """
        return AsyncStream(self, source)


def _frame(feeds: Mapping[str, NDArray[Any]], deadline_ns: int | None) -> Frame:
    now_ns = time.monotonic_ns()
    return Frame(now_ns, feeds, now_ns, deadline_ns)
