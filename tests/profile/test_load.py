"""Loads: arrivals that do not drift, and errors that say what to write."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice, takewhile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import InputError, ResourceError, UsageError
from edgemed.base.quantity import parse_duration
from edgemed.profile.load import parse_load

SECOND = 10**9


@given(index=st.integers(0, 3000), rate=st.sampled_from(["30", "29.97", "0.1", "7", "1000000"]))
def test_a_rate_never_drifts(index, rate):
    load = parse_load(f"rate:{rate}")
    arrival = next(islice(load.arrivals(), index, None))
    assert arrival == int(index * SECOND / Fraction(rate))


def test_poisson_arrivals_are_those_of_their_seed_and_of_their_rate():
    take = lambda seed: list(islice(parse_load("poisson:50", seed=seed).arrivals(), 20_000))  # noqa: E731
    one = take(1)
    assert one == take(1)
    assert one != take(2)
    assert one[0] == 0
    gaps = np.diff(one)
    assert (gaps >= 0).all()
    mean = SECOND / 50
    assert abs(gaps.mean() - mean) < 4 * mean / len(gaps) ** 0.5  # of an exponential, sigma is the mean
    assert gaps.std() == pytest.approx(mean, rel=0.05)  # its own error is 1 % here


def test_a_duty_cycle_sends_its_frames_together():
    assert list(islice(parse_load("duty:2/500ms").arrivals(), 5)) == [0, 0, SECOND // 2, SECOND // 2, SECOND]


def test_replay_begins_at_0_and_keeps_the_gaps(tmp_path):
    file = tmp_path / "times.txt"
    file.write_text("# a study\n12.5\n12.5\n\n13.000000001 # the next\n")
    load = parse_load(f"replay:{file}")
    assert list(load.arrivals()) == [0, 0, SECOND // 2 + 1]
    assert load.record().replay_sha256 == load.digest


@pytest.mark.parametrize(
    ("text", "duration", "frames"), [("rate:30", SECOND, 30), ("duty:1/60s", 61 * SECOND, 2), ("closed", SECOND, None)]
)
def test_frames_in_a_time(text, duration, frames):
    load = parse_load(text)
    arriving = takewhile(lambda offset: offset < duration, load.arrivals())
    assert (None if load.closed else sum(1 for _ in arriving)) == frames


@pytest.mark.parametrize(
    "text",
    ["", "open", "rate", "rate:", "rate:0", "rate:-3", "rate:1e9", "rate:fast", "rate:nan", "poisson:", "duty:1",
     "duty:0/1s", "duty:1/60", "duty:x/1s", "duty:1/0s", "closed:1", "replay:", "rate:2000000"],
)  # fmt: skip
def test_loads_without_meaning_are_refused(text):
    with pytest.raises(UsageError) as refused:
        parse_load(text)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("content", "what"),
    [("", "no arrivals"), ("1\n0.5\n", "line 2 is earlier"), ("1\nsoon\n", "line 2 is not a time"),
     ("\x00\xff", "line 1 is not"), ("-1\n", "line 1 is not"), ("1e99\n", "line 1 is not")],
)  # fmt: skip
def test_files_that_cannot_be_replayed_are_refused_by_line(tmp_path, content, what):
    file = tmp_path / "times.txt"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=what):
        parse_load(f"replay:{file}")


def test_a_missing_or_strange_file_is_refused(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises((InputError, ResourceError)):
            parse_load(f"replay:{path}")


@pytest.mark.parametrize(
    ("text", "ns"),
    [("10s", 10 * SECOND), ("250ms", SECOND // 4), ("1.5h", 5400 * SECOND), ("2min", 120 * SECOND), ("1ns", 1)],
)
def test_durations(text, ns):
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "0s", "1 day", "1e3s", "0.1ns", "inf s"])
def test_durations_without_meaning_are_refused(text):
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration(text)


def test_a_load_says_how_to_make_it_again():
    record = parse_load("poisson:30", seed=7).record()
    assert (record.kind, record.rate_hz, record.seed) == ("poisson", 30.0, 7)
    assert parse_load("rate:30", seed=7).record().seed is None
