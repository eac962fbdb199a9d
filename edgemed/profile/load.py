"""When frames are meant to arrive: `closed`, `rate:30`, `poisson:30`, `duty:1/60s`, `replay:FILE`.

Arrivals are offsets from the start of the run, in integer nanoseconds, each computed from its own index: they do not
drift. Latency is counted from them, so a stall shows in every frame that it delayed (coordinated omission, G. Tene).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from edgemed.base.errors import InputError, UsageError, from_os_error
from edgemed.base.hashing import sha256_bytes
from edgemed.base.quantity import SECOND, parse_duration
from edgemed.profile.records import Count, Digest, Nanoseconds, Record, Text

LoadKind = Literal["closed", "rate", "poisson", "duty", "replay"]
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?")
_BATCH = 4096  # random numbers drawn at a time
_MAX_REPLAY_BYTES = 64 << 20
_MAX_RATE = 1_000_000
_GAP_NS = 500_000_000  # an idle time of half a second lets clocks fall
_USAGE = "Give closed, rate:30, poisson:30, duty:1/60s or replay:FILE."


class LoadRecord(Record):
    """The load as it stands in the result: enough to make the same arrivals again."""

    text: Text
    kind: LoadKind
    rate_hz: float | None = None
    burst: Count | None = Field(None, description="frames at the start of each period")
    period_ns: Nanoseconds | None = None
    seed: Count | None = None
    replay_sha256: Digest | None = None


@dataclass(frozen=True)
class Load:
    """A load shape.

    Attributes:
        text: as it was written.
        rate_hz: of `rate` and `poisson`.
        burst: frames of `duty` that arrive together at the start of each period.
        period_ns: of `duty`.
        seed: of `poisson`.
        offsets: of `replay`, rising from 0.
    """

    text: str
    kind: LoadKind
    rate_hz: Fraction | None = None
    burst: int | None = None
    period_ns: int | None = None
    seed: int = 0
    offsets: tuple[int, ...] = field(default=(), repr=False)
    digest: str | None = None

    @property
    def closed(self) -> bool:
        """Whether a frame arrives when the one before it is answered."""
        return self.kind == "closed"

    @property
    def gap_ns(self) -> int:
        """An idle time from which the next frame counts as the first after a gap."""
        return _GAP_NS

    def arrivals(self) -> Iterator[int]:
        """Offsets (ns) from the start, rising; endless but for `replay`; 0s of `closed`."""
        if self.kind == "rate":
            assert self.rate_hz is not None
            step = SECOND / self.rate_hz
            return (i * step.numerator // step.denominator for i in count())
        if self.kind == "poisson":
            return self._poisson()
        if self.kind == "duty":
            assert self.burst is not None
            assert self.period_ns is not None
            burst, period = self.burst, self.period_ns
            return (i // burst * period for i in count())
        if self.kind == "replay":
            return iter(self.offsets)
        return (0 for _ in count())

    def _poisson(self) -> Iterator[int]:
        assert self.rate_hz is not None
        random = np.random.default_rng(self.seed)
        mean, now = float(SECOND / self.rate_hz), 0
        while True:
            # gaps are rounded once, then added as integers: an hour of them does not drift
            for gap in np.rint(random.exponential(mean, _BATCH)).astype(np.int64).tolist():
                yield now
                now += gap

    def record(self) -> LoadRecord:
        """What stands in the result."""
        return LoadRecord(
            text=self.text,
            kind=self.kind,
            rate_hz=None if self.rate_hz is None else float(self.rate_hz),
            burst=self.burst,
            period_ns=self.period_ns,
            seed=self.seed if self.kind == "poisson" else None,
            replay_sha256=self.digest,
        )


def parse_load(text: str, *, seed: int = 0) -> Load:
    """Read a load shape.

    Args:
        text: see the module.
        seed: of random arrivals.

    Raises:
        UsageError: it has no meaning.
        InputError: the file to replay is not what it must be.
        ResourceError: the file cannot be read.
    """
    kind, _, rest = text.partition(":")
    if text == "closed":
        return Load(text, "closed")
    if kind == "rate" and rest:
        return Load(text, "rate", rate_hz=_rate(rest, text))
    if kind == "poisson" and rest:
        return Load(text, "poisson", rate_hz=_rate(rest, text), seed=seed)
    if kind == "duty" and rest:
        frames, slash, period = rest.partition("/")
        if not slash or not frames.isdecimal() or not 1 <= int(frames) <= 10**6:
            raise UsageError(f"'{text}' is no duty cycle.", "Give frames per period, e.g. duty:1/60s.")
        return Load(text, "duty", burst=int(frames), period_ns=parse_duration(period))
    if kind == "replay" and rest:
        return _replay(text, Path(rest))
    raise UsageError(f"'{text}' is not a load.", _USAGE)


def _rate(text: str, whole: str) -> Fraction:
    rate = Fraction(text) if _NUMBER.fullmatch(text) else Fraction(0)
    if not 0 < rate <= _MAX_RATE:
        raise UsageError(f"'{whole}' has no rate.", "Give frames per second, up to a million: rate:30.")
    return rate


def _replay(text: str, path: Path) -> Load:
    """One arrival a line: seconds from the start as a decimal number, rising; `#` begins a comment."""
    try:
        if not path.is_file():
            raise InputError(f"{path} is not a file of arrivals.", "Give a text file with one time a line, in seconds.")
        if path.stat().st_size > _MAX_REPLAY_BYTES:
            raise InputError(f"{path} is larger than 64 MiB.", "Replay a shorter time.")
        data = path.read_bytes()
    except OSError as error:
        raise from_os_error(error, path) from error
    offsets: list[int] = []
    for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), start=1):
        if entry := line.partition("#")[0].strip():
            if not _NUMBER.fullmatch(entry):
                raise InputError(f"{path}, line {number} is not a time in seconds.", "Write e.g. 12.25.")
            offsets.append(int(Fraction(entry) * SECOND))
            if len(offsets) > 1 and offsets[-1] < offsets[-2]:
                raise InputError(f"{path}, line {number} is earlier than the one before.", "Sort the times.")
    if not offsets:
        raise InputError(f"{path} holds no arrivals.", "Write one time a line, in seconds.")
    first = offsets[0]
    return Load(text, "replay", offsets=tuple(o - first for o in offsets), digest=sha256_bytes(data))
