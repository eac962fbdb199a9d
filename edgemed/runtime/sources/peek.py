"""A source whose first frame may be looked at before anybody takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgemed.runtime.frames import Frame, Source
from edgemed.runtime.sources.around import SourceAround
from edgemed.runtime.sources.base import finish


class PeekedSource(SourceAround):
    """Another source, which tells what its frames are before the first is taken.

    What can be opened twice is better looked at by a second source: the time of a file's frames does not begin with the
    look. Of what cannot, the first frame is kept.

    Args:
        source: entered and left with this one, or entered when `first` is asked for.
        again: makes another source of the same frames.
    """

    def __init__(self, source: Source, again: Callable[[], Source] | None = None) -> None:
        super().__init__(source)
        self._again = again
        self._left: Iterator[Frame] | None = None
        self._first: Frame | None = None

    def first(self) -> Frame | None:
        """The first frame, or one like it; `None` if there is none, or it is gone. It stays the source's.

        Raises:
            EdgemedError: the source cannot be opened, or has failed.
        """
        if self._again is not None:
            with self._again() as other:
                return next(iter(other), None)
        if self._left is None:
            self.source.__enter__()
            self._left = iter(self.source)
            self._first = next(self._left, None)
        return self._first

    def __iter__(self) -> Iterator[Frame]:
        if self._left is None:
            self._left = iter(self.source)
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._left

    def close(self) -> None:
        """See `Source.close`."""
        first, self._first = self._first, None
        if first is not None:
            finish(first)
        super().close()
