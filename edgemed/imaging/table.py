"""`samples.csv`: one sample a row, with a file for each image input and numbers for table inputs.

The first row names the columns. A column of the name of an input holds paths, relative to the table; every other one
numbers, or what only people and labels need.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgemed.base.errors import InputError, os_errors_as_resource
from edgemed.base.text import printable

TABLE_FILE: Final = "samples.csv"
_MAX_BYTES = 64 << 20
_MAX_ROWS = 500_000
_MAX_COLUMNS = 4096


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        line: in the file; the header is line 1.
        columns: their names, which all rows share.
        values: the cells, in that order.
    """

    line: int
    columns: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def cells(self) -> dict[str, str]:
        """The cells by column."""
        return dict(zip(self.columns, self.values, strict=True))


def read_table(path: Path) -> tuple[tuple[str, ...], list[Row]]:
    """Columns and rows of a CSV file in UTF-8; comma, semicolon or tab.

    Raises:
        InputError: not such a file, columns without or with repeated names, a row of another length, no row,
            or more than 64 MiB or 500,000 rows.
        ResourceError: it cannot be read.
    """
    with os_errors_as_resource(path):
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} has more than {_MAX_BYTES >> 20} MiB.", "Split the table.")
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}).", "Save it as CSV UTF-8.") from error
    if "\0" in text:
        raise InputError(f"{path} holds zero bytes: it is no CSV file.", "Save it as CSV UTF-8.")
    lines = _rows(path, text)
    columns = _columns(path, next(lines, (0, [])))
    rows: list[Row] = []
    for line, cells in lines:
        if len(cells) != len(columns):
            raise InputError(
                f"{path}, line {line}: {len(cells)} cells where the header has {len(columns)}.", "Correct the row."
            )
        if len(rows) == _MAX_ROWS:
            raise InputError(f"{path} has more than {_MAX_ROWS:,} rows.", "Split the table.")
        rows.append(Row(line, columns, tuple(cell.strip() for cell in cells)))
    if not rows:
        raise InputError(f"{path} has no rows below its header.", "Write one row for each sample.")
    return columns, rows


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    first = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}.", "Correct the quoting.") from error


def _columns(path: Path, header: tuple[int, list[str]]) -> tuple[str, ...]:
    columns = tuple(name.strip() for name in header[1])
    if "" in columns or len(set(columns)) < len(columns) or len(columns) > _MAX_COLUMNS:
        raise InputError(f"{path}: columns need names, each its own.", "Correct the first row.")
    return columns


def file_in(cell: str, path: Path, line: int) -> Path:
    """The file that a cell names, inside the table's folder.

    Raises:
        InputError: no file, or one outside the folder.
    """
    folder = path.parent
    named, shown = folder / cell, printable(cell[:80])
    try:
        outside = not cell or Path(cell).is_absolute() or ".." in Path(cell).parts or named.is_symlink()
        outside = outside or not named.resolve().is_relative_to(folder.resolve())  # through a folder that is a link
        exists = outside or named.exists()
    except (OSError, RuntimeError) as error:  # a name that is too long, a loop of links
        raise InputError(f"{path}, line {line}: '{shown}' is no path.", "Name files beside the table.") from error
    if outside:
        raise InputError(f"{path}, line {line}: '{shown}' is no path inside {folder}.", "Name files beside the table.")
    if not exists:
        raise InputError(f"{path}, line {line}: {folder / shown} does not exist.", "Correct the path.")
    return named


def numbers_in(row: Row, columns: Collection[str], path: Path) -> tuple[tuple[str, float], ...]:
    """The numbers of some columns.

    Raises:
        InputError: a column is missing, or a cell holds no finite number.
    """
    found, cells = [], row.cells
    for name in columns:
        if name not in cells:
            raise InputError(f"{path} has no column '{name}', which the recipe asks for.", "Add it.")
        try:
            number = float(cells[name])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InputError(
                f"{path}, line {row.line}: '{cells[name]}' in the column {name} is no number.", "Fill the cell."
            )
        found.append((name, number))
    return tuple(found)
