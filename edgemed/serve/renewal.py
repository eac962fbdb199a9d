"""Files that are read again while the daemon works: what cannot be used leaves the old in force, and is an alarm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgemed.base.errors import EdgemedError
from edgemed.serve.alarms import Alarms

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


def state_of(path: Path) -> State | None:
    """What changes when a file does, or who may read it; `None` where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
