"""Files of the daemon: what is in it is whole and on the disk, or it is in `incoming`.

incoming/     being written; swept when the daemon starts, for nobody was told that they were taken
objects/xx/   what was received, by the hash of its UID and its content
quarantine/   the same UID with other content
results/      what tasks have answered
damaged/      journals that were moved aside, with the results of their tasks
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from edgemed.base.errors import from_os_error
from edgemed.base.store import fsync_path

_SHARDS: Final = 256
_NOTE: Final = "user.edgemed"


class Spool:
    """The folders below the daemon's state."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.objects = root / "objects"
        self.quarantine = root / "quarantine"
        self.results = root / "results"
        self.damaged = root / "damaged"

    def make_root(self) -> None:
        """Make the folder of the state.

        Raises:
            ResourceError: it cannot be made.
        """
        try:
            make_folder(self.root)
        except OSError as error:
            raise from_os_error(error, self.root) from error

    def prepare(self) -> None:
        """Make the folders, and sweep what nobody was told of.

        Raises:
            ResourceError: it cannot be written.
        """
        try:
            for folder in (self.incoming, self.objects, self.quarantine, self.results, self.damaged):
                folder.mkdir(exist_ok=True, mode=0o700)
            for shard in range(_SHARDS):
                for folder in (self.objects, self.results):
                    (folder / f"{shard:02x}").mkdir(exist_ok=True, mode=0o700)
            for left in self.incoming.iterdir():
                left.unlink()
            # also where they were there: who made them may have been killed before this
            for folder in (*self.results.iterdir(), self.results, self.objects, self.root):
                fsync_path(folder)
            with suppress(PermissionError):
                fsync_path(self.root.parent)
        except OSError as error:
            raise from_os_error(error, self.root) from error

    def new(self) -> Path:
        """A name in `incoming` that nobody else has."""
        return self.incoming / secrets.token_hex(16)

    def keep(self, incoming: Path, name: str, note: str = "") -> str:
        """Bring a file that was written to its place: its bytes and its name are on the disk when this returns.

        Args:
            incoming: the file, closed; it need not be synced yet.
            name: the SOP Instance UID, or any other name: its hash is the file's.
            note: kept with the file where the file system can (`note_of`), for the day on which the journal is lost.

        Returns:
            The path, relative to the spool.

        Raises:
            ResourceError: the disk did not take it. Whether it would be there after a power cut is not known then.
        """
        place = self.place_of(name)
        if note:
            with suppress(OSError):  # not every file system has room for it
                os.setxattr(incoming, _NOTE, note.encode())
        self._place(incoming, self.root / place)
        return place

    @staticmethod
    def place_of(name: str) -> str:
        """Where `keep` puts a file of that name, relative to the spool."""
        digest = hashlib.sha256(name.encode()).hexdigest()
        return f"objects/{digest[:2]}/{digest[2:34]}"

    @staticmethod
    def note_of(path: Path) -> str:
        """The note that was kept with a file; '' where there is none."""
        try:
            return os.getxattr(path, _NOTE).decode("utf-8", "replace")
        except OSError:
            return ""

    def put_aside(self, file: Path, name: str) -> str:
        """Bring a file into quarantine, durably; the same name replaces. Returns its path, relative to the spool."""
        target = self.quarantine / hashlib.sha256(name.encode()).hexdigest()[:34]
        self._place(file, target)
        return str(target.relative_to(self.root))

    def kept(self) -> Iterator[str]:
        """Paths of all objects, relative to the spool."""
        for shard in range(_SHARDS):
            yield from self._names(self.objects / f"{shard:02x}")

    def kept_aside(self) -> Iterator[str]:
        """Paths of all that is in quarantine, relative to the spool."""
        yield from self._names(self.quarantine)

    def answered(self) -> Iterator[str]:
        """Paths of all results, relative to the spool."""
        for shard in self.results.iterdir():
            for task in shard.iterdir():
                yield from (str(file.relative_to(self.root)) for file in task.iterdir())

    def write_result(self, task: int, name: str, data: bytes) -> str:
        """A file of a task, durably; the same name replaces. Returns its path, relative to the spool."""
        folder = self.results / f"{task % _SHARDS:02x}" / str(task)
        incoming = self.new()
        try:
            make_folder(folder)
            with incoming.open("wb") as file:
                file.write(data)
        except OSError as error:
            incoming.unlink(missing_ok=True)
            raise from_os_error(error, folder) from error
        self._place(incoming, folder / name)
        return str((folder / name).relative_to(self.root))

    def path(self, relative: str) -> Path:
        """Where a file of the journal lies."""
        return self.root / relative

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free

    def _names(self, folder: Path) -> Iterator[str]:
        with os.scandir(folder) as entries:
            yield from (f"{folder.relative_to(self.root)}/{entry.name}" for entry in entries)

    def _place(self, incoming: Path, target: Path) -> None:
        try:
            # opened before the rename: an error of the disk is told once to each who had the folder open when it
            # happened, so that nobody else's failed sync can make ours look good
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            incoming.unlink(missing_ok=True)
            raise from_os_error(error, target) from error
        try:
            fsync_path(incoming)
            os.replace(incoming, target)  # noqa: PTH105 - one call, no object for each file of a study
            os.fsync(folder)
        except OSError as error:
            # never synced again: a kernel that failed once may say yes the next time, and have dropped the bytes
            with suppress(OSError):
                incoming.unlink(missing_ok=True)
            raise from_os_error(error, target) from error
        finally:
            os.close(folder)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each entered on the disk.

    Raises:
        OSError: it cannot be made.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    fsync_path(path.parent)
