"""What a ring does with frames that come faster than they are computed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgemed.base.errors import UsageError

Kind = Literal["lossless", "latest", "every-n", "deadline"]

_UNITS = {"us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_EVERY = re.compile(r"every-([0-9]{1,9})")
_DEADLINE = re.compile(r"deadline:([0-9]{1,9}(?:\.[0-9]{1,9})?)(us|ms|s)")
_HINT = "Give lossless, latest, every-3 or deadline:50ms, for example."


@dataclass(frozen=True, slots=True)
class Policy:
    """One of four; the text form is what commands take.

    - `lossless`: none is dropped; `submit` waits for a slot, and so the source waits.
    - `latest`: the newest frame waits, and a newer one takes its place: "superseded". `submit` never waits.
    - `every-n`: the first of n frames is computed as in `lossless`, the others are dropped: "every-n".
    - `deadline:50ms`: a frame that is too old, or would be when its answer comes, is dropped: "late". Its age counts
      from its capture; a frame that has a deadline of its own keeps it.

    Attributes:
        n: of `every-n`.
        deadline_ns: of `deadline`, from the capture.
    """

    kind: Kind = "lossless"
    n: int = 1
    deadline_ns: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or (self.kind == "deadline") != (self.deadline_ns > 0):
            raise UsageError(f"The frame policy {self.kind} cannot have that number.", _HINT)

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read the text form.

        Raises:
            UsageError: it is none.
        """
        if text == "lossless":
            return LOSSLESS
        if text == "latest":
            return LATEST
        if every := _EVERY.fullmatch(text):
            return cls("every-n", n=int(every[1]))
        if deadline := _DEADLINE.fullmatch(text):
            return cls("deadline", deadline_ns=round(float(deadline[1]) * _UNITS[deadline[2]]))
        raise UsageError(f"{text!r} is no frame policy.", _HINT)

    def __str__(self) -> str:
        if self.kind == "every-n":
            return f"every-{self.n}"
        if self.kind == "deadline":
            unit = next(unit for unit in ("s", "ms", "us") if self.deadline_ns >= _UNITS[unit] or unit == "us")
            return f"deadline:{self.deadline_ns / _UNITS[unit]:.9g}{unit}"
        return self.kind


LOSSLESS = Policy("lossless")
LATEST = Policy("latest")


class ServiceTime:
    """Running estimate of how long a frame takes from its slot to its answer, for `deadline`.

    A weighted mean that forgets with each answer. Where frames are dropped on its word it also falls with each of them:
    no answer would ever correct an estimate that one slow answer, such as the first, has made too long.
    """

    _WEIGHT = 8  # an answer's share is 1/8: a lasting change shows after about ten frames, one outlier fades as fast

    def __init__(self) -> None:
        self.ns = 0

    def answered(self, took_ns: int) -> None:
        self.ns = took_ns if self.ns == 0 else self.ns + (took_ns - self.ns) // self._WEIGHT

    def dropped(self) -> None:
        self.ns -= self.ns // self._WEIGHT
