"""Files in a folder, each whole or not there. A newer revision has the name of the one before, and replaces it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from edgemed.base.store import fsync_path
from edgemed.serve.config.destinations import FolderDestination
from edgemed.serve.outlets.courier import Done, Outcome, Parcel, Pulse, Unavailable
from edgemed.serve.outlets.file import one_by_one

_CHUNK: Final = 1 << 20


class FolderCourier:
    """Writes into a folder that somebody else reads and empties."""

    most = 64

    def __init__(self, destination: FolderDestination) -> None:
        self._folder = destination.path

    @property
    def address(self) -> str:
        return ""

    def carry(self, parcels: Sequence[Parcel], done: Done, pulse: Pulse) -> None:
        """See `Courier`."""
        if not self._folder.is_dir():  # not made: it may be a share that is not mounted
            raise Unavailable("The folder is not there.")
        one_by_one(parcels, done, pulse, lambda parcel: self._write(parcel, pulse))

    def _write(self, parcel: Parcel, pulse: Pulse) -> Outcome:
        target = self._folder / file_name(parcel)
        partial = self._folder / f".{target.name}.partial"  # one lane writes here: a left one is written over
        try:
            with parcel.path.open("rb") as source, partial.open("wb") as file:
                while chunk := source.read(_CHUNK):
                    file.write(chunk)
                    pulse()
                file.flush()
                os.fchmod(file.fileno(), 0o640)  # its group may read it
                os.fsync(file.fileno())
            partial.replace(target)
            fsync_path(self._folder)
        except OSError as error:
            # not the fault of this one: the order stays, so that an older revision never replaces a newer one
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise Unavailable(f"The folder cannot be written: {error.strerror}.") from error
        return Outcome("delivered")

    def close(self) -> None:
        """Nothing is open."""


def file_name(parcel: Parcel) -> str:
    """Of a result in a folder: its SOP Instance UID, or model and subject; of each revision the same.

    Revisions of DICOM objects have UIDs of their own and stand beside each other.
    """
    if parcel.kind == "json":
        name, suffix = f"{parcel.model}-{parcel.subject}", ".json"
    else:
        name, suffix = parcel.sop_instance, ".dcm" if parcel.sop_class else ""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:200] + suffix
