"""What goes through a ring: a frame in; an answer, a failure or a drop out. Each frame ends in exactly one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, runtime_checkable

from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError
from edgemed.base.runner import RunnerInfo
from edgemed.base.spans import Span
from edgemed.recipe.image import Image

Arrays = Mapping[str, NDArray[Any]]
DropReason = Literal["superseded", "every-n", "late", "closed"]
DROP_REASONS: tuple[DropReason, ...] = ("superseded", "every-n", "late", "closed")


class _Released(Mapping[str, NDArray[Any]]):
    """Stands where the outputs of a released answer were."""

    def __getitem__(self, name: str) -> NDArray[Any]:
        raise self._error()

    def __iter__(self) -> Iterator[str]:
        raise self._error()

    def __len__(self) -> int:
        raise self._error()

    def __repr__(self) -> str:
        return "<released>"

    def _error(self) -> RuntimeError:
        return RuntimeError("the answer was released; take copies with keep() before that")


RELEASED: Arrays = _Released()


@dataclass(slots=True)
class Frame:
    """One frame of a source.

    Attributes:
        id: rising within a stream; spans and results carry it.
        data: arrays by name: the model's feeds, or what a fill function makes feeds of (sources give `"pixels"`).
        captured_ns: `time.monotonic_ns` of the capture, from the driver where it tells.
        deadline_ns: an answer after this is late; `None`: never.
        sequence: the driver's own number; a gap is a frame that was lost before it reached us.
        done: called once, when `data` is no longer needed: the source takes its buffer back.
        image: what a file says of the pixels, for the recipe; `None` where nothing but the pixels is known.
    """

    id: int
    data: Arrays
    captured_ns: int
    deadline_ns: int | None = None
    sequence: int | None = None
    done: Callable[[], None] | None = None
    image: Image | None = None


@dataclass(slots=True)
class Answer:
    """What the model gave for one frame.

    `outputs` are views of a slot's memory, good until `release`; `keep` gives copies. A context manager that releases.

    Attributes:
        late: it came after the frame's deadline.
        spans: stages of this frame, in order of their ends.
    """

    frame: int
    outputs: Arrays
    info: RunnerInfo
    captured_ns: int
    answered_ns: int
    late: bool = False
    spans: tuple[Span, ...] = ()
    _release: Callable[[], None] | None = field(default=None, repr=False)

    def keep(self) -> dict[str, NDArray[Any]]:
        """Copies of the outputs that stay when the slot is used again."""
        return {name: value.copy() for name, value in self.outputs.items()}

    def release(self) -> None:
        """Give the slot back; the views must not be touched any more. Doing it twice does no harm.

        Where spans are kept, the last one says how long the answer was held: `read`.
        """
        release, self._release = self._release, None
        if release is not None:
            if self.spans:
                self.spans += (Span("read", self.answered_ns, time.monotonic_ns(), self.frame),)
            self.outputs = RELEASED
            release()

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


@dataclass(frozen=True, slots=True)
class Failure:
    """A frame that got no answer, and why."""

    frame: int
    error: EdgemedError
    captured_ns: int
    failed_ns: int


@dataclass(frozen=True, slots=True)
class Drop:
    """A frame that was not computed, by policy."""

    frame: int
    reason: DropReason
    dropped_ns: int


Outcome = Answer | Failure


@dataclass(frozen=True, slots=True)
class Counts:
    """Where all frames of a ring are at one instant: `submitted` is the sum of the next three and `in_flight`.

    Attributes:
        dropped: by reason.
        in_flight: handed in, and neither answered nor failed nor dropped yet.
        lost: frames that never reached us, as far as the sources know.
    """

    submitted: int
    answered: int
    failed: int
    dropped: Mapping[DropReason, int]
    in_flight: int
    lost: int = 0

    @property
    def unaccounted(self) -> int:
        """Zero, or the ring has a bug."""
        return self.submitted - self.answered - self.failed - sum(self.dropped.values()) - self.in_flight


@runtime_checkable
class Source(Protocol):
    """Gives frames. A live source goes on whether or not they are taken; others wait.

    Attributes:
        live: frames come at their own pace.
        lost: frames the driver dropped before they reached us, as far as sequence numbers tell.
    """

    @property
    def live(self) -> bool: ...

    @property
    def lost(self) -> int: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """End the iteration, also one that waits in another thread. Doing it twice does no harm."""
        ...

    def __enter__(self) -> Source: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
