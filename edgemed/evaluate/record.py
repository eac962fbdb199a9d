"""The record of an evaluation: what `edgemed evaluate --json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgemed.base.runner import RunnerInfo
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


def measured(estimates: Mapping[str, Estimate]) -> dict[str, Measured]:
    """The records of estimates, by metric."""
    return {name: Measured.of(estimate) for name, estimate in estimates.items()}


class ClassCount(_Strict):
    """Samples of one class, in the order of the model's output; of a segmentation, images on which it was drawn."""

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

    @classmethod
    def of(cls, info: RunnerInfo, estimates: Mapping[str, Estimate]) -> PrecisionResult:
        """The record of what a Runner's answers were worth."""
        return cls(precision=info.precision, backend=info.backend, device=info.device, metrics=measured(estimates))


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


class Masks(_Strict):
    """What is said of segmentations alone."""

    rule: Literal["threshold", "argmax"] = Field(description="how pixels are decided, on the source's grid")
    units: Annotated[int, Field(ge=1)] = Field(description="patients where files name them, else different images")
    left_out: Count = Field(description="images to which no segmentation refers")
    not_drawn: dict[str, Count] = Field(
        description="images on which a class was not drawn: only false_alarms judges them"
    )
    agreement: Measured | None = Field(description="Dice of float's and INT8's masks, where either marks something")


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
    disagreement: Measured | None = Field(
        description="share of samples, of a segmentation of pixels, on which the two decide differently"
    )
    gates: tuple[GateResult, ...] = ()
    warnings: tuple[str, ...] = ()
    masks: Masks | None = Field(None, description="of a segmentation")


@dataclass(frozen=True)
class Comparison:
    """An evaluation, and the decisions on its gates."""

    evaluation: Evaluation
    decisions: tuple[Decision, ...]
