"""The hash of what is kept, as the inlets make it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edgemed.base.errors import EdgemedError
from edgemed.base.hashing import sha256_file


def digest_of(path: Path, *, dicom: bool) -> str:
    """SHA-256 of a DICOM file's data set, of all bytes of others.

    Raises:
        OSError: it cannot be read.
    """
    if dicom:
        from edgemed.imaging.dicom.part10 import hash_dataset, read_meta

        with suppress(EdgemedError), path.open("rb") as file:
            return hash_dataset(file, read_meta(file).offset)
    return sha256_file(path)
