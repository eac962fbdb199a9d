"""Labels in a CSV file: a column that names the file, and a column of classes, or one of 0 and 1 for each class."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgemed.base.errors import InputError, from_os_error
from edgemed.base.text import printable

MAX_BYTES: Final = 64 << 20  # a million rows of 64 characters
MAX_FIELD: Final = 4096
_SEPARATORS: Final = (",", ";", "\t", "|")
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
    """Read a table of labels: UTF-8, separated by commas, semicolons, tabs or bars.

    Raises:
        InputError: not such a table, a missing column or value, a file that is named twice, does not exist or lies
            outside the table's folder; names the line.
        ResourceError: it cannot be read.
    """
    columns = columns or Columns()
    reader = _reader(_text(path), columns.file, path)
    header = [name.strip() for name in next(reader)[1]]
    _check_header(header, columns, path)
    one = columns.label in header and not columns.classes
    wide = _class_columns(header, columns) if not one else ()
    if not one and not wide:
        raise InputError(f"{path} has no column '{columns.label}', and none of 0 and 1.", _HINT)
    places = {name: header.index(name) for name in header}
    rows: list[LabelRow] = []
    seen: dict[Path, int] = {}
    for line, fields in _records(reader, len(header), path):
        file = _inside(fields[places[columns.file]].strip(), path, line)
        if file in seen:
            raise InputError(f"{path}, line {line}: the image of line {seen[file]} is named again.", _HINT)
        seen[file] = line
        values = {name: fields[places[name]].strip() for name in header}
        labels = (_label(values[columns.label], path, line),) if one else _ones(values, wide, path, line)
        rows.append(LabelRow(file, labels, values.get(columns.patient) or None, line))
    if not rows:
        raise InputError(f"{path} has no rows.", _HINT)
    classes = tuple(sorted({label for row in rows for label in row.labels})) if one else wide
    return LabelTable(path, classes, one, tuple(rows))


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise InputError(f"{path} is not a file.", "Give a CSV file of labels.")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES >> 20} MiB.", "Give a CSV file of labels.")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from error
    except OSError as error:
        raise from_os_error(error, path) from error
    if "\0" in text:
        raise InputError(f"{path} holds zero bytes.", "Save it as UTF-8.")
    return text


def _reader(text: str, file_column: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines and records, by the separator under which the first one has the column of files."""
    first = text.lstrip("\r\n").partition("\n")[0]
    for separator in _SEPARATORS:
        names = next(csv.reader([first], delimiter=separator), [])
        if file_column in [name.strip() for name in names]:
            return _numbered(text, separator, path)
    raise InputError(f"{path} has no column '{printable(file_column)}' in its first line.", _HINT)


def _numbered(text: str, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for fields in reader:
            if len(fields) > 1 or (fields and fields[0].strip()):
                yield reader.line_num, fields
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}.", _HINT) from error


def _records(reader: Iterator[tuple[int, list[str]]], width: int, path: Path) -> Iterator[tuple[int, list[str]]]:
    for line, fields in reader:
        if len(fields) != width:
            raise InputError(f"{path}, line {line}: {len(fields)} values in {width} columns.", _HINT)
        if any(len(field) > MAX_FIELD for field in fields):
            raise InputError(f"{path}, line {line}: a value is longer than {MAX_FIELD} characters.", _HINT)
        yield line, fields


def _check_header(header: Sequence[str], columns: Columns, path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{path} has the column '{printable(twice[0])}' twice.", _HINT)
    missing = [name for name in columns.classes if name not in header]
    if missing:
        raise InputError(f"{path} has no column '{missing[0]}'.", _HINT)


def _class_columns(header: Sequence[str], columns: Columns) -> tuple[str, ...]:
    return columns.classes or tuple(name for name in header if name and name not in (columns.file, columns.patient))


def _inside(text: str, table: Path, line: int) -> Path:
    """The image that a row names: it must lie in the table's folder, links followed."""
    where = f"{table}, line {line}"
    if not text:
        raise InputError(f"{where}: no file is named.", _HINT)
    root = table.parent.resolve()
    try:
        path = table.parent / text
        inside = not Path(text).is_absolute() and path.resolve().is_relative_to(root)
        exists = inside and path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # names too long, loops of links
        raise InputError(f"{where}: '{printable(text[:80])}' is no path.", _HINT) from error
    if not inside:
        raise InputError(f"{where}: '{printable(text[:80])}' lies outside {table.parent}.", "Name files inside it.")
    if not exists:
        raise InputError(f"{where}: '{printable(text[:80])}' does not exist.", _HINT)
    return Path(table.parent, *path.resolve().relative_to(root).parts)


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
