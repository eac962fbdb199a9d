"""Headers are sloppy, and results must be right: what is copied from one is read by what it should be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from edgemed.base.errors import InputError
from edgemed.imaging.dicom import values

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_DATE: Final = re.compile(r"(\d{4})[.\-/]?(0[1-9]|1[0-2])[.\-/]?(0[1-9]|[12]\d|3[01])")
_TIME: Final = re.compile(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(\.\d{1,6})?)?)?")
_UID: Final = re.compile(r"[0-9.]{1,64}")
_ZONE: Final = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")
_AGE: Final = re.compile(r"\d{3}[DWMY]")


def plain(text: str, limit: int = 64) -> str:
    """A text without what no text element may hold: controls and backslashes; cut at `limit` characters."""
    return CONTROLS.sub(" ", text.replace("\\", " ")).strip()[:limit].rstrip()


def text(dataset: Dataset, keyword: str, limit: int = 64) -> str:
    """A text, '' where there is none that can be read."""
    try:
        return plain(values.text(dataset, keyword) or "", limit)
    except InputError:
        return ""


def word(dataset: Dataset, keyword: str, allowed: tuple[str, ...] = ()) -> str:
    """A code string, in capitals; '' where it is none, or none of `allowed`."""
    found = text(dataset, keyword, 16).upper()
    found = re.sub(r"[^A-Z0-9 _]", "_", found)
    return found if not allowed or found in allowed else ""


def date(dataset: Dataset, keyword: str) -> str:
    """A date as YYYYMMDD; also the old form with points, and those that people type."""
    found = _DATE.fullmatch(text(dataset, keyword))
    return "".join(found.groups()) if found else ""


def time(dataset: Dataset, keyword: str) -> str:
    """A time as HHMMSS with what the file gives of it."""
    found = _TIME.fullmatch(text(dataset, keyword))
    return "".join(part or "" for part in found.groups()) if found else ""


def uid(dataset: Dataset, keyword: str) -> str:
    """A UID as the file has it, be its parts well formed or not: others refer to it as it is."""
    found = text(dataset, keyword, 65)
    return found if _UID.fullmatch(found) else ""


def name(dataset: Dataset, keyword: str) -> str:
    """A person's name: at most three groups of at most five components."""
    groups = text(dataset, keyword, 1024).split("=")[:3]
    return "=".join("^".join(part.strip() for part in group.split("^")[:5])[:64] for group in groups).rstrip("=")


def whole(dataset: Dataset, keyword: str, low: int = 0, high: int = 2**31 - 1) -> int | None:
    """A whole number between `low` and `high`."""
    found = text(dataset, keyword)
    return int(found) if re.fullmatch(r"[+-]?\d{1,10}", found) and low <= int(found) <= high else None


def number(dataset: Dataset, keyword: str) -> float | None:
    """One finite number."""
    try:
        return values.number(dataset, keyword)
    except InputError:
        return None


def zone(dataset: Dataset) -> str:
    """Timezone Offset From UTC."""
    found = text(dataset, "TimezoneOffsetFromUTC")
    return found if _ZONE.fullmatch(found) else ""


def age(dataset: Dataset) -> str:
    """Patient's Age."""
    found = text(dataset, "PatientAge").upper().zfill(4)
    return found if _AGE.fullmatch(found) else ""


def copy(source: Dataset, target: Dataset, keywords: tuple[str, ...], read: Callable[..., Any], **how: Any) -> None:
    """Copy those elements that have a value."""
    for keyword in keywords:
        found = read(source, keyword, **how)
        if found not in ("", None):
            setattr(target, keyword, found)
