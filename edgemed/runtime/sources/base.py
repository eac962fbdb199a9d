"""What every source of frames shares: ids that rise, one reader at a time, and an end that can come from any thread.

A frame's `data` holds one array, `"pixels"`: `(rows, columns)` or `(rows, columns, 3)` in RGB, uint8 or uint16.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import TracebackType
from typing import Any, Final

from numpy.typing import NDArray

from edgemed.base.errors import UsageError
from edgemed.recipe.image import Image
from edgemed.runtime.frames import Frame

PIXELS: Final = "pixels"
SECOND: Final = 1_000_000_000  # ns


class FrameSource(ABC):
    """A source that is read by one thread and may be closed by any.

    A subclass opens its device in `_open`, gives frames from the generator `_frames` and lets go in `_release`. The
    generator looks at `_closing` wherever it waits; `_wake` ends a wait that looks at nothing. `_release` never runs
    beside `_frames`: the thread that reads calls it when it leaves, or `close` does where nobody reads.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._lost = 0
        self._ids = 0
        self._closing = threading.Event()
        self._turn = threading.Lock()  # held by whoever touches the device
        self._opened = False
        self._frames_left: Iterator[Frame] | None = None

    @property
    def live(self) -> bool:
        return self._live

    @property
    def lost(self) -> int:
        return self._lost

    def _open(self) -> None:  # noqa: B027 - not every source has something to do here
        """Open the device."""

    @abstractmethod
    def _frames(self) -> Iterator[Frame]:
        """Frames until the end, or until `_closing`."""

    def _wake(self) -> None:  # noqa: B027 - not every source has something to do here
        """End a wait in `_frames`, called when `_closing` is set."""

    def _release(self) -> None:  # noqa: B027 - not every source has something to do here
        """Let go of the device."""

    # --- the face

    def open(self) -> None:
        """Open the device, unless it is open.

        Raises:
            EdgemedError: it cannot be opened; says why and what to do.
        """
        with self._turn:
            self._open_once()

    def _open_once(self) -> None:
        if self._closing.is_set() or self._opened:
            return
        try:
            self._open()
        except BaseException:
            self._release()
            raise
        self._opened = True

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        """The next frame.

        Raises:
            StopIteration: the source has ended, or was closed.
            EdgemedError: the device failed.
        """
        try:
            with self._turn:
                self._open_once()
                if self._closing.is_set():
                    raise StopIteration
                if self._frames_left is None:
                    self._frames_left = self._frames()
                frame = next(self._frames_left)
            if self._closing.is_set():  # nobody is told of a frame that came with the end
                finish(frame)
                raise StopIteration
            return frame
        finally:
            self._let_go()

    def close(self) -> None:
        """End the iteration, also one that waits in another thread. Doing it twice does no harm."""
        self._closing.set()
        self._wake()
        self._let_go()

    def _let_go(self) -> None:
        """Release the device once it is closed and nobody is inside."""
        if self._closing.is_set() and self._turn.acquire(blocking=False):
            try:
                left, self._frames_left = self._frames_left, None
                if left is not None and hasattr(left, "close"):
                    left.close()
                if self._opened:
                    self._opened = False
                    self._release()
            finally:
                self._turn.release()

    def __enter__(self) -> FrameSource:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- for subclasses

    def _frame(
        self,
        pixels: NDArray[Any],
        captured_ns: int,
        *,
        sequence: int | None = None,
        done: Callable[[], None] | None = None,
        image: Image | None = None,
    ) -> Frame:
        """A frame with the next id."""
        frame = Frame(self._ids, {PIXELS: pixels}, captured_ns, sequence=sequence, done=done, image=image)
        self._ids += 1
        return frame

    def _until(self, when_ns: int) -> bool:
        """Wait until a time of `time.monotonic_ns`; `False` if the source is closed before."""
        while (left := when_ns - time.monotonic_ns()) > 0:
            if self._closing.wait(left / SECOND):
                return False
        return not self._closing.is_set()


def finish(frame: Frame) -> None:
    """Tell the source that a frame's data is no longer needed; once."""
    done, frame.done = frame.done, None
    if done is not None:
        done()


class Pace:
    """Intended times of frames at a steady rate: number `n` is due at start + n / rate, so lateness never adds up.

    Args:
        rate: frames per second, above 0.
        start_ns: of number 0.

    Raises:
        UsageError: the rate is no rate.
    """

    def __init__(self, rate: float | Fraction, start_ns: int) -> None:
        per_second = checked_rate(rate)
        self._start_ns = start_ns
        self._numerator = SECOND * per_second.denominator
        self._denominator = per_second.numerator

    def due_ns(self, number: int) -> int:
        """When a frame is due."""
        return self._start_ns + number * self._numerator // self._denominator

    def reached(self, now_ns: int) -> int:
        """How many frames are due by a time."""
        if now_ns < self._start_ns:
            return 0
        elapsed = now_ns - self._start_ns
        number = elapsed * self._denominator // self._numerator
        # the division above and that of `due_ns` round on their own
        while self.due_ns(number + 1) <= now_ns:
            number += 1
        return number + 1


def checked_rate(rate: float | Fraction) -> Fraction:
    """Frames per second as a fraction; decimals mean what they say (29.97 is 2997/100).

    Raises:
        UsageError: not a number above 0 and at most a million.
    """
    try:
        found = rate if isinstance(rate, Fraction) else Fraction(str(rate))
    except ValueError:
        found = Fraction(0)
    if not 0 < found <= 1_000_000:
        raise UsageError(f"{rate} is no rate of frames.", "Give frames per second, such as 25.")
    return found
