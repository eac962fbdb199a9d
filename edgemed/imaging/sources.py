"""What makes one sample of a data set: a file, the folder of a series, or a row of a table that names several files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_file, sha256_json
from edgemed.imaging.nifti import is_nifti
from edgemed.imaging.read import ARRAY_SUFFIXES, IMAGE_SUFFIXES
from edgemed.imaging.table import TABLE_FILE, Row, file_in, numbers_in, read_table
from edgemed.recipe.schema import Recipe, TableInput

_OTHER_SUFFIXES = frozenset({".csv", ".gz", ".html", ".json", ".md", ".pdf", ".toml", ".txt", ".xml", ".zip"})
"""Of files that are no images: they are not opened to look for DICOM's mark, which often goes without a suffix."""


@dataclass(frozen=True, order=True)
class Sample:
    """One sample.

    Attributes:
        name: within its set, e.g. `b/0001.dcm`; of a row of a table, `samples.csv:7`.
        path: the file, the folder of the series, or the table.
        parts: for a row of a table, what each image input is read from.
        values: for a row of a table, the numbers that it holds itself, by column.
    """

    name: str
    path: Path
    parts: tuple[tuple[str, Path], ...] = ()
    values: tuple[tuple[str, float], ...] = ()

    @staticmethod
    def of(path: Path) -> Sample:
        """A file or folder by itself."""
        return Sample(str(path), path)

    @property
    def is_row(self) -> bool:
        """Whether it is a row of a table."""
        return bool(self.parts or self.values)

    @property
    def holds_arrays(self) -> bool:
        """Whether it is an NPY or NPZ file."""
        return not self.is_row and self.path.suffix.lower() in ARRAY_SUFFIXES

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that it is read from."""
        from edgemed.imaging.series import series_files

        if self.is_row:
            return tuple(file for _, part in self.parts for file in Sample.of(part).files)
        return tuple(series_files(self.path)) if self.path.is_dir() else (self.path,)

    def digest(self) -> str:
        """SHA-256 of the file; of several, and of a row's own numbers, of the list of theirs."""
        if not self.is_row and not self.path.is_dir():
            return sha256_file(self.path)
        hashes = [sha256_file(file) for file in self.files]
        return sha256_json([hashes, list(self.values)] if self.is_row else sorted(hashes))


def list_samples(folder: Path, recipe: Recipe | None = None) -> list[Sample]:
    """All samples below `folder`, sorted by name; hidden files and links are passed over.

    A folder with `samples.csv` holds the rows of that table. Where the recipe makes volumes, a folder of DICOM files is
    one sample (one series), not one for each of its files.

    Raises:
        InputError: `folder` is not a directory, or its table cannot be used.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a directory of images.", "Give a directory with images.")
    if (folder / TABLE_FILE).is_file():
        return table_samples(folder / TABLE_FILE, recipe or Recipe())
    volumes = recipe is not None and recipe.input.kind == "volume"
    found = {sample for path in folder.rglob("*") if (sample := _sample(path, folder, volumes=volumes)) is not None}
    return sorted(found)


def table_samples(path: Path, recipe: Recipe) -> list[Sample]:
    """The rows of a table, for the inputs that the recipe names.

    Raises:
        InputError: see `read_table`; or the table lacks a column, or names a file that is not there.
    """
    columns, rows = read_table(path)
    tables = {name: given for name, given in recipe.inputs.items() if isinstance(given, TableInput)}
    numeric = {column for given in tables.values() for column in given.columns}
    images = [name for name in recipe.inputs if name not in tables]
    absent = [name for name in images if name not in columns]
    if not images or absent:
        what = f"no column '{absent[0]}'" if absent else "rows, and the recipe does not say which inputs they feed"
        raise InputError(f"{path} has {what}.", "Name every input of the model in the recipe: [inputs.NAME].")
    return [_row(row, images, sorted(numeric), path) for row in rows]


def _row(row: Row, images: Sequence[str], numeric: Sequence[str], path: Path) -> Sample:
    cells = row.cells
    parts = tuple((name, file_in(cells[name], path, row.line)) for name in images)
    return Sample(f"{path.name}:{row.line}", path, parts, numbers_in(row, numeric, path))


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
