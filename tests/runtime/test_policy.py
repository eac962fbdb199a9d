"""Frame policies: their text form, and the estimate that `deadline` drops by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import UsageError
from edgemed.runtime.policy import LATEST, LOSSLESS, Policy, ServiceTime


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("lossless", LOSSLESS),
        ("latest", LATEST),
        ("every-3", Policy("every-n", n=3)),
        ("deadline:50ms", Policy("deadline", deadline_ns=50_000_000)),
        ("deadline:1.5s", Policy("deadline", deadline_ns=1_500_000_000)),
        ("deadline:800us", Policy("deadline", deadline_ns=800_000)),
    ],
)
def test_it_reads_and_writes_its_text_form(text: str, policy: Policy) -> None:
    assert Policy.parse(text) == policy
    assert str(policy) == text


@pytest.mark.parametrize(
    "text", ["", "Latest", "every", "every-0", "every--1", "every-3 ", "deadline", "deadline:0ms", "deadline:5", "x"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Policy.parse(text)


def test_numbers_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError):
        Policy("deadline")
    with pytest.raises(UsageError):
        Policy("latest", deadline_ns=1)


@given(st.integers(1, 10**12))
def test_every_deadline_survives_its_text_form(deadline_ns: int) -> None:
    # nine digits are written: what is lost is below a part in 10⁸
    back = Policy.parse(str(Policy("deadline", deadline_ns=max(deadline_ns, 1000)))).deadline_ns
    assert abs(back - max(deadline_ns, 1000)) <= max(deadline_ns, 1000) * 1e-8 + 1


def test_the_estimate_follows_answers() -> None:
    service = ServiceTime()
    assert service.ns == 0
    service.answered(1000)
    assert service.ns == 1000
    for _ in range(40):
        service.answered(9000)
    assert 8900 < service.ns <= 9000


def test_the_estimate_recovers_from_a_slow_answer_though_every_frame_is_dropped_by_it() -> None:
    service = ServiceTime()
    service.answered(2_000_000_000)
    drops = 0
    while service.ns > 50_000_000:
        service.dropped()
        drops += 1
    assert drops < 40  # (7/8)**n < 1/40 at n = 28
