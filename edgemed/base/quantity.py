"""Durations and sizes as people write them: `250ms`, `5min`, `512MiB`. Integers, exactly."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from edgemed.base.errors import UsageError

SECOND: Final = 1_000_000_000
_DURATIONS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "min": 60 * SECOND,
    "h": 3600 * SECOND,
    "d": 86400 * SECOND,
}
_SIZES: Final = {
    "B": 1,
    "kB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
_NUMBER: Final = r"(\d{1,9}(?:\.\d{1,9})?)\s*"
_DURATION = re.compile(_NUMBER + "(" + "|".join(_DURATIONS) + ")")
_SIZE = re.compile(_NUMBER + "(" + "|".join(_SIZES) + ")")


def parse_duration(text: str) -> int:
    """`"10s"`, `"250ms"`, `"1.5h"` → nanoseconds, exactly.

    Raises:
        UsageError: no unit, not a number, or zero.
    """
    length = _parse(text, _DURATION, _DURATIONS)
    if length < 1:
        raise UsageError(f"'{text}' is not a duration.", "Give a number and its unit: 250ms, 10s, 5min, 1h.")
    return length


def parse_size(text: str) -> int:
    """`"512MiB"`, `"2GB"` → bytes, exactly.

    Raises:
        UsageError: no unit, not a number, or zero.
    """
    size = _parse(text, _SIZE, _SIZES)
    if size < 1:
        raise UsageError(f"'{text}' is not a size.", "Give a number and its unit: 64KiB, 512MiB, 2GiB.")
    return size


def _parse(text: str, pattern: re.Pattern[str], units: dict[str, int]) -> int:
    match = pattern.fullmatch(text.strip())
    return 0 if match is None else int(Fraction(match[1]) * units[match[2]])
