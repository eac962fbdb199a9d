"""The error tree. Each leaf knows its exit code; each instance says what is wrong and what to do.

    EdgemedError
    ├── GateError             1   a measured gate, parity or golden check failed
    ├── UsageError            2   the command was asked for something it cannot mean
    ├── InputError            2   a file or value handed in is not what it must be
    │   └── UnsafeModelError  2   loading it would run code nobody allowed
    ├── InconclusiveError     3   more samples are needed for a verdict
    ├── MissingSoftwareError  4   an optional package is not installed
    ├── DeviceStateError      4   the board is not in the state asked for
    ├── IntegrityError        5   bytes, hash or signature do not match
    └── ResourceError         6   disk, permission, memory or a killed child
        ├── ChildError        6   a child process died or broke the protocol
        └── GpuError          6   the GPU or its driver failed; `sticky` where only a new process helps
            └── GpuMemoryError  6  the GPU has no memory left

Ctrl-C is 130, SIGTERM 143, and every other exception 70: a bug of ours.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXIT_BUG = 70
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141  # 128 + SIGPIPE, what a shell reports of a program whose reader went away
EXIT_TERMINATED = 143


class EdgemedError(Exception):
    """Something a user can act on: one sentence on what is wrong, one on what to do."""

    exit_code = EXIT_BUG

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".rstrip()


class GateError(EdgemedError):
    """A measured gate, parity or golden check failed."""

    exit_code = 1


class UsageError(EdgemedError):
    """The command line asks for something that has no meaning."""

    exit_code = 2


class InputError(EdgemedError):
    """A file or value handed in is not what it must be."""

    exit_code = 2


class UnsafeModelError(InputError):
    """Loading this model would run code that nobody allowed."""


class InconclusiveError(EdgemedError):
    """The measurement cannot decide yet; the message says how many more samples it takes."""

    exit_code = 3


class MissingSoftwareError(EdgemedError):
    """An optional package is not installed."""

    exit_code = 4


class DeviceStateError(EdgemedError):
    """The board or GPU is not in the state that was asked for."""

    exit_code = 4


class IntegrityError(EdgemedError):
    """Bytes, hash or signature do not match what the manifest says."""

    exit_code = 5


class ResourceError(EdgemedError):
    """Disk, permission, memory: the environment did not let us finish."""

    exit_code = 6


class ChildError(ResourceError):
    """A child process died or broke its protocol."""


class GpuError(ResourceError):
    """The GPU or its driver failed.

    Attributes:
        sticky: every later call in this process would fail too, or answer wrongly: no answer may leave it any more.
    """

    def __init__(self, what: str, hint: str = "", *, sticky: bool = False) -> None:
        super().__init__(what, hint)
        self.sticky = sticky


class GpuMemoryError(GpuError):
    """The GPU has no memory left for what was asked; the process is sound."""


class Terminated(BaseException):
    """SIGTERM arrived; raised in the main thread so that `finally` blocks clean up."""


_OS_HINTS = {
    errno.ENOSPC: ("The disk is full", "Free some space, or choose another place."),
    errno.EDQUOT: ("The disk quota is used up", "Free some space, or choose another place."),
    errno.EACCES: ("Permission denied", "Choose a place you may write to, or fix the permissions."),
    errno.EPERM: ("Not permitted", "Choose a place you may write to, or fix the permissions."),
    errno.EROFS: ("The file system is read-only", "Choose another place."),
    errno.ENOMEM: ("Out of memory", "Close other programs or add swap, then try again."),
    errno.EMFILE: ("Too many open files", "Raise the limit of open files: LimitNOFILE, or ulimit -n."),
    errno.ENFILE: ("Too many open files in the system", "Raise fs.file-max, or close other programs."),
    errno.ENOTDIR: ("A part of the path is a file, not a directory", "Choose another place."),
    errno.ENAMETOOLONG: ("The name is too long", "Choose a shorter one."),
    errno.ENOENT: ("The path does not exist", "Check the path."),
}


def from_os_error(error: OSError, path: Path | str | None = None) -> ResourceError:
    """Turn an `OSError` into a `ResourceError` that says what to do (exit code 6)."""
    what, hint = _OS_HINTS.get(error.errno or 0, (error.strerror or str(error), "Check the path and the disk."))
    where = path if path is not None else error.filename
    return ResourceError(f"{what}: {where}." if where is not None else f"{what}.", hint)


def out_of_handles(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is that no more files may be open: it says nothing about this one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            return True
        error = error.__cause__
    return False


@contextmanager
def os_errors_as_resource(path: Path | str | None = None) -> Iterator[None]:
    """Raise `ResourceError` for any `OSError` or `MemoryError` inside the block."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, path) from error
    except MemoryError as error:
        raise ResourceError("Out of memory.", "Close other programs or add swap, then try again.") from error
