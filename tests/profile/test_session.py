"""A whole run: the record says what was measured and what was not, and a terminal shows `n/a`, never 0."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgemed.base.errors import GpuError, InputError, Terminated
from edgemed.base.runner import RunnerInfo
from edgemed.profile.beside import Channel, Series, Telemetry
from edgemed.profile.load import parse_load
from edgemed.profile.measure import Plan, measure_runner
from edgemed.profile.result import RESULT, OwnCost
from edgemed.profile.session import About, fingerprint_of, profile
from edgemed.profile.soak import until_steady
from edgemed.profile.steady import SteadyRule
from edgemed.profile.text import NA, head_rows, ms, percentile_rows, stage_rows
from tests.profile.scripted import FEEDS, measurement, one_server, scripted_runner

SECOND, MS = 10**9, 10**6
MARK = fingerprint_of(RunnerInfo("null", "int8", "none"), None)


def result_of(tmp_path, rows: np.ndarray, load: str = "rate:10", stop=None, **about):
    made = lambda: measurement(tmp_path / "s.npy", rows, parse_load(load), stop)  # noqa: E731
    return profile(made, About("m", MARK, ("script", 1), **about), deadline_ns=20 * MS).result


def steady_stream(n: int) -> np.ndarray:
    return one_server([i * SECOND // 10 for i in range(n)], [5 * MS] * n)


def test_what_was_not_measured_is_said(tmp_path):
    missing = " ".join(result_of(tmp_path, steady_stream(10)).not_measured)
    for word in ("preprocessing", "copies", "temperature", "energy", "steady", "start of the process"):
        assert word in missing


def test_a_run_of_minutes_tells_whether_it_was_steady(tmp_path):
    result = result_of(tmp_path, steady_stream(10 * 60 * 6))
    assert result.steady.reached
    assert result.steady.temperature is None
    assert not any("steady" in text for text in result.not_measured)


@pytest.mark.parametrize(
    ("stop", "reason"),
    [(KeyboardInterrupt(), "interrupted"), (Terminated(), "terminated"), (GpuError("gone"), "failed")],
)
def test_why_it_ended_early_is_kept(tmp_path, stop, reason):
    assert result_of(tmp_path, steady_stream(10), stop=stop).ended.reason == reason


def test_a_run_without_answers_says_so(tmp_path):
    result = result_of(tmp_path, np.empty((0, 11), np.int64))
    assert result.latency is None
    assert result.warnings == ("No frame was answered after the warm-up: measure longer.",)
    assert ms(None) == NA


def test_warnings_name_what_makes_figures_doubtful(tmp_path):
    rows = steady_stream(50)
    rows[:, 2] += 3 * MS  # the loop woke late, each time
    texts = " ".join(result_of(tmp_path, rows, own_cost=OwnCost(per_frame_ns=MS, frames=1)).warnings)
    assert "more samples" in texts
    assert "taken 3.00 ms late" in texts
    assert "own 1000.0 µs" in texts
    closed = result_of(tmp_path, rows, load="closed").warnings
    assert any("Closed load" in text for text in closed)


def test_tables_refuse_percentiles_and_never_print_a_missing_one_as_0(tmp_path):
    result = result_of(tmp_path, steady_stream(500))
    table = {row[0]: row for row in percentile_rows(result.latency)}
    assert table["p50"][1] == "5.000"
    assert table["p99.9"][1:3] == (NA, NA)
    assert "needs 2495 more samples" in table["p99.9"][3]
    assert {row[0] for row in stage_rows(result)} == {"wait", "queue", "compute", "post"}
    assert any("0 of 500 later than 20 ms" in text for _, text in head_rows(result))


class Heating:
    """Beside a run: a junction that heats by a degree with each reading."""

    junction = "tj"

    def __init__(self) -> None:
        self.began = time.monotonic_ns()
        hot = Channel(name="tj", kind="temperature", unit="mC", samples=1, first=1, last=1, min=1, median=1, max=1)
        self.found = Telemetry(
            source="test",
            interval_ns=1,
            longest_gap_ns=1,
            channels=(hot,),
            throttled=None,
            throttled_at_start=None,
            over_current_events=None,
            clocks_changed=None,
            junction="tj",
        )

    def findings(self, measured):
        return (self.found,)

    @property
    def series(self):
        times = self.began + np.arange(10_000, dtype=np.int64) * 10 * MS
        return (Series("tj", "temperature", "mC", times, np.arange(len(times)) * 1000),)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(("margin", "reached"), [(1e12, True), (1e-9, False)])
def test_a_soak_ends_when_it_is_steady_or_at_its_cap(tmp_path, margin, reached):
    """Windows of 50 ms: slopes per ten minutes are then of any size, so the margin alone decides."""
    rule = SteadyRule(window_ns=50 * MS, windows=5, latency_margin=margin)
    plan = Plan(
        parse_load("rate:200"), duration_ns=700 * MS, warmup_ns=0, window_ns=rule.window_ns, until=until_steady(rule)
    )
    measured = measure_runner(scripted_runner([MS, MS // 2]), FEEDS, plan, tmp_path / "s.npy")
    assert (len(measured.samples) < 140) is reached
    assert len(measured.samples) >= 50


def test_a_junction_that_still_heats_keeps_a_soak_going(tmp_path):
    rule = SteadyRule(window_ns=50 * MS, windows=5, latency_margin=1e12, temperature_margin_mc=1)
    beside = Heating()
    found = []
    steady = until_steady(rule, [beside])

    def until(file, first, end):
        found.append(steady(file, first, end))
        return found[-1]

    plan = Plan(parse_load("rate:200"), duration_ns=500 * MS, warmup_ns=0, window_ns=rule.window_ns, until=until)
    measure_runner(scripted_runner([MS]), FEEDS, plan, tmp_path / "s.npy", [beside])
    assert len(found) >= 5
    assert not any(found)


def test_findings_beside_the_run_stand_in_the_record(tmp_path):
    made = lambda: measurement(tmp_path / "s.npy", steady_stream(20))  # noqa: E731
    done = profile(made, About("m", MARK, ("script", 1)), beside=[Heating()], output=tmp_path)
    assert done.result.telemetry[0].junction == "tj"
    assert not any("temperature" in text for text in done.result.not_measured)
    assert (tmp_path / RESULT).is_file()


def test_nothing_is_written_when_nothing_could_be_measured(tmp_path):
    def fail():
        raise InputError("no")

    with pytest.raises(InputError):
        profile(fail, About("m", MARK, ("script", 1)), output=tmp_path)
    assert list(tmp_path.iterdir()) == []
