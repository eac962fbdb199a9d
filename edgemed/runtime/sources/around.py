"""What all sources share that stand around another one."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

from edgemed.runtime.frames import Frame, Source

Around = TypeVar("Around", bound="SourceAround")


class SourceAround:
    """Lives as long as the source it stands around, which is entered, closed and left with it.

    Args:
        source: that one.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def live(self) -> bool:
        return self.source.live

    @property
    def lost(self) -> int:
        return self.source.lost

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.source)

    def close(self) -> None:
        """See `Source.close`."""
        self.source.close()

    def __enter__(self: Around) -> Around:
        self.source.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        self.source.__exit__(kind, value, traceback)
