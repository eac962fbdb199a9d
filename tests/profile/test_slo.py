"""Objectives and verdicts: each clause passes, fails and stays open where it must; what is no evidence decides none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgemed.base.errors import InputError, UsageError
from edgemed.base.runner import RunnerInfo
from edgemed.profile.beside import Channel, Energy, Telemetry
from edgemed.profile.load import parse_load
from edgemed.profile.result import RESULT, read_result
from edgemed.profile.session import About, fingerprint_of, profile
from edgemed.profile.slo import clauses_of, load_slo
from edgemed.profile.stamps import DROPPED, FAILED, REASON_SHIFT
from edgemed.profile.verdict import EXIT_CODES
from tests.profile.scripted import measurement, one_server

SECOND, MS = 10**9, 10**6
REPO = Path(__file__).resolve().parents[2]


def objectives(tmp_path: Path, text: str):
    file = tmp_path / "slo.toml"
    file.write_text('schema = "edgemed/slo/1"\n' + text)
    return load_slo(file)


def stream(n: int, late: list[int] | range = (), by: int = 40 * MS) -> np.ndarray:
    """n frames at 10 a second that take 5 ms; those of `late` take as long as `by`."""
    service = np.full(n, 5 * MS)
    service[list(late)] = by
    return one_server([i * SECOND // 10 for i in range(n)], service.tolist())


class Told:
    """Beside a run: what a sensor would have said."""

    series = ()
    junction = None

    def __init__(self, *findings) -> None:
        self.told = findings

    def findings(self, measured):
        return self.told

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None: ...


def verdict_of(tmp_path: Path, rows: np.ndarray, slo: str, *findings, stop=None):
    about = About("m", fingerprint_of(RunnerInfo("null", "int8", "none"), None), ("script", 1))
    wanted = objectives(tmp_path, slo)
    made = lambda: measurement(tmp_path / "s.npy", rows, parse_load("rate:10"), stop)  # noqa: E731
    done = profile(made, about, objectives=wanted, beside=[Told(*findings)], output=tmp_path)
    assert read_result(tmp_path / RESULT) == done.result  # written, and read back as it is
    return done.result.verdict


P99 = "[latency]\np99_ms = 20\n"
RATE = "deadline_ms = 20\n[misses]\nrate = 0.01\n"


@pytest.mark.parametrize(
    ("slo", "n", "late", "outcome"),
    [
        (P99, 299, [], "pass"),
        (P99, 298, [], "inconclusive"),
        (P99, 5000, range(0, 5000, 11), "fail"),
        (P99, 1000, range(0, 1000, 100), "inconclusive"),
        (P99, 200, range(200), "fail"),
        ("[latency]\np99_9_ms = 20\n", 2994, [], "inconclusive"),
        ("[latency]\np99_9_ms = 20\n", 2995, [], "pass"),
        # every third frame is above: the median is shown to be below, p90 to be above
        ("[latency]\np50_ms = 20\n", 1000, range(0, 1000, 3), "pass"),
        ("[latency]\np90_ms = 20\n", 1000, range(0, 1000, 3), "fail"),
        (RATE, 299, [], "pass"),
        (RATE, 298, [], "inconclusive"),
        (RATE, 5000, range(0, 5000, 11), "fail"),
        # plain binomial would pass both of these: 5 of 4000 at 95 %
        (RATE, 4000, range(5), "inconclusive"),
        (RATE, 4000, range(0, 4000, 800), "inconclusive"),
        # one event of 5 in 50,000, ten times over, is still below 1 %
        (RATE, 50_000, range(5), "pass"),
        ("deadline_ms = 20\n[misses]\nburst = 3\n", 100, [7, 8, 9], "pass"),
        ("deadline_ms = 20\n[misses]\nburst = 3\n", 100, [7, 8, 9, 10], "fail"),
        ("deadline_ms = 20\n[misses]\nrecovery_ms = 250\n", 100, [7, 8], "pass"),
        ("deadline_ms = 20\n[misses]\nrecovery_ms = 150\n", 100, [7, 8], "fail"),
        ("deadline_ms = 20\n[misses]\nrecovery_ms = 250\n", 100, [98], "inconclusive"),
        ("deadline_ms = 20\n[misses]\nevents_per_hour = 200\n", 1000, [], "pass"),
        ("deadline_ms = 20\n[misses]\nevents_per_hour = 50\n", 1000, [], "inconclusive"),
        ("deadline_ms = 20\n[misses]\nevents_per_hour = 200\n", 1000, range(0, 1000, 50), "fail"),
        ("[first_frame]\nfirst_ms = 20\n", 10, [], "pass"),
        ("[first_frame]\nfirst_ms = 20\n", 10, [0], "fail"),
        ("[first_frame]\nafter_gap_ms = 20\n", 10, [], "inconclusive"),
        ("[energy]\ngross_mj = 5\n", 10, [], "inconclusive"),
        ("[temperature]\njunction_c = 80\n", 10, [], "inconclusive"),
    ],
)  # fmt: skip
def test_clauses(tmp_path, slo, n, late, outcome):
    verdict = verdict_of(tmp_path, stream(n, late), slo)
    (clause,) = verdict.clauses
    assert (clause.outcome, verdict.outcome) == (outcome, outcome), clause.why
    assert verdict.exit_code == EXIT_CODES[outcome]


@pytest.mark.parametrize(("n", "more"), [(298, 1), (100, 199)])
def test_an_open_clause_says_how_many_more_frames(tmp_path, n, more):
    for slo in (P99, RATE):
        (clause,) = verdict_of(tmp_path, stream(n), slo).clauses
        assert clause.more == more


def test_an_assumed_burst_asks_for_more_frames_without_a_miss(tmp_path):
    (clause,) = verdict_of(tmp_path, stream(2000), "assumed_burst_frames = 10\n" + RATE).clauses
    assert clause.outcome == "inconclusive"
    assert clause.more == 2995 - 2000
    assert "bursts assumed 10 long" in clause.why


def test_lost_frames_miss_exceed_and_are_dropped(tmp_path):
    rows = stream(3000)
    rows[::20, 0] = DROPPED | 1 << REASON_SHIFT
    rows[::50, 0] = FAILED
    verdict = verdict_of(tmp_path, rows, RATE + "[drops]\nrate = 0.01\n" + P99)
    assert [clause.outcome for clause in verdict.clauses] == ["fail"] * 3


def telemetry(**changed) -> Telemetry:
    base = {"source": "sysfs", "interval_ns": 10**8, "longest_gap_ns": 10**8, "over_current_events": 0}
    base |= {"throttled": False, "throttled_at_start": False}
    hot = Channel(
        name="tj", kind="temperature", unit="mC", samples=9, first=40_000, last=7, min=7, median=8, max=81_000
    )
    return Telemetry(**{**base, "channels": (hot,), "clocks_changed": False, "junction": "tj", **changed})


@pytest.mark.parametrize(("limit", "outcome"), [(81, "pass"), (80.9, "fail")])
def test_the_junction_is_judged_by_its_hottest_reading(tmp_path, limit, outcome):
    slo = f"[temperature]\njunction_c = {limit}\n"
    assert verdict_of(tmp_path, stream(10), slo, telemetry()).outcome == outcome


@pytest.mark.parametrize(("limit", "outcome"), [(50, "pass"), (49, "fail")])
def test_energy_is_judged_where_it_was_measured(tmp_path, limit, outcome):
    spent = Energy(
        rail="VDD_IN",
        total=True,
        window_ns=1,
        samples=1,
        interval_ns=1,
        staleness_ns=1,
        inferences=1,
        idle_mw=1,
        idle_window_ns=1,
        mean_mw=1,
        gross_mj=50,
        net_mj=9,
    )
    assert verdict_of(tmp_path, stream(10), f"[energy]\ngross_mj = {limit}\n", spent).outcome == outcome


@pytest.mark.parametrize(
    ("extra", "findings", "stop", "why"),
    [
        ("", [telemetry(throttled=True)], None, "throttled"),
        ("", [telemetry(clocks_changed=True)], None, "clock changed"),
        ("", [telemetry(lost="was killed")], None, "sampling was killed"),
        ("require_steady = true\n", [], None, "shorter than one window"),
        ("min_duration_s = 100\n", [], None, "of the 100 s asked for"),
        ("", [], KeyboardInterrupt(), "ended early"),
    ],
)
def test_what_is_no_evidence_is_inconclusive_whatever_it_shows(tmp_path, extra, findings, stop, why):
    for late in ([], range(300)):
        verdict = verdict_of(tmp_path, stream(300, late), extra + P99, *findings, stop=stop)
        assert verdict.outcome == "inconclusive"
        assert why in verdict.invalid[0]


@pytest.mark.parametrize(
    "state", ['precision = "fp16"', 'power_mode = "MAXN"', 'clocks = "locked"', 'board = "agx"', 'backend = "tensorrt"']
)
def test_another_device_is_told_before_anything_else(tmp_path, state):
    verdict = verdict_of(tmp_path, stream(300, range(300)), f"{P99}[state]\n{state}\n")
    assert (verdict.outcome, verdict.exit_code) == ("wrong-state", 4)


def test_a_device_that_was_throttled_before_the_start_is_another_device(tmp_path):
    verdict = verdict_of(tmp_path, stream(300), P99, telemetry(throttled_at_start=True))
    assert (verdict.outcome, verdict.exit_code) == ("wrong-state", 4)


def test_the_device_that_was_asked_for_is_no_hindrance(tmp_path):
    slo = f'{P99}[state]\nprecision = "int8"\nbackend = "null"\n'
    assert verdict_of(tmp_path, stream(300), slo).outcome == "pass"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no clause"),
        ("[misses]\nrate = 0.1\n", "no deadline_ms"),
        ("deadline_ms = 1\n[misses]\nrate = 0\n", "misses.rate"),
        ("[latency]\np42_ms = 1\n", "latency.p42_ms"),
        ("[latency]\np99_ms = -1\n", "latency.p99_ms"),
        ("[latency]\np99_ms = nan\n", "latency.p99_ms"),
        ("confidence = 0.2\n" + P99, "confidence"),
        ("surprise = 1\n" + P99, "surprise"),
        ("[latency\n", "not valid TOML"),
    ],
)
def test_objectives_without_meaning_are_refused(tmp_path, text, what):
    with pytest.raises((InputError, UsageError), match=re.escape(what)) as refused:
        objectives(tmp_path, text)
    assert refused.value.hint


def test_the_example_is_whole():
    found = load_slo(REPO / "examples" / "slo.toml")
    assert {"latency.p99_ms", "misses.rate", "misses.burst", "drops.rate"} <= clauses_of(found.slo).keys()


@pytest.mark.parametrize("damage", ["{", '{"schema": "edgemed/other/1"}', ""])
def test_results_that_are_none_are_refused(tmp_path, damage):
    (tmp_path / RESULT).write_text(damage)
    with pytest.raises(InputError):
        read_result(tmp_path)
    with pytest.raises(InputError, match="not a result"):
        read_result(tmp_path / "none")
