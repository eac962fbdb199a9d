"""One daemon for one state: two would sweep each other's files."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgemed.base.errors import DeviceStateError, from_os_error

_NAME = "daemon.lock"


@contextmanager
def state_lock(root: Path) -> Iterator[None]:
    """Hold a daemon's state. The lock is that of the open file, which no child inherits: it ends with the process.

    A lock of the process (`lockf`) would end when any part of it closes the same file, as `is_served` does.

    Raises:
        DeviceStateError: another daemon has it.
        ResourceError: the state cannot be written.
    """
    try:
        file = os.open(root / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise from_os_error(error, root) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DeviceStateError(
                f"Another daemon serves {root}.", "Stop it, or give this one a state of its own."
            ) from error
        yield
    finally:
        os.close(file)


def is_served(root: Path) -> bool:
    """Whether a daemon, in this process or another, has that state now."""
    try:
        file = os.open(root / _NAME, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(file)
