"""What the ONNX parser of each TensorRT takes: operators, data types, restrictions, maximum opset.

The table is `tensorrt_operators.json`, written by `scripts/make_operator_table.py` from onnx-tensorrt's lists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from edgemed.base.errors import InputError

__all__ = ["TYPED_SINCE", "UNTYPED_UNTIL", "Operator", "Parser", "first_with", "parser_of", "releases", "version_of"]

_TABLE: Final = Path(__file__).with_name("tensorrt_operators.json")
TYPED_SINCE: Final = (10, 12)
"""Weak typing is deprecated from here on (release notes of TensorRT 10.12): types belong into the graph."""
UNTYPED_UNTIL: Final = (11,)
"""From here on there are neither precision flags nor calibrators (10.x to 11.x migration)."""
_CASTS_INT64: Final = (9, 0)
"""Before TensorRT 9, INT64 is read as INT32 (the notes of the lists, and docs/Changelog.md of onnx-tensorrt)."""


@dataclass(frozen=True)
class Operator:
    """One operator as a parser takes it: data types (none where the list names none) and restriction keywords."""

    types: frozenset[str]
    limits: tuple[str, ...]


@dataclass(frozen=True)
class Parser:
    """The row of one TensorRT.

    Args:
        tensorrt: the version that was asked for.
        release: the release whose row this is: that version's own, or the nearest earlier one.
        opset: highest opset that is sure.
        opset_possible: highest opset that may be read; above `opset` where the sources leave it open.
        listed: the release whose published list the row was made from.
        commit: of onnx-tensorrt, where that list stands.
        how: how the row differs from that list; empty where it does not.
        operators: by name; None or absence means that the parser has it not.
    """

    tensorrt: str
    release: str
    opset: int
    opset_possible: int
    listed: str
    commit: str
    how: str
    operators: Mapping[str, Operator | None]

    @property
    def own_list(self) -> bool:
        """Whether the row is this very release's own list, not a neighbour's."""
        return version_of(self.tensorrt)[:2] == version_of(self.release)[:2] and not self.how

    @property
    def casts_int64(self) -> bool:
        """Whether INT64 is read as INT32."""
        return version_of(self.tensorrt) < _CASTS_INT64

    @property
    def source(self) -> str:
        """Where the row comes from, in words."""
        return f"onnx-tensorrt operators.md of {self.listed} @{self.commit[:7]}"


def parser_of(tensorrt: str, *, opset: int | None = None) -> Parser:
    """The parser of one TensorRT, e.g. of `"10.3.0.30"`; between two rows the earlier one holds.

    Args:
        tensorrt: version of at least two numbers.
        opset: maximum opset that a device profile states, in place of the table's.

    Raises:
        InputError: not a version, or one before the first row.
    """
    wanted = version_of(tensorrt)[:2]
    found = [release for release in releases() if version_of(release) <= wanted]
    if not found:
        raise InputError(f"No operator table is known for TensorRT {tensorrt}.", f"The first is {releases()[0]}.")
    row = _table()["parsers"][found[-1]]
    sure = row["opset"] if opset is None else opset
    return Parser(
        tensorrt=tensorrt,
        release=found[-1],
        opset=sure,
        opset_possible=max(sure, row.get("opset_possible", sure)),
        listed=row["list"],
        commit=row["commit"],
        how=row.get("how", ""),
        operators=_operators(found[-1]),
    )


def first_with(operator: str, opset: int = 0) -> str | None:
    """The first release of the table that has an operator, and reads an opset, or None."""
    having = (release for release in releases() if _operators(release).get(operator) is not None)
    return next((release for release in having if parser_of(release).opset >= opset), None)


@cache
def releases() -> tuple[str, ...]:
    """The releases that have a row, oldest first."""
    return tuple(sorted(_table()["parsers"], key=version_of))


def version_of(version: str) -> tuple[int, ...]:
    """`"10.3.0.30"` as numbers.

    Raises:
        InputError: not a version of TensorRT.
    """
    parts = version.split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise InputError(f"'{version}' is not a version of TensorRT.", "Write it like 10.3 or 8.6.2.")
    return tuple(int(part) for part in parts)


@cache
def _table() -> dict[str, Any]:
    return dict(json.loads(_TABLE.read_text(encoding="utf-8")))


@cache
def _operators(release: str) -> dict[str, Operator | None]:
    return {name: _row(rows, release) for name, rows in _table()["operators"].items()}


def _row(rows: Mapping[str, list[str] | None], release: str) -> Operator | None:
    """The row that holds at a release: the table names only the releases where a row changes."""
    since = [version for version in rows if version_of(version) <= version_of(release)]
    row = rows[max(since, key=version_of)] if since else None
    return None if row is None else Operator(frozenset(row[0].split()), tuple(row[1].split()))
