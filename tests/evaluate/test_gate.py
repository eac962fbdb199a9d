"""Gates: what they say, and that bounds decide them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import GateError, InconclusiveError, UsageError
from edgemed.evaluate.gate import Gate, check_gate, decide, describe, enforce, parse_gate
from edgemed.evaluate.proportions import PairedDifference, Proportion


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auc >= float - 0.005", ("auc", ">=", -0.005, True)),
        ("auc>=float-5e-3", ("auc", ">=", -0.005, True)),
        ("sensitivity > float", ("sensitivity", ">", 0.0, True)),
        ("AUC >= float + 0.01", ("auc", ">=", 0.01, True)),
        ("auc >= float − 0.005", ("auc", ">=", -0.005, True)),  # the minus sign that word processors write
        ("accuracy >= 0.9", ("accuracy", ">=", 0.9, False)),
        ("specificity <= .5", ("specificity", "<=", 0.5, False)),
        ("Dice:Left lung >= float - 0.01", ("dice:Left lung", ">=", -0.01, True)),
        ("dice:a>=0.5", ("dice:a", ">=", 0.5, False)),
        ("dice:a < b >= float", ("dice:a < b", ">=", 0.0, True)),
    ],
)
def test_parse(text: str, expected: tuple[str, str, float, bool]) -> None:
    gate = parse_gate(text)
    assert (gate.metric, gate.op, gate.limit, gate.paired) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "auc",
        "auc >=",
        "auc == 0.9",
        "auc >= int8",
        "auc >= 90",
        "auc >= float - 2",
        "auc >= 0.9 or 1",
        "auc >= nan",
        "dice: >= 0.5",
        "dice:",
    ],
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_gate(text)
    assert caught.value.exit_code == 2


def test_absolute_gate_is_decided_by_the_bound_not_the_estimate() -> None:
    gate = parse_gate("accuracy >= 0.9")
    assert decide(gate, Proportion(950, 1000)).verdict == "pass"
    assert decide(gate, Proportion(92, 100)).verdict == "inconclusive"  # 92 % is above, its bound is not
    assert decide(gate, Proportion(800, 1000)).verdict == "fail"


def test_paired_gate() -> None:
    gate = parse_gate("accuracy >= float - 0.01")
    assert decide(gate, PairedDifference(2, 3, 2000)).verdict == "pass"
    assert decide(gate, PairedDifference(0, 1, 50)).verdict == "inconclusive"
    assert decide(gate, PairedDifference(0, 100, 1000)).verdict == "fail"


def test_less_is_the_mirror_of_more() -> None:
    assert decide(parse_gate("accuracy <= 0.9"), Proportion(800, 1000)).verdict == "pass"
    assert decide(parse_gate("accuracy <= 0.9"), Proportion(950, 1000)).verdict == "fail"


@given(successes=st.integers(0, 300), limit=st.floats(0.01, 0.99))
def test_the_number_of_more_samples_decides(successes: int, limit: float) -> None:
    """What is promised is tried: with that many more, alike, the verdict falls."""
    gate = Gate("g", "accuracy", ">=", limit, paired=False)
    decision = decide(gate, Proportion(successes, 300))
    if decision.more is not None:
        assert decision.verdict == "inconclusive"
        bounds = Proportion(successes, 300).interval(0.90, scale=(300 + decision.more) / 300)
        assert bounds.low >= limit or bounds.high < limit


def test_an_estimate_on_the_limit_promises_nothing() -> None:
    decision = decide(parse_gate("accuracy >= 0.5"), Proportion(50, 100))
    assert (decision.verdict, decision.more) == ("inconclusive", None)


def test_enforce_raises_for_the_worst() -> None:
    good = decide(parse_gate("accuracy >= 0.9"), Proportion(950, 1000))
    undecided = decide(parse_gate("accuracy >= 0.9"), Proportion(92, 100))
    failed = decide(parse_gate("accuracy >= 0.9"), Proportion(800, 1000))
    enforce([good])
    with pytest.raises(InconclusiveError, match=f"About {undecided.more} more samples") as inconclusive:
        enforce([good, undecided])
    assert inconclusive.value.exit_code == 3
    with pytest.raises(GateError, match=r"failed: accuracy is 0\.8000") as caught:
        enforce([undecided, failed])
    assert caught.value.exit_code == 1


def test_describe_gives_the_sign_of_a_difference() -> None:
    decision = decide(parse_gate("accuracy >= float - 0.01"), PairedDifference(3, 1, 200))
    assert describe(decision).startswith("accuracy INT8 − float is +0.0100")


def test_a_gate_that_cannot_be_decided_is_refused() -> None:
    with pytest.raises(UsageError, match="no metric 'auc'"):
        check_gate(parse_gate("auc >= 0.9"), ("accuracy",), has_int8=True)
    with pytest.raises(UsageError, match="no INT8 model"):
        check_gate(parse_gate("accuracy >= float"), ("accuracy",), has_int8=False)
    check_gate(parse_gate("accuracy >= 0.5"), ("accuracy",), has_int8=False)
