"""Two sets of runs: improvement, regression, equal within a margin, or undecided.

Runs, not frames, are what is resampled: frames of one process share its memory layout, its clocks and its luck. The
interval is an expanded percentile interval of the bootstrap, since a plain one is too narrow for few runs (T. C.
Hesterberg, What teachers should know about the bootstrap, The American Statistician 69 (2015), section 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgemed.base.errors import InputError, UsageError
from edgemed.profile.records import Confidence, Count, Positive, Record, Share, Text
from edgemed.profile.result import RESULT, Result, read_result
from edgemed.profile.stats import PERCENTILES
from edgemed.profile.steady import student_quantile

SCHEMA: Final = "edgemed/comparison/1"
LEAST_RUNS: Final = 5
CONFIDENCE: Final = 0.95
_RESAMPLES: Final = 20_000
_SEED: Final = 0
METRICS: Final = (*(f"p{p}" for p in PERCENTILES), "max", "first_frame", "energy")
_ALWAYS_APART: Final = ("engine_sha256", "bundle_digest")

Outcome = Literal["improvement", "regression", "equal", "inconclusive", "unjudged"]
EXIT_CODES: Final[Mapping[Outcome, int]] = {
    "improvement": 0,
    "regression": 1,
    "equal": 0,
    "inconclusive": 3,
    "unjudged": 0,
}


class Change(Record):
    """One quantity: B against A, as a share of A; above 0 is slower."""

    metric: Text
    a: float | None = Field(description="geometric mean over runs, in ns (energy: mJ)")
    b: float | None
    runs_a: Count
    runs_b: Count
    change: float | None
    low: float | None = Field(description="two-sided interval")
    high: float | None
    margin: Share | None
    outcome: Outcome
    why: Text


class Comparison(Record):
    """Two sets of runs."""

    schema_: Literal["edgemed/comparison/1"] = Field(alias="schema")
    name_a: Text
    name_b: Text
    runs_a: Positive
    runs_b: Positive
    confidence: Confidence
    differing: tuple[Text, ...] = Field(description="parts of fingerprint and load that differ, and were allowed to")
    changes: tuple[Change, ...]
    outcome: Outcome
    warnings: tuple[Text, ...] = ()

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]


@dataclass(frozen=True)
class Margin:
    """How much of a change is none: `p99=5%`."""

    metric: str
    share: float


def parse_margin(text: str) -> Margin:
    """Read `METRIC=SHARE`.

    Raises:
        UsageError: no such metric, or not a share above 0.
    """
    metric, _, value = text.partition("=")
    if metric not in METRICS:
        raise UsageError(f"'{text}' names no metric.", f"Metrics: {', '.join(METRICS)}; e.g. p99=5%.")
    number, percent = value.removesuffix("%"), value.endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise UsageError(f"'{text}' has no margin.", "Give a share between 0 and 1, e.g. p99=5%.")
    return Margin(metric, share)


def load_runs(path: Path) -> list[Result]:
    """Results at a path: one `result.json`, the folder of one, or a folder of such folders.

    Raises:
        InputError: there are none, or one is none.
        ResourceError: one cannot be read.
    """
    if not path.is_dir() or (path / RESULT).is_file():
        return [read_result(path)]
    folders = sorted(each.parent for each in path.glob(f"*/{RESULT}"))
    if not folders:
        raise InputError(f"{path} holds no results of `edgemed profile`.", "Give a result.json, or folders of them.")
    return [read_result(folder) for folder in folders]


def differences(a: Sequence[Result], b: Sequence[Result]) -> tuple[str, ...]:
    """Parts of fingerprint, load and settings in which not all runs are alike, e.g. `"host.kernel"`."""
    flat = [_identity(result) for result in (*a, *b)]
    return tuple(key for key in flat[0] if len({repr(each.get(key)) for each in flat}) > 1)


def _identity(result: Result) -> dict[str, Any]:
    mark = result.fingerprint.model_dump()
    host = mark.pop("host")
    mark |= {f"host.{key}": value for key, value in host.items()}
    mark |= {f"load.{key}": value for key, value in result.load.model_dump(exclude={"seed"}).items()}
    kept = ("collector", "ring", "sync", "cuda_graph", "copies_counted", "inputs", "inputs_count")
    return mark | {f"settings.{key}": getattr(result.settings, key) for key in kept}


def compare(
    a: Sequence[Result], b: Sequence[Result], margins: Sequence[Margin], *, allow: Sequence[str] = ()
) -> Comparison:
    """Compare two sets of runs.

    Args:
        a: the baseline.
        b: what is held against it.
        margins: of the metrics that decide; the others are told without a judgement.
        allow: parts of the fingerprint that may differ, or `"all"`; what was built (bundle, engine) may always.

    Raises:
        UsageError: runs differ in what was not allowed to.
    """
    differing = differences(a, b)
    strange = [key for key in differing if key not in (*_ALWAYS_APART, *allow) and "all" not in allow]
    if strange:
        raise UsageError(
            f"These runs were not measured alike: {', '.join(strange)}.",
            f"Measure both alike, or give --allow {strange[0]} if that is what you compare.",
        )
    wanted = {margin.metric: margin.share for margin in margins}
    changes = tuple(_change(metric, a, b, wanted.get(metric)) for metric in METRICS)
    kept = tuple(change for change in changes if change.change is not None or change.margin is not None)
    return Comparison(
        schema_=SCHEMA,
        name_a=a[0].name,
        name_b=b[0].name,
        runs_a=len(a),
        runs_b=len(b),
        confidence=CONFIDENCE,
        differing=differing,
        changes=kept,
        outcome=_overall([change.outcome for change in kept if change.margin is not None]),
        warnings=tuple(_warnings(a, b)),
    )


def _overall(outcomes: Sequence[Outcome]) -> Outcome:
    order: tuple[Outcome, ...] = ("regression", "inconclusive", "improvement", "equal")
    return next((outcome for outcome in order if outcome in outcomes), "unjudged")


def _change(metric: str, a: Sequence[Result], b: Sequence[Result], margin: float | None) -> Change:
    left, right = ([value for each in side if (value := metric_of(each, metric))] for side in (a, b))
    logs = np.log(left), np.log(right)
    change = math.expm1(logs[1].mean() - logs[0].mean()) if left and right else None
    low = high = None
    if min(len(left), len(right)) >= 2:
        low, high = (math.expm1(end) for end in interval(*logs))
    outcome, why = judge_change(low, high, margin, missing=max(0, LEAST_RUNS - min(len(left), len(right))))
    return Change(
        metric=metric,
        a=math.exp(logs[0].mean()) if left else None,
        b=math.exp(logs[1].mean()) if right else None,
        runs_a=len(left),
        runs_b=len(right),
        change=change,
        low=low,
        high=high,
        margin=margin,
        outcome=outcome,
        why=why,
    )


def metric_of(result: Result, metric: str) -> float | None:
    """A quantity of one run: nanoseconds, or mJ; `None` where it was not measured."""
    if metric == "first_frame":
        return result.first_frames.first_ns
    if metric == "energy":
        return result.energy[0].gross_mj if result.energy else None
    if result.latency is None:
        return None
    return result.latency.max_ns if metric == "max" else result.latency.percentile(metric[1:]).value_ns


def judge_change(low: float | None, high: float | None, margin: float | None, *, missing: int) -> tuple[Outcome, str]:
    """What an interval of a change means; a margin of x holds from 1/(1 + x) to 1 + x."""
    if margin is None:
        return "unjudged", "no margin was given"
    if missing or low is None or high is None:
        return "inconclusive", f"needs {max(1, missing)} more runs of each side that have this figure"
    faster = -margin / (1 + margin)
    if low > margin:
        return "regression", f"slower by {low:.1%} or more"
    if high < faster:
        return "improvement", f"faster by {-high:.1%} or more"
    if faster <= low and high <= margin:
        return "equal", "the whole interval lies within the margin"
    return "inconclusive", "the interval crosses the margin: measure more runs"


def interval(a: NDArray[np.float64], b: NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided interval of mean(b) - mean(a), by resampling runs within each side.

    Args:
        a: (runs,) at least 2.
        b: (runs,) at least 2.
        confidence: of the interval.
    """
    random = np.random.default_rng(_SEED)
    means = [side[random.integers(0, len(side), (_RESAMPLES, len(side)))].mean(axis=1) for side in (a, b)]
    ordered = np.sort(means[1] - means[0])
    n = min(len(a), len(b))
    # so far out in the normal distribution as Student's would be, with the bootstrap's lack of 1/n in its variance
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * student_quantile(n - 1, 0.5 + confidence / 2))
    low = int(tail * _RESAMPLES)
    return float(ordered[low]), float(ordered[_RESAMPLES - 1 - low])


def _warnings(a: Sequence[Result], b: Sequence[Result]) -> list[str]:
    found = []
    for name, side in (("A", a), ("B", b)):
        if early := sum(result.ended is not None for result in side):
            found.append(f"{early} runs of {name} ended early.")
        if len(side) < LEAST_RUNS:
            found.append(f"{name} has {len(side)} of the {LEAST_RUNS} runs that a verdict takes.")
        if any(telemetry.throttled for result in side for telemetry in result.telemetry):
            found.append(f"Runs of {name} throttled.")
    return found
