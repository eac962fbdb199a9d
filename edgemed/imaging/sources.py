"""What makes one sample of a data set: a file, the folder of a series, or a row of a table that names several files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_file, sha256_json
from edgemed.imaging.nifti import is_nifti
from edgemed.imaging.read import ARRAY_SUFFIXES, IMAGE_SUFFIXES

_OTHER_SUFFIXES = frozenset({".csv", ".gz", ".html", ".json", ".md", ".pdf", ".toml", ".txt", ".xml", ".zip"})
"""Of files that are no images: they are not opened to look for DICOM's mark, which often goes without a suffix."""


@dataclass(frozen=True, order=True)
class Sample:
    """One sample.

    Attributes:
        name: within its set, e.g. `b/0001.dcm`; of a row of a table, `samples.csv:7`.
        path: the file, the folder of the series, or the table.
        parts: for a row of a table, what each input is read from.
        values: for a row of a table, the numbers that it holds itself, by column.
    """

    name: str
    path: Path
    parts: tuple[tuple[str, Path], ...] = ()
    values: tuple[tuple[str, float], ...] = ()

    @staticmethod
    def of(path: Path) -> Sample:
        """A file or folder by itself."""
        return Sample(path.name, path)

    @property
    def holds_arrays(self) -> bool:
        """Whether it is an NPY or NPZ file."""
        return not self.parts and self.path.suffix.lower() in ARRAY_SUFFIXES

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that it is read from."""
        from edgemed.imaging.series import series_files

        if self.parts:
            return tuple(file for _, part in self.parts for file in Sample.of(part).files)
        return tuple(series_files(self.path)) if self.path.is_dir() else (self.path,)

    def digest(self) -> str:
        """SHA-256 of the file; of several, and of a row's own numbers, of the list of theirs."""
        if not self.parts and not self.path.is_dir():
            return sha256_file(self.path)
        hashes = [sha256_file(file) for file in self.files]
        return sha256_json([hashes, list(self.values)] if self.parts else sorted(hashes))


def list_samples(folder: Path, *, volumes: bool = False) -> list[Sample]:
    """All samples below `folder`, sorted by name; hidden files and links are passed over.

    Args:
        folder: where they lie.
        volumes: a folder that holds DICOM files is one sample (one series), not one for each of its files.

    Raises:
        InputError: `folder` is not a directory.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a directory of images.", "Give a directory with images.")
    found = {sample for path in folder.rglob("*") if (sample := _sample(path, folder, volumes=volumes)) is not None}
    return sorted(found)


def _sample(path: Path, folder: Path, *, volumes: bool) -> Sample | None:
    """The sample that a file is, or is a slice of."""
    from edgemed.imaging.dicom import is_dicom

    inside = path.relative_to(folder)
    if any(part.startswith(".") for part in inside.parts) or path.is_symlink() or not path.is_file():
        return None
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES | ARRAY_SUFFIXES or is_nifti(path):
        return Sample(inside.as_posix(), path)
    if suffix in _OTHER_SUFFIXES or not is_dicom(path):
        return None
    return Sample(inside.parent.as_posix(), path.parent) if volumes else Sample(inside.as_posix(), path)
