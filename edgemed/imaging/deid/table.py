"""Table E.1-1 of PS3.15 as data, and the types that PS3.3 gives the attributes it names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

Action = Literal["X", "Z", "D", "U", "K", "S"]
"""Remove, empty, dummy, new UID, keep (a sequence: clean its items), shift a date."""

Option = Literal["full_dates", "modified_dates", "uids", "device", "patient", "institution"]
"""A column of the table whose option is offered."""

_BY_TYPE: Final[dict[str, dict[int, Action]]] = {
    "Z/D": {1: "D", 2: "Z", 3: "Z"},
    "X/Z": {1: "Z", 2: "Z", 3: "X"},
    "X/D": {1: "D", 2: "D", 3: "X"},  # of type 2 the standard does not speak; removing it would break the IOD
    "X/Z/D": {1: "D", 2: "Z", 3: "X"},
    "X/Z/U*": {1: "U", 2: "Z", 3: "X"},
    "X": {1: "X", 2: "X", 3: "X"},
    "Z": {1: "Z", 2: "Z", 3: "Z"},
    "D": {1: "D", 2: "D", 3: "D"},
    "U": {1: "U", 2: "U", 3: "U"},
}
_CURVES = range(0x5000, 0x5100)
_OVERLAYS = range(0x6000, 0x6100)
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: the attribute's name.
        action: the Basic Profile's, combined ones included, e.g. `X/Z/D`.
        options: what an option's column says: `K` keep, `C` clean.
        edition: of the standard.
    """

    name: str
    action: str
    options: dict[Option, str]
    edition: str

    def resolve(self, kind: int) -> Action:
        """The one action for an attribute of type 1, 2 or 3 in its IOD (PS3.15 E.1.1)."""
        return _BY_TYPE[self.action][kind]


@dataclass(frozen=True)
class Profile:
    """The whole table."""

    rows: dict[int, Row]
    curves: Row
    overlays: Row
    private: Row

    def find(self, tag: int) -> Row | None:
        """The row of a tag; `None` where the table does not name it.

        A whole overlay group goes, not only its data and comments: geometry without a plane is no valid module.
        """
        group = tag >> 16
        if group % 2:
            return self.private
        if group in _CURVES:
            return self.curves
        if group in _OVERLAYS:
            return self.overlays
        return self.rows.get(tag)


@lru_cache(1)
def profile() -> Profile:
    """The table, read once."""
    rows = {tag: Row(**row) for tag, row in _read("profile.json")["rows"].items()}
    plain = {int(tag, 16): row for tag, row in rows.items() if len(tag) == 8 and "x" not in tag}
    return Profile(plain, rows["50xxxxxx"], rows["60xx3000"], rows["private"])


@lru_cache(1)
def _types() -> dict[str, Any]:
    return _read("types.json")


def type_of(keyword: str, *, parent: str | None, sop_class: str) -> int:
    """Type of an attribute, conditional ones as if the condition held: 1, 2, or 3 where nothing asks for it.

    Args:
        keyword: of the attribute.
        parent: keyword of the sequence it lies in; `None` at the top.
        sop_class: SOP Class UID; of an unknown one the strictest IOD counts.
    """
    types = _types()
    if parent is not None:
        return int(types["nested"].get(f"{parent}/{keyword}", 3))
    kinds = types["top"].get(keyword, 3)
    if isinstance(kinds, int):
        return kinds
    iod = types["sop_classes"].get(sop_class)
    return min((int(kind) for kind, iods in kinds.items() if iod is None or iod in iods), default=3)


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((_FOLDER / name).read_text(encoding="utf-8"))
    return document
