"""Tables of Markdown, and how UIDs, statuses, durations and sizes stand in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import ModuleType
from typing import Final

from pydicom.uid import UID

from edgemed.base.quantity import SECOND

_DURATIONS: Final = (
    (86400 * SECOND, "d"),
    (3600 * SECOND, "h"),
    (60 * SECOND, "min"),
    (SECOND, "s"),
    (1_000_000, "ms"),
)
_SIZES: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; what would end a cell is escaped."""
    lines = [_line(head), "|" + " --- |" * len(head)]
    return "\n".join([*lines, *(_line([str(cell) for cell in row]) for row in rows)])


def name_of(uid: str) -> str:
    """As PS3.6 has it; whether it is retired is told."""
    known = UID(uid)
    name = known.name
    return f"{name} (retired)" if known.is_retired and "etired" not in name else name


def status(code: int) -> str:
    """A status of DIMSE, as the standard writes it."""
    return f"{code:04X}"


def duration(ns: int) -> str:
    """In the largest unit in which it is a whole number."""
    return _quantity(ns, _DURATIONS, "ns")


def size(count: int) -> str:
    """Of bytes, in the largest unit in which it is a whole number."""
    return _quantity(count, _SIZES, "bytes")


def ranges(codes: Sequence[int], write: Callable[[int], str]) -> str:
    """Ascending codes, those that follow each other as one range."""
    runs = ([code for _, code in run] for _, run in groupby(enumerate(codes), lambda pair: pair[1] - pair[0]))
    return ", ".join(write(run[0]) if len(run) == 1 else f"{write(run[0])}–{write(run[-1])}" for run in runs)


def constants(module: ModuleType, *, least: int = 0x0100, most: int = 0xFFFF) -> dict[int, str]:
    """Public statuses that a module defines itself, in the order of their codes, with their names."""
    own = {name: getattr(module, name) for name in module.__annotations__ if name.isupper() and name[0] != "_"}
    return {
        value: name
        for name, value in sorted(own.items(), key=lambda item: str(item[1]))
        if isinstance(value, int) and (value == 0 or least <= value <= most)
    }


def described(module: ModuleType, words: Mapping[int, tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Each status of a module with its meaning and what it is answered for; by its name where nobody described it."""
    for code, name in sorted(constants(module).items()):
        meaning, when = words.get(code, (name.replace("_", " ").lower(), ""))
        yield status(code), meaning, when


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _quantity(count: int, units: Sequence[tuple[int, str]], smallest: str) -> str:
    factor, unit = next(((f, u) for f, u in units if count and count % f == 0), (1, smallest))
    return f"{count // factor} {unit}"
