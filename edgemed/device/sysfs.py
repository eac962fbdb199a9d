"""Small files of the kernel and of the system, read under a root that tests can choose.

What is read may be anything: missing, huge, a pipe that nobody writes to, bytes that are no text. A reader gets at most
`limit` bytes of a regular file, or None. Nothing here raises for what a file holds, blocks, or writes.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

_LIMIT: Final = 1 << 16
_MOST_LINKS: Final = 40  # as the kernel's own limit
_INTEGER: Final = re.compile(r"\s*([+-]?\d{1,19})\b")
_NUMBERS_IN_NAMES: Final = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Tree:
    """A file system under `root`; paths are relative to it, and its absolute links stay inside it."""

    root: Path = Path("/")

    @property
    def is_this_machine(self) -> bool:
        """Whether `root` is the running system's own."""
        return self.root == Path("/")

    def data(self, path: str, limit: int = _LIMIT) -> bytes | None:
        """The first `limit` bytes of a regular file; None where there is none that can be read."""
        try:
            real = self._real(path)
            # asked before it is opened: opening a device may do something, opening a pipe may wait
            if real is None or not stat.S_ISREG(real.stat().st_mode):
                return None
            fd = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            return None
        try:
            return _read(fd, limit) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        except OSError:  # a sensor that is off answers EAGAIN or EINVAL
            return None
        finally:
            os.close(fd)

    def open(self, path: str) -> IntegerFile | None:
        """Keep a regular file open to read its integer again and again; None where there is none that can be read."""
        try:
            real = self._real(path)
            if real is None or not stat.S_ISREG(real.stat().st_mode):
                return None
            return IntegerFile(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except (OSError, ValueError):
            return None

    def text(self, path: str, limit: int = _LIMIT) -> str | None:
        """The same as text, without white space around it; bytes that are no UTF-8 are replaced."""
        data = self.data(path, limit)
        return None if data is None else data.decode(errors="replace").strip()

    def integer(self, path: str) -> int | None:
        """The integer that a file begins with, e.g. `1020000000` of `cur_freq`."""
        match = _INTEGER.match(self.text(path, 64) or "")
        return int(match[1]) if match else None

    def integers(self, path: str) -> tuple[int, ...]:
        """All integers in a file that holds nothing else, e.g. `available_frequencies`; empty for anything else."""
        words = (self.text(path) or "").split()
        return tuple(int(word) for word in words) if all(re.fullmatch(r"[+-]?\d{1,19}", word) for word in words) else ()

    def strings(self, path: str) -> tuple[str, ...]:
        """The NUL-terminated strings of a device-tree property."""
        data = self.data(path) or b""
        return tuple(part for part in data.decode(errors="replace").split("\0") if part)

    def names(self, folder: str) -> tuple[str, ...]:
        """Names in a folder, `zone2` before `zone10`; empty where it cannot be listed."""
        try:
            real = self._real(folder)
            return () if real is None else tuple(sorted((entry.name for entry in real.iterdir()), key=_natural))
        except (OSError, ValueError):
            return ()

    def exists(self, path: str) -> bool:
        """Whether something is there, of whatever kind."""
        try:
            real = self._real(path)
            return real is not None and real.exists()
        except (OSError, ValueError):
            return False

    def link(self, path: str) -> str | None:
        """The last part of what a symbolic link points to; None where `path` is no link."""
        try:
            return (self.root / path.lstrip("/")).readlink().name
        except (OSError, ValueError):
            return None

    def stat(self, path: str) -> os.stat_result | None:
        """Mode, owner and group of what is there, links followed."""
        try:
            real = self._real(path)
            return None if real is None else real.stat()
        except (OSError, ValueError):
            return None

    def _real(self, path: str) -> Path | None:
        """Where `path` leads: an absolute link, or one that climbs, never leaves `root`; None for too many links."""
        if self.is_this_machine:
            return self.root / path.lstrip("/")
        todo, done, links = list(reversed(PurePosixPath(path.lstrip("/")).parts)), list[str](), 0
        while todo:
            part = todo.pop()
            if part == "..":
                done = done[:-1]
                continue
            here = self.root.joinpath(*done, part)
            if not here.is_symlink():
                done.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                return None
            target = here.readlink()
            done = [] if target.is_absolute() else done
            todo.extend(reversed([step for step in target.parts if step != "/"]))
        return self.root.joinpath(*done)


class IntegerFile:
    """A file of the kernel that is asked often: one call for each reading, since sysfs makes it anew from offset 0."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self) -> int | None:
        """The integer that it begins with now; None where the sensor is off or gone."""
        try:
            match = _INTEGER.match(os.pread(self._fd, 64, 0).decode(errors="replace"))
        except OSError:
            return None
        return int(match[1]) if match else None

    def text(self, limit: int) -> str:
        """What it holds now, up to `limit` bytes; empty where it is gone."""
        data = bytearray()
        try:
            while len(data) < limit and (chunk := os.pread(self._fd, limit - len(data), len(data))):
                data += chunk
        except OSError:
            return ""
        return data.decode(errors="replace")

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)


def _read(fd: int, limit: int) -> bytes:
    """Up to `limit` bytes; files of the kernel give a page at a time."""
    data = bytearray()
    while len(data) < limit and (chunk := os.read(fd, limit - len(data))):
        data += chunk
    return bytes(data)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = _NUMBERS_IN_NAMES.split(name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
