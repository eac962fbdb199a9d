"""Labels in a CSV file: a column that names the file, and a column of classes, or one of 0 and 1 for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgemed.base.errors import InputError
from edgemed.base.text import printable
from edgemed.imaging.table import Row, file_in, read_table

_HINT: Final = "Correct the table, see docs/labels.md."


@dataclass(frozen=True)
class Columns:
    """Which columns to read.

    Attributes:
        file: names the image, relative to the table.
        label: holds the class.
        classes: columns of 0 and 1, one a class; used instead of `label` where given, or where there is no `label`
            (then every column but `file` and `patient` is one).
        patient: tells which images are of one person; may be absent.
    """

    file: str = "file"
    label: str = "label"
    classes: tuple[str, ...] = ()
    patient: str = "patient"


@dataclass(frozen=True)
class LabelRow:
    """One image and what is true of it.

    Attributes:
        path: of the image, which exists.
        labels: its classes; one for a table with a label column, any number for one of 0 and 1.
        patient: as the table has it.
        line: of the table, from 1.
    """

    path: Path
    labels: tuple[str, ...]
    patient: str | None
    line: int


@dataclass(frozen=True)
class LabelTable:
    """A whole table.

    Attributes:
        path: of the table.
        classes: all that occur, sorted; for columns of 0 and 1 the columns, in their order.
        exclusive: each image has exactly one class.
        rows: in the order of the file.
    """

    path: Path
    classes: tuple[str, ...]
    exclusive: bool
    rows: tuple[LabelRow, ...]


def read_label_table(path: Path, columns: Columns | None = None) -> LabelTable:
    """Read a table of labels: CSV in UTF-8.

    Raises:
        InputError: not such a table, a missing column or value, a file that is named twice, does not exist or lies
            outside the table's folder; names the line.
        ResourceError: it cannot be read.
    """
    columns = columns or Columns()
    header, rows = read_table(path)
    _check_header(header, columns, path)
    one = columns.label in header and not columns.classes
    wide = () if one else _class_columns(header, columns)
    if not one and not wide:
        raise InputError(f"{path} has no column '{printable(columns.label)}', and none of 0 and 1.", _HINT)
    seen: dict[Path, int] = {}
    found = [_row(row, columns, wide, path, seen) for row in rows]
    classes = tuple(sorted({label for row in found for label in row.labels})) if one else wide
    return LabelTable(path, classes, one, tuple(found))


def _row(row: Row, columns: Columns, wide: tuple[str, ...], path: Path, seen: dict[Path, int]) -> LabelRow:
    cells = row.cells
    file = file_in(cells[columns.file], path, row.line)
    if not file.is_file():
        raise InputError(f"{path}, line {row.line}: {file} is not a file.", _HINT)
    first = seen.setdefault(file.resolve(), row.line)
    if first != row.line:
        raise InputError(f"{path}, line {row.line}: the image of line {first} is named again.", _HINT)
    labels = _ones(cells, wide, path, row.line) if wide else (_label(cells[columns.label], path, row.line),)
    return LabelRow(file, labels, cells.get(columns.patient) or None, row.line)


def _check_header(header: Sequence[str], columns: Columns, path: Path) -> None:
    missing = [name for name in (columns.file, *columns.classes) if name not in header]
    if missing:
        raise InputError(f"{path} has no column '{printable(missing[0])}'.", _HINT)


def _class_columns(header: Sequence[str], columns: Columns) -> tuple[str, ...]:
    return columns.classes or tuple(name for name in header if name not in (columns.file, columns.patient))


def _label(text: str, path: Path, line: int) -> str:
    if not text:
        raise InputError(f"{path}, line {line}: no label.", _HINT)
    if not text.isprintable():
        raise InputError(f"{path}, line {line}: the label '{printable(text)}' is not printable.", _HINT)
    return text


def _ones(values: dict[str, str], classes: Sequence[str], path: Path, line: int) -> tuple[str, ...]:
    for name in classes:
        if values[name] not in ("0", "1", "0.0", "1.0"):
            raise InputError(
                f"{path}, line {line}: '{printable(values[name][:80])}' in column '{printable(name)}' is not 0 or 1.",
                "Give 0 or 1; leave out images whose class is unknown.",
            )
    return tuple(name for name in classes if values[name] in ("1", "1.0"))
