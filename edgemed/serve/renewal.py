"""Files that are read again while the daemon works: what cannot be used leaves the old in force, and is an alarm."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from edgemed.base.errors import EdgemedError, ResourceError
from edgemed.serve.alarms import Alarms

T = TypeVar("T")

Told = Callable[[EdgemedError | None], None]
"""Called with what is wrong with changed files, or with `None` where they are right."""

State = tuple[int, int, int, int]


def untold(_: EdgemedError | None) -> None:
    """Where nobody is to be told."""


def teller(alarms: Alarms, subject: str) -> Told:
    """Raise the alarm `config-failed`, and clear it.

    Args:
        alarms: of the daemon.
        subject: which files, for people: 'tokens', 'certificate of http'.
    """

    def tell(error: EdgemedError | None) -> None:
        if error is None:
            alarms.clear("config-failed", subject)
        else:
            alarms.raise_("config-failed", f"The changed {subject} is not taken, the old stays: {error.what}", subject)

    return tell


def states_of(paths: Iterable[Path]) -> tuple[State | None, ...]:
    """What changes when one of the files does, or who may read it; `None` where it is not there."""
    return tuple(_state_of(path) for path in paths)


class Renewed(Generic[T]):
    """What files say, as they are now. What cannot be used leaves the last that could in force.

    Args:
        paths: of the files.
        read: raises `InputError` where they say nothing that can be used: they are read again when they change; raises
            `ResourceError` where they could not be read: that may pass, and the next look tries again.
        told: whether what has changed can be used.

    Raises:
        EdgemedError: they cannot be used at the start.
    """

    def __init__(self, paths: Iterable[Path], read: Callable[[], T], told: Told = untold) -> None:
        self._paths = tuple(paths)
        self._read = read
        self._told = told
        self._wrong: str | None = None
        self._lock = threading.Lock()
        self._seen: tuple[State | None, ...] = states_of(self._paths)
        self._value = read()
        told(None)

    def now(self) -> T:
        """Look at the files, and read them where they have changed."""
        with self._lock:
            seen = states_of(self._paths)  # before they are read: what changes meanwhile is seen next time
            if seen != self._seen:
                try:
                    self._value = self._read()
                except ResourceError as error:
                    self._seen = ()  # they are read again even where they come back as they were
                    self._tell(error)
                except EdgemedError as error:
                    self._seen = seen
                    self._tell(error)
                else:
                    self._seen = seen
                    self._tell(None)
            return self._value

    def _tell(self, error: EdgemedError | None) -> None:
        """Once: the looks go on, each second perhaps, and the alarm is in the journal."""
        wrong = None if error is None else error.what
        if wrong != self._wrong:
            self._wrong = wrong
            self._told(error)


def _state_of(path: Path) -> State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
