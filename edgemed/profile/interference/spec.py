"""What load was asked for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from edgemed.base.errors import UsageError

Kind = Literal["cpu", "memory", "disk", "network"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_UNITS: Final = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
}  # fmt: skip
_RATE: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*([A-Za-z]{1,3})/s")
_EXAMPLE: Final = "Give e.g. cpu:4,memory:2GiB/s,disk,network."
_MOST_WORKERS: Final = 1024


@dataclass(frozen=True)
class LoadSpec:
    """One kind of load.

    Attributes:
        kind: what is loaded.
        workers: processes that make it.
        rate: bytes a second, all workers together; `None`: as much as it gives.
        text: as it was asked for.
    """

    kind: Kind
    workers: int
    rate: float | None
    text: str


def parse_interference(text: str) -> tuple[LoadSpec, ...]:
    """Read `KIND[:AMOUNT],…`; cpu takes workers (default: one for each processor), the others a rate.

    Raises:
        UsageError: no such kind, or no such amount.
    """
    specs = tuple(_one(part.strip()) for part in text.split(","))
    if len({spec.kind for spec in specs}) < len(specs):
        raise UsageError(f"'{text}' names one kind of load twice.", _EXAMPLE)
    return specs


def _one(text: str) -> LoadSpec:
    name, colon, amount = text.partition(":")
    kind = next((each for each in KINDS if each == name), None)
    if kind is None:
        raise UsageError(f"'{name}' is no kind of load.", _EXAMPLE)
    if kind == "cpu":
        workers = int(amount) if amount.isdecimal() and len(amount) < 6 else 0
        workers = workers if colon else len(os.sched_getaffinity(0))
        if not 1 <= workers <= _MOST_WORKERS:
            raise UsageError(f"'{text}' is no number of workers.", _EXAMPLE)
        return LoadSpec(kind, workers, None, text)
    match = _RATE.fullmatch(amount)
    if colon and (match is None or match[2] not in _UNITS or not float(match[1])):
        raise UsageError(f"'{text}' has no rate.", _EXAMPLE)
    return LoadSpec(kind, 1, float(match[1]) * _UNITS[match[2]] if match else None, text)
