"""How long work tells people where it is. Rooms report to a `Progress`; only `cli` knows about terminals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Stage(Protocol):
    """One line of progress."""

    def total(self, steps: int | None) -> None:
        """Say how many steps there are, once known."""
        ...

    def advance(self, steps: int = 1) -> None:
        """Report finished steps."""
        ...

    def note(self, text: str) -> None:
        """Set the text that stands behind the stage's name when it is done (its result in a few words)."""
        ...


class Progress(Protocol):
    """Opens stages."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Stage]:
        """A progress line for the block; it ends as done, or as failed when the block raises."""
        ...


class _SilentStage:
    def total(self, steps: int | None) -> None: ...

    def advance(self, steps: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


class SilentProgress:
    """Reports nothing: for library use and tests."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:  # noqa: ARG002 - the protocol's signature
        yield _SilentStage()
