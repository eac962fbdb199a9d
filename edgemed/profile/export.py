"""Stamps for other programs: CSV, or an NPZ archive of one array per column. Both are streamed: memory is a chunk's."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from edgemed.base.errors import from_os_error
from edgemed.base.store import fsync_path
from edgemed.profile.stamps import COLUMNS, Samples


def write_csv(samples: Samples, path: Path) -> None:
    """One line per frame, with a header; times are nanoseconds.

    Raises:
        ResourceError: it cannot be written; nothing is left behind.
    """
    with whole_file(path) as file, io.TextIOWrapper(file, encoding="ascii", newline="") as text:
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(COLUMNS)
        for rows in samples.chunks():
            lines.writerows(rows.tolist())


def write_npz(samples: Samples, path: Path) -> None:
    """An archive that `numpy.load` reads, with a member per column.

    Raises:
        ResourceError: it cannot be written; nothing is left behind.
    """
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for index, name in enumerate(COLUMNS):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": "<i8", "fortran_order": False, "shape": (len(samples),)}
                np.lib.format.write_array_header_1_0(member, header)
                for rows in samples.chunks():
                    member.write(np.ascontiguousarray(rows[:, index]).data)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes its name when it is complete.

    Raises:
        ResourceError: it cannot be written; nothing is left behind.
    """
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
        fsync_path(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise from_os_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
