"""Verdicts: what each clause of the objectives came to, and the run with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from pydantic import Field

from edgemed.profile.records import Confidence, Count, Record, Text

Outcome = Literal["pass", "fail", "inconclusive", "wrong-state"]
EXIT_CODES: Final[dict[Outcome, int]] = {"pass": 0, "fail": 1, "inconclusive": 3, "wrong-state": 4}


class ClauseResult(Record):
    """One clause.

    A percentile is judged by how often its limit was exceeded, with bounds that hold in bursts; `bound` beside it is
    the percentile's own, which holds for independent frames.
    """

    clause: Text = Field(description='as in the file of objectives, e.g. "latency.p99_9_ms"')
    limit: float
    outcome: Literal["pass", "fail", "inconclusive"]
    value: float | None = Field(description="as measured, in the unit of the limit; null: not measured")
    bound: float | None = Field(description="one-sided; null: the clause is judged by what was seen")
    n: Count | None
    more: Count | None = Field(description="samples still needed, if things go on as they did; null: unknown")
    why: Text


class Verdict(Record):
    """All clauses, and what kept the run from being evidence."""

    outcome: Outcome
    confidence: Confidence
    slo_sha256: Text
    clauses: tuple[ClauseResult, ...]
    invalid: tuple[Text, ...] = Field(description="why no clause can be trusted: not steady, throttled, …")
    wrong_state: tuple[Text, ...] = Field(description="how the device differs from what the objectives ask for")

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]


def combine(clauses: Sequence[ClauseResult], invalid: Sequence[str], wrong_state: Sequence[str]) -> Outcome:
    """A wrong device first, then a run that is no evidence, then a clause that failed, then one that is open."""
    if wrong_state:
        return "wrong-state"
    if invalid:
        return "inconclusive"
    outcomes = {clause.outcome for clause in clauses}
    if "fail" in outcomes:
        return "fail"
    return "inconclusive" if "inconclusive" in outcomes or not clauses else "pass"
