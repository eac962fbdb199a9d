"""A source that ends after so many frames, or so much time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from edgemed.base.errors import UsageError
from edgemed.runtime.frames import Frame, Source
from edgemed.runtime.sources.around import SourceAround


class LimitedSource(SourceAround):
    """Another source, up to a limit. The time runs from the first frame that is asked for.

    Args:
        source: entered and left with this one.
        frames: at most so many are given.
        seconds: after which the source is closed; what it gave by then still goes its way.

    Raises:
        UsageError: a limit below 1 frame, or no time at all.
    """

    def __init__(self, source: Source, *, frames: int | None = None, seconds: float | None = None) -> None:
        if frames is not None and frames < 1:
            raise UsageError(f"{frames} frames are none.", "Give 1 or more.")
        if seconds is not None and not 0 < seconds <= threading.TIMEOUT_MAX:
            raise UsageError(f"{seconds:g} seconds are no time to run.", "Give some seconds.")
        super().__init__(source)
        self._frames = frames
        self._seconds = seconds
        self._timer: threading.Timer | None = None

    def __iter__(self) -> Iterator[Frame]:
        if self._seconds is not None and self._timer is None:
            self._timer = threading.Timer(self._seconds, self.source.close)
            self._timer.daemon = True
            self._timer.start()
        for given, frame in enumerate(self.source, start=1):
            yield frame
            if given == self._frames:
                return

    def close(self) -> None:
        """See `Source.close`."""
        if self._timer is not None:
            self._timer.cancel()
        super().close()
