"""The ring's faces: one frame, a loop, a callback, asyncio. All are `submit` and `collect` with a box of their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from edgemed.base.errors import ResourceError, UsageError
from edgemed.runtime.frames import Answer, Frame, Outcome, Source
from edgemed.runtime.slots import Box

if TYPE_CHECKING:
    from edgemed.runtime.ring_core import RingCore

Frames = Source | Iterable[Frame]
"""A source, or anything that gives frames when asked. Whoever made it enters and leaves it."""

_PATIENCE_S = 5.0  # for a source to end once it is closed; cameras give some frames each second

_log = logging.getLogger(__name__)


def answer_of(outcome: Outcome | None, box: Box) -> Answer:
    """A request's answer with copies of its outputs; the slot is free again.

    Raises:
        EdgemedError: what its frame ended in, where that is no answer.
    """
    if isinstance(outcome, Answer):
        with outcome:
            return replace(outcome, outputs=outcome.keep(), _release=None)
    if outcome is not None:
        raise outcome.error
    reason = box.drop.reason if box.drop is not None else "closed"
    raise ResourceError(f"The frame was dropped: {reason}.", "Send it again, or send fewer at a time.")


def _release(outcome: Outcome | None) -> None:
    if isinstance(outcome, Answer):
        outcome.release()


# ---------------------------------------------------------------- a loop


def iterate(ring: RingCore, source: Frames) -> Generator[Outcome]:
    """See `Ring.run`."""
    live = isinstance(source, Source) and source.live
    with contextlib.closing(_from_thread(ring, source) if live else _alternate(ring, source)) as outcomes:
        for outcome in outcomes:
            try:
                yield outcome
            finally:
                _release(outcome)


def _alternate(ring: RingCore, source: Frames) -> Generator[Outcome]:
    """Submit and collect in turn, in the caller's thread."""
    box = Box(sealed=True, thread=threading.get_ident())
    failure: Exception | None = None
    try:
        frames = iter(source)
        while not ring.closed:
            while box.pending and not ring.room():
                if (outcome := ring.collect(box)) is not None:
                    yield outcome
            try:
                frame = next(frames)
            except StopIteration:
                break
            except Exception as error:  # frames that it gave are inside: their outcomes come first
                failure = error
                break
            yield from _put(ring, frame, box)
        while (outcome := ring.collect(box)) is not None:
            yield outcome
        if failure is not None:
            raise failure
    finally:
        ring.abandon(box)
        ring.add_lost(getattr(source, "lost", 0))


def _put(ring: RingCore, frame: Frame, box: Box) -> Generator[Outcome]:
    """Submit a frame; where another producer is faster, our outcomes come first: others may wait for their slots."""
    mine = True
    try:
        while box.pending:
            mine = False
            mine = not ring.offer(frame, box)
            if not mine:
                return
            if (outcome := ring.collect(box)) is not None:
                yield outcome
        mine = False
        ring.submit(frame, box)
    finally:
        if mine:
            ring.refuse(frame, box)


def _from_thread(ring: RingCore, source: Frames) -> Generator[Outcome]:
    """Collect what a thread submits."""
    stream = Stream(ring, source)
    stream.box.thread = threading.get_ident()
    try:
        while (outcome := ring.collect(stream.box)) is not None:
            yield outcome
        stream.wait()
    finally:
        stream.end()


# ---------------------------------------------------------------- threads


class Stream:
    """A source that runs through a ring in threads of its own. A context manager that stops.

    Attributes:
        box: where its outcomes are, if there is no callback.
    """

    def __init__(self, ring: RingCore, source: Frames, on_outcome: Callable[[Outcome], None] | None = None) -> None:
        self.box = Box()
        self._ring = ring
        self._source = source
        self._on_outcome = on_outcome
        self._stopping = False
        self._error: Exception | None = None
        self._produced = threading.Event()
        self._consumed = threading.Event()
        self._threads = [threading.Thread(target=self._produce, name="edgemed-frames", daemon=True)]
        if on_outcome is None:
            self._consumed.set()
        else:
            self._threads.append(threading.Thread(target=self._consume, name="edgemed-outcomes", daemon=True))
        ring.attach(self)
        for thread in self._threads:
            thread.start()

    @property
    def lost(self) -> int:
        """Frames that the source lost before the ring saw them."""
        return int(getattr(self._source, "lost", 0))

    @property
    def here(self) -> bool:
        """Whether this is one of its threads, as in its callback."""
        return threading.current_thread() in self._threads

    def wait(self) -> None:
        """Wait until the source has ended and all outcomes were delivered.

        Raises:
            UsageError: this is one of its threads, and would wait for itself.
            Exception: what the source or the callback raised first.
        """
        if self.here:
            raise UsageError(
                "A callback, or a source, cannot wait for its own stream.", "Wait in another thread, or call `stop`."
            )
        self._produced.wait()
        self._consumed.wait()
        self._ring.detach(self)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Take no more frames of the source; those inside are still computed and delivered. Then as `wait`."""
        self._stopping = True
        self._close_source()
        if not self.here:
            self.wait()

    def end(self) -> None:
        """End at once: what is inside is dropped. Raises nothing; for the faces and the ring's own end.

        Not in a thread of its own, which the ring refuses to be left in.
        """
        self._stopping = True
        self._ring.discard(self.box)
        self._close_source()
        if not self._produced.wait(_PATIENCE_S):
            _log.warning("A source did not end within %.0f s of being closed; its thread is left behind.", _PATIENCE_S)
        self._consumed.wait()
        self._ring.abandon(self.box)
        self._ring.detach(self)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _close_source(self) -> None:
        if isinstance(self._source, Source):
            self._source.close()

    def _produce(self) -> None:
        try:
            for frame in self._source:
                self._ring.submit(frame, self.box)
                if self._stopping or self._ring.closed:
                    break
        except Exception as error:
            self._fail(error, "The source of a stream failed.")
        finally:
            self._ring.seal(self.box)
            self._produced.set()

    def _consume(self) -> None:
        assert self._on_outcome is not None
        self.box.thread = threading.get_ident()
        try:
            while (outcome := self._ring.collect(self.box)) is not None:
                try:
                    self._on_outcome(outcome)
                finally:
                    _release(outcome)
        except Exception as error:
            self._fail(error, "The callback of a stream failed.")
            self._stopping = True
            self._ring.abandon(self.box)
            self._close_source()
        finally:
            self._consumed.set()

    def _fail(self, error: Exception, what: str) -> None:
        _log.error(what, exc_info=error)
        if self._error is None:
            self._error = error


# ---------------------------------------------------------------- asyncio


class AsyncStream:
    """The outcomes of a source, for `async for`; see `Ring.astream`. An asynchronous context manager that ends it."""

    def __init__(self, ring: RingCore, source: Frames) -> None:
        self._ring = ring
        self._stream = Stream(ring, source)
        self._pool = ThreadPoolExecutor(1, "edgemed-collect")
        self._coming: Future[Outcome | None] | None = None
        self._given: Outcome | None = None
        self._over = False

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Outcome:
        given, self._given = self._given, None
        _release(given)
        if self._over:
            raise StopAsyncIteration
        if self._coming is None:
            self._coming = self._pool.submit(self._ring.collect, self._stream.box)
        outcome = await asyncio.shield(asyncio.wrap_future(self._coming))
        self._coming = None
        if outcome is None:
            await self.aclose()
            self._stream.wait()  # raises what the source raised; it has ended
            raise StopAsyncIteration
        self._given = outcome
        return outcome

    async def aclose(self) -> None:
        """End the stream: the source is closed, what is inside is dropped. Doing it twice does no harm."""
        if not self._over:
            self._over = True
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._end))

    def _end(self) -> None:
        self._stream.end()
        self._pool.shutdown()
        if self._coming is not None:
            _release(self._coming.result())
        _release(self._given)

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class Requests:
    """Frames that coroutines wait for: one thread submits, one collects, the event loop only learns of the end."""

    def __init__(self, ring: RingCore) -> None:
        self._ring = ring
        self._submitter = ThreadPoolExecutor(1, "edgemed-submit")
        self._collector = ThreadPoolExecutor(1, "edgemed-collect")

    async def infer(self, frame: Frame) -> Answer:
        """See `Ring.ainfer`."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        box = Box(sealed=True)
        try:
            self._submitter.submit(self._submit, frame, box, loop, answered)
        except RuntimeError as error:
            raise ResourceError("The ring is closed.", "Open it anew.") from error
        try:
            return await answered
        except asyncio.CancelledError:
            self._ring.discard(box)
            raise

    def close(self) -> None:
        """Wait for both threads; the ring is closed, so nothing keeps them."""
        self._submitter.shutdown()
        self._collector.shutdown()

    def _submit(
        self, frame: Frame, box: Box, loop: asyncio.AbstractEventLoop, answered: asyncio.Future[Answer]
    ) -> None:
        try:
            self._ring.submit(frame, box)
        except Exception as error:  # of `on_drop`: the frame is accounted for all the same
            _tell(loop, answered, error)
        finally:
            self._collector.submit(self._collect, box, loop, answered)

    def _collect(self, box: Box, loop: asyncio.AbstractEventLoop, answered: asyncio.Future[Answer]) -> None:
        try:
            _tell(loop, answered, answer_of(self._ring.collect(box), box))
        except Exception as error:
            _tell(loop, answered, error)


def _tell(loop: asyncio.AbstractEventLoop, answered: asyncio.Future[Answer], outcome: Answer | Exception) -> None:
    def settle() -> None:
        if answered.done():  # cancelled
            return
        if isinstance(outcome, Answer):
            answered.set_result(outcome)
        else:
            answered.set_exception(outcome)

    with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
        loop.call_soon_threadsafe(settle)
