"""Inflated frames that stay in memory: how much of them there may be at a time, whatever threads read."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Final

from edgemed.base.errors import ResourceError
from edgemed.imaging.dicom.limits import MAX_INFLATED_BYTES
from edgemed.imaging.dicom.source import DeflatedSource, MemorySource, Span, read_spans

_PATIENCE_S: Final = 60.0


class Room:
    """Bytes that are held, by the thread that asked for them.

    A thread that holds some is not held up: two that wait for each other would wait for ever. What one opens
    together is bounded where it is opened: a series has a limit of its own, and two files are compared that are as
    large as each other. So all of it is at most twice the room, beside a series.

    Args:
        size: bytes that there are.

    Attributes:
        held: bytes that are held now.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.held = 0
        self._by_owner: dict[int, int] = {}
        self._changed = threading.Condition()  # the collector may come back to it in the same thread

    def enter(self, size: int, patience_s: float) -> int:
        """Hold some bytes, as soon as there is room; one that wants more than there is waits until it is alone.

        Returns:
            Who holds them, for `leave`.

        Raises:
            ResourceError: there was none in time.
        """
        owner = threading.get_ident()
        with self._changed:
            if not self._fits(owner, size):
                gc.collect()  # of files that nobody reads any more, some may lie in cycles
            if not self._changed.wait_for(lambda: self._fits(owner, size), patience_s):
                raise ResourceError(
                    f"Other deflated files are being read, and hold {self.held:,} of {self._size:,} bytes.",
                    "Try again later, or store them without deflating.",
                )
            self.held += size
            self._by_owner[owner] = self._by_owner.get(owner, 0) + size
        return owner

    def leave(self, owner: int, size: int) -> None:
        """They are held no more."""
        with self._changed:
            self.held -= size
            self._by_owner[owner] -= size
            if not self._by_owner[owner]:
                del self._by_owner[owner]
            self._changed.notify_all()

    def _fits(self, owner: int, size: int) -> bool:
        return not self.held or owner in self._by_owner or self.held + size <= self._size


_ROOM: Final = Room(MAX_INFLATED_BYTES)


def inflate(source: DeflatedSource, span: Span) -> MemorySource:
    """Inflate bytes that stay; waits while other threads hold too many.

    Raises:
        InputError, OSError: as `read_spans`.
        ResourceError: they held too many for a minute.
    """
    _, size = span
    owner = _ROOM.enter(size, _PATIENCE_S)
    try:
        kept = MemorySource(read_spans(source, [span]))
    except BaseException:
        _ROOM.leave(owner, size)
        raise
    weakref.finalize(kept, _ROOM.leave, owner, size)
    return kept
