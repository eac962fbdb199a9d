"""The record of an evaluation: what `edgemed evaluate --json` prints."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgemed.evaluate.estimate import LEVEL, Estimate
from edgemed.evaluate.gate import Decision

SCHEMA: Final = "edgemed/evaluation/1"
Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class Measured(_Strict):
    """A value, the samples behind it, and its two-sided 95 % interval."""

    value: float
    n: Annotated[int, Field(ge=1)]
    low: float
    high: float

    @classmethod
    def of(cls, estimate: Estimate) -> Measured:
        """The record of an estimate, at the level that is printed everywhere."""
        bounds = estimate.interval(LEVEL)
        return cls(value=estimate.value, n=estimate.n, low=bounds.low, high=bounds.high)


class ClassCount(_Strict):
    """Samples of one class, in the order of the model's output."""

    name: str
    samples: Annotated[int, Field(ge=1)]


class Data(_Strict):
    """What was evaluated on."""

    folder: str
    digest: Digest
    samples: Annotated[int, Field(ge=1)]
    classes: tuple[ClassCount, ...]
    class_order: str = Field(description="where the order of the classes comes from")
    duplicates: Count


class PrecisionResult(_Strict):
    """Metrics of one precision, and who computed them."""

    precision: str
    backend: str
    device: str
    metrics: dict[str, Measured]


class GateResult(_Strict):
    """One gate; `low` and `high` are one-sided 95 % bounds, which decide, not the interval of the table."""

    gate: str
    verdict: Literal["pass", "fail", "inconclusive"]
    value: float
    low: float
    high: float
    n: Annotated[int, Field(ge=1)]
    more_samples: Annotated[int, Field(ge=1)] | None

    @classmethod
    def of(cls, decision: Decision) -> GateResult:
        """The record of a decision."""
        return cls(
            gate=decision.gate.text,
            verdict=decision.verdict,
            value=decision.value,
            low=decision.low,
            high=decision.high,
            n=decision.n,
            more_samples=decision.more,
        )


class Evaluation(_Strict):
    """Float and INT8 on the same labelled images."""

    schema_: Literal["edgemed/evaluation/1"] = Field(alias="schema")
    bundle: str
    bundle_digest: Digest
    output: str
    threshold: float | None = Field(description="probability from which a binary task decides for the last class")
    data: Data
    results: tuple[PrecisionResult, ...]
    differences: dict[str, Measured] = Field(description="INT8 minus float, paired; empty without an INT8 graph")
    disagreement: Measured | None = Field(description="share of samples on which the two decide differently")
    gates: tuple[GateResult, ...] = ()
    warnings: tuple[str, ...] = ()
