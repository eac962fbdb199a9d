"""Gates: `METRIC OP float ± NUMBER` or `METRIC OP NUMBER`, decided by confidence bounds, never by a point estimate."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from edgemed.base.errors import GateError, InconclusiveError, UsageError
from edgemed.evaluate.estimate import ONE_SIDED_LEVEL, Estimate, bisect

Verdict = Literal["pass", "fail", "inconclusive"]

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_GATE = re.compile(
    rf"\s*(?P<metric>[A-Za-z_]+)(?P<part>:\S.*?)?\s*(?P<op>>=|<=|>|<)\s*"
    rf"(?:(?P<float>float)(?:\s*(?P<sign>[+-])\s*(?P<margin>{_NUMBER}))?|(?P<limit>{_NUMBER}))\s*"
)
_HINT = "Write it like 'auc >= float - 0.005' or 'accuracy >= 0.9'."
_MOST_TIMES = 1e6  # beyond a millionfold no study is meant to be planned


@dataclass(frozen=True)
class Gate:
    """One gate.

    Args:
        text: as it was written.
        metric: name of the metric of the INT8 model; of one class of a segmentation, `dice:NAME`.
        op: the relation that must hold.
        limit: for a paired gate the limit of the difference INT8 - float, otherwise of the metric itself.
        paired: whether `limit` is relative to the float model.
    """

    text: str
    metric: str
    op: Literal[">=", ">", "<=", "<"]
    limit: float
    paired: bool


@dataclass(frozen=True)
class Decision:
    """The verdict on a gate.

    Args:
        gate: what was decided.
        verdict: pass, fail or inconclusive.
        value: the estimate (for a paired gate: of the difference).
        low: its lower one-sided 95 % bound.
        high: its upper one-sided 95 % bound.
        n: samples behind it.
        more: about how many more samples would decide, if they behave alike; `None` when decided already or when no
            number would.
    """

    gate: Gate
    verdict: Verdict
    value: float
    low: float
    high: float
    n: int
    more: int | None = None


def parse_gate(text: str) -> Gate:
    """Read a gate.

    Raises:
        UsageError: it is not of the form `METRIC OP float [± NUMBER]` or `METRIC OP NUMBER`.
    """
    match = _GATE.fullmatch(text.replace("−", "-"))
    if match is None:
        raise UsageError(f"The gate '{text}' is not understood.", _HINT)
    paired = match["float"] is not None
    limit = float(match["margin"] or 0) if paired else float(match["limit"])
    if not math.isfinite(limit) or limit > 1:
        raise UsageError(f"The gate '{text}' compares with {limit:g}; metrics lie between 0 and 1.", _HINT)
    if match["sign"] == "-":
        limit = -limit
    return Gate(text.strip(), match["metric"].lower() + (match["part"] or ""), match["op"], limit, paired)  # type: ignore[arg-type]


def decide(gate: Gate, estimate: Estimate) -> Decision:
    """Decide a gate by the one-sided 95 % bounds of its estimate.

    It passes when the bound on the bad side clears the limit, fails when the whole interval between the two bounds
    lies beyond it, and is inconclusive in between: each wrong verdict has a chance of about 5 % at most.
    """
    verdict = _verdict(gate, estimate, 1.0)
    bounds = estimate.interval(ONE_SIDED_LEVEL)
    more = _more_samples(gate, estimate) if verdict == "inconclusive" else None
    return Decision(gate, verdict, estimate.value, bounds.low, bounds.high, estimate.n, more)


def check_gate(gate: Gate, metrics: Collection[str], *, has_int8: bool) -> None:
    """Refuse a gate that could not be decided, before anything is run.

    Args:
        gate: the gate.
        metrics: names of the metrics there will be.
        has_int8: whether there is an INT8 model to compare with float.

    Raises:
        UsageError: there is no such metric, or nothing to compare.
    """
    if gate.paired and not has_int8:
        raise UsageError(f"The gate '{gate.text}' compares INT8 with float, and there is no INT8 model.", _HINT)
    if gate.metric not in metrics:
        raise UsageError(f"There is no metric '{gate.metric}' for this model.", f"It has: {', '.join(metrics)}.")


def enforce(decisions: Sequence[Decision]) -> None:
    """Raise for the worst verdict, if any is not a pass.

    Raises:
        GateError: a gate failed.
        InconclusiveError: none failed, and one cannot be decided yet.
    """
    for decision in decisions:
        if decision.verdict == "fail":
            raise GateError(f"The gate '{decision.gate.text}' failed: {describe(decision)}.", _advice(decision))
    for decision in decisions:
        if decision.verdict == "inconclusive":
            raise InconclusiveError(
                f"The gate '{decision.gate.text}' is undecided: {describe(decision)}.", _advice(decision)
            )


def describe(decision: Decision) -> str:
    """The measured figures of a decision, in a few words."""
    what = f"{decision.gate.metric} INT8 − float" if decision.gate.paired else decision.gate.metric
    sign = "+" if decision.gate.paired else ""
    return (
        f"{what} is {decision.value:{sign}.4f}, one-sided 95 % bounds {decision.low:{sign}.4f} "
        f"to {decision.high:{sign}.4f}, n = {decision.n}"
    )


def _advice(decision: Decision) -> str:
    if decision.verdict == "fail":
        return "Calibrate with more typical images, keep sensitive layers in float, or build with --fp16."
    if decision.more is None:
        return "The estimate lies on the limit: more samples alone will hardly decide it."
    return f"About {decision.more} more samples would decide it, if they behave like these {decision.n}."


def _verdict(gate: Gate, estimate: Estimate, scale: float) -> Verdict:
    bounds = estimate.interval(ONE_SIDED_LEVEL, scale)
    low, high, limit = bounds.low, bounds.high, gate.limit
    if gate.op in ("<=", "<"):
        low, high, limit = -high, -low, -limit
    if low > limit or (low == limit and gate.op in (">=", "<=")):
        return "pass"
    if high < limit or (high == limit and gate.op in (">", "<")):
        return "fail"
    return "inconclusive"


def _more_samples(gate: Gate, estimate: Estimate) -> int | None:
    def decided(log_scale: float) -> bool:
        return _verdict(gate, estimate, math.exp(log_scale)) != "inconclusive"

    most = math.log(_MOST_TIMES)
    if not decided(most):
        return None
    scale = math.exp(bisect(decided, 0.0, most))
    return max(1, math.ceil(estimate.n * (scale - 1)))
