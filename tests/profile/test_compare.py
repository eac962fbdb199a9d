"""Comparisons: known changes are found, equal ones are not, few runs decide nothing, other devices are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgemed.base.errors import InputError, UsageError
from edgemed.base.runner import RunnerInfo
from edgemed.profile.compare import compare, interval, judge_change, load_runs, parse_margin
from edgemed.profile.interleave import order
from edgemed.profile.load import parse_load
from edgemed.profile.session import About, fingerprint_of, profile
from tests.profile.scripted import measurement, one_server

MARK = fingerprint_of(RunnerInfo("null", "int8", "none"), None)


def runs(folder, latencies_ms, *, mark=MARK, load="rate:10"):
    """One run for each latency: 200 frames that take so long."""
    found = []
    for index, ms in enumerate(latencies_ms):
        output = folder / f"{index:03d}"
        output.mkdir(parents=True)
        rows = one_server([i * 10**8 for i in range(200)], [round(ms * 1e6)] * 200)
        made = lambda rows=rows, output=output: measurement(output / "s.npy", rows, parse_load(load))  # noqa: E731
        found.append(profile(made, About("m", mark, ("script", 1)), output=output).result)
    return found


BASE = [10.0, 10.1, 9.9, 10.05, 9.95]


@pytest.mark.parametrize(
    ("factor", "outcome", "code"),
    [(1.2, "regression", 1), (1.0, "equal", 0), (0.8, "improvement", 0), (1.05, "inconclusive", 3)],
)
def test_changes_are_judged_by_the_margin(tmp_path, factor, outcome, code):
    a, b = runs(tmp_path / "a", BASE), runs(tmp_path / "b", [factor * each for each in reversed(BASE)])
    found = compare(a, b, [parse_margin("p99=5%")])
    (change,) = [change for change in found.changes if change.margin]
    assert (found.outcome, found.exit_code, change.metric) == (outcome, code, "p99")
    assert change.change == pytest.approx(factor - 1, abs=1e-6)
    assert change.low <= change.change <= change.high


def test_one_regression_outweighs_everything_else(tmp_path):
    a, b = runs(tmp_path / "a", BASE), runs(tmp_path / "b", [1.2 * each for each in BASE])
    margins = [parse_margin("p50=50%"), parse_margin("p99.9=5%"), parse_margin("p99=5%")]
    found = compare(a, b, margins)
    outcomes = {change.metric: change.outcome for change in found.changes if change.margin}
    assert outcomes == {"p50": "equal", "p99": "regression", "p99.9": "inconclusive"}  # 200 frames have no p99.9
    assert found.outcome == "regression"


def test_without_a_margin_nothing_is_judged(tmp_path):
    found = compare(runs(tmp_path / "a", BASE), runs(tmp_path / "b", BASE), [])
    assert (found.outcome, found.exit_code) == ("unjudged", 0)
    assert {change.outcome for change in found.changes} == {"unjudged"}


@pytest.mark.parametrize("n", [1, 4])
def test_few_runs_decide_nothing_and_say_how_many_are_missing(tmp_path, n):
    found = compare(runs(tmp_path / "a", BASE), runs(tmp_path / "b", [30.0] * n), [parse_margin("p99=5%")])
    (change,) = [change for change in found.changes if change.margin]
    assert found.outcome == "inconclusive"
    assert f"needs {5 - n} more runs" in change.why


def test_other_devices_are_refused_unless_told(tmp_path):
    other = MARK.model_copy(update={"precision": "fp16", "bundle_digest": "0" * 64})
    a, b = runs(tmp_path / "a", BASE), runs(tmp_path / "b", BASE, mark=other)
    with pytest.raises(UsageError, match="not measured alike: precision"):
        compare(a, b, [])
    for allow in (["precision"], ["all"]):
        assert set(compare(a, b, [], allow=allow).differing) == {"precision", "bundle_digest"}


def test_what_was_built_may_differ(tmp_path):
    other = MARK.model_copy(update={"engine_sha256": "1" * 64, "bundle_digest": "0" * 64})
    found = compare(runs(tmp_path / "a", BASE), runs(tmp_path / "b", BASE, mark=other), [])
    assert set(found.differing) == {"engine_sha256", "bundle_digest"}


def test_other_loads_are_refused(tmp_path):
    a, b = runs(tmp_path / "a", BASE), runs(tmp_path / "b", BASE, load="rate:20")
    with pytest.raises(UsageError, match=r"load\.text"):
        compare(a, b, [])


def test_runs_are_found_in_folders_and_alone(tmp_path):
    made = runs(tmp_path / "a", BASE)
    assert load_runs(tmp_path / "a") == made
    assert load_runs(tmp_path / "a" / "003") == load_runs(tmp_path / "a" / "003" / "result.json") == [made[3]]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no results"):
        load_runs(tmp_path / "none")


@pytest.mark.parametrize("text", ["", "p99", "p99=", "p99=0", "p99=100%", "p99=nan", "p98=5%", "p99=-1%"])
def test_margins_without_meaning_are_refused(text):
    with pytest.raises(UsageError):
        parse_margin(text)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.051, 0.2, "regression"), (0.05, 0.2, "inconclusive"), (-0.0476, 0.05, "equal"), (-0.2, -0.05, "improvement"),
     (-0.2, 0.0, "inconclusive"), (-0.5, 0.5, "inconclusive")],
)  # fmt: skip
def test_a_margin_is_a_factor_up_and_down(low, high, outcome):
    assert judge_change(low, high, 0.05, missing=0)[0] == outcome


@pytest.mark.parametrize("n", [5, 10])
def test_the_interval_covers_at_its_rate_with_few_runs(n):
    """Normal runs with a known difference; 4 sigma of the simulation, and Hesterberg's own remainder of a percent."""
    random, trials, truth = np.random.default_rng(n), 600, 0.1
    covered = 0
    for _ in range(trials):
        low, high = interval(random.normal(0, 0.05, n), random.normal(truth, 0.05, n))
        covered += low <= truth <= high
    assert covered / trials >= 0.95 - 0.01 - 4 * math.sqrt(0.95 * 0.05 / trials)


def test_sides_take_turns():
    assert "".join(order(4)) == "abbaabba"
    assert "".join(order(3)) == "abbaab"
