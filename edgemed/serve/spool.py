"""Files of the daemon: what is in it is whole and on the disk, or it is in `incoming`.

incoming/     being written; swept when the daemon starts, for nobody was told that they were taken
objects/xx/   what was received, by the hash of its UID
quarantine/   the same UID with other content
results/      what tasks have answered
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from pathlib import Path

from edgemed.base.errors import from_os_error
from edgemed.base.store import fsync_path

_SHARDS = 256


class Spool:
    """The folders below the daemon's state."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.objects = root / "objects"
        self.quarantine = root / "quarantine"
        self.results = root / "results"

    def prepare(self) -> None:
        """Make the folders, and sweep what nobody was told of.

        Raises:
            ResourceError: it cannot be written.
        """
        try:
            for folder in (self.incoming, self.objects, self.quarantine, self.results):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for shard in range(_SHARDS):
                (self.objects / f"{shard:02x}").mkdir(exist_ok=True, mode=0o700)
            for left in self.incoming.iterdir():
                left.unlink()
            fsync_path(self.objects)
            fsync_path(self.root)
        except OSError as error:
            raise from_os_error(error, self.root) from error

    def new(self) -> Path:
        """A name in `incoming` that nobody else has."""
        return self.incoming / secrets.token_hex(16)

    def keep(self, incoming: Path, name: str) -> str:
        """Bring a file that was written to its place: its bytes and its name are on the disk when this returns.

        Args:
            incoming: the file, closed; it need not be synced yet.
            name: the SOP Instance UID, or any other name: its hash is the file's.

        Returns:
            The path, relative to the spool.

        Raises:
            ResourceError: the disk did not take it; the file is where it was, or gone.
        """
        digest = hashlib.sha256(name.encode()).hexdigest()
        target = self.objects / digest[:2] / digest[2:34]
        self._place(incoming, target)
        return str(target.relative_to(self.root))

    def put_aside(self, incoming: Path) -> str:
        """Bring a file into quarantine, durably; returns its path, relative to the spool."""
        target = self.quarantine / incoming.name
        self._place(incoming, target)
        return str(target.relative_to(self.root))

    def write_result(self, task: int, name: str, data: bytes) -> str:
        """A file of a task, durably; the same name replaces. Returns its path, relative to the spool."""
        folder = self.results / f"{task % _SHARDS:02x}" / str(task)
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True, mode=0o700)
                fsync_path(folder.parent)
                fsync_path(self.results)
            incoming = self.new()
            with incoming.open("wb") as file:
                file.write(data)
        except OSError as error:
            raise from_os_error(error, folder) from error
        self._place(incoming, folder / name)
        return str((folder / name).relative_to(self.root))

    def path(self, relative: str) -> Path:
        """Where a file of the journal lies."""
        return self.root / relative

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free

    def _place(self, incoming: Path, target: Path) -> None:
        try:
            fsync_path(incoming)
            os.replace(incoming, target)  # noqa: PTH105 - one call, no object for each file of a study
            fsync_path(target.parent)
        except OSError as error:
            if error.errno != errno.ENOENT:
                incoming.unlink(missing_ok=True)
            raise from_os_error(error, target) from error
