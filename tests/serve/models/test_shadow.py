"""INT8 beside float on real traffic: agreement is counted, disagreement alarmed, chance is not, and nobody waits."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from edgemed.base.errors import IntegrityError
from edgemed.base.runner import RunnerInfo
from edgemed.runtime.contained.requests import Reply
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.serve.config import load_config
from edgemed.serve.config.models import Shadow
from edgemed.serve.models.agreement import Comparer, tail, too_many, upper_bound
from edgemed.serve.models.host import ModelHost
from edgemed.serve.models.mirror import Mirror
from edgemed.serve.models.shadow import FALSE_ALARM, Window
from tests.serve import kit
from tests.serve.models.kit import WAIT_S, frame, hosting
from tests.waiting import wait_for


@pytest.mark.parametrize(("n", "p"), [(10, 0.05), (200, 0.05), (1000, 0.01), (50, 0.5)])
def test_the_binomials_are_those_of_scipy(n: int, p: float) -> None:
    for count in (0, 1, n // 4, n):
        assert tail(count, n, p) == pytest.approx(stats.binom.sf(count - 1, n, p), rel=1e-9, abs=1e-300)
    limit = too_many(n, p, FALSE_ALARM)
    assert stats.binom.sf(limit - 1, n, p) <= FALSE_ALARM < stats.binom.sf(limit - 2, n, p)
    assert upper_bound(n // 4, n) == pytest.approx(stats.beta.ppf(0.95, n // 4 + 1, n - n // 4), rel=1e-6)


def test_the_false_alarm_rate_is_what_is_said() -> None:
    """4,000 windows at the very share that is put up with: no more alarms than chance gives to a rate of 1/1000."""
    rules = Shadow(window=100, disagree=0.1)
    window, rng = Window(rules), np.random.default_rng(1)
    alarms = sum(window.add(bool(agrees)) is True for agrees in rng.random(400_000) >= 0.1)
    assert alarms <= stats.binom.isf(1e-6, 4000, FALSE_ALARM)
    worse = Window(rules)
    raised = sum(worse.add(bool(agrees)) is True for agrees in rng.random(10_000) >= 0.3)
    assert raised >= 95  # three times as many as are put up with: nearly every window says so


def test_an_alarm_comes_before_the_windows_end_and_goes_with_a_whole_good_one() -> None:
    window = Window(Shadow(window=20, disagree=0.05))
    verdicts = [window.add(False) for _ in range(window.limit)]
    assert verdicts == [None] * (window.limit - 1) + [True]
    assert [window.add(True) for _ in range(20)] == [None] * 19 + [False]


def shadowed(tmp_path: Path, int8: float, **others: object) -> kit.Config:
    shadow = {"share": 1.0, "window": 10, "tolerance": 0.5, **others}
    bundle = kit.write_classifier(tmp_path / "chest.edgemed", int8=int8)
    return kit.bedside(
        tmp_path, models=[{"name": "chest", "bundle": bundle, "runner": "onnxruntime", "shadow": shadow}]
    )


def ask_until(host: ModelHost, done: Callable[[], bool]) -> None:
    def ask() -> bool:
        host.get("chest").submit({"image": np.full((1, 4, 4, 1), 0.4, np.float32)}).result(WAIT_S)
        return done()

    wait_for(ask)


@pytest.mark.parametrize("int8", [0.5, 0.3])
def test_answers_that_agree_are_counted_and_those_that_do_not_alarmed(tmp_path: Path, int8: float) -> None:
    """The float graph puts images of 0.4 below its boundary of 0.5, INT8 above one of 0.3."""
    with hosting(shadowed(tmp_path, int8)) as daemon:
        host = daemon.services.models
        assert isinstance(host, ModelHost)
        wait_for(lambda: daemon.services.readiness.ready)
        figures = lambda: host.describe("chest")["shadow"]  # noqa: E731
        outcome = "agree" if int8 == 0.5 else "disagree"
        ask_until(host, lambda: figures()[outcome] >= 12)
        raised = {alarm.code for alarm in daemon.services.alarms.standing}
        assert raised == (set() if int8 == 0.5 else {"shadow-disagrees"})
        assert (figures()["disagree"] == 0) == (int8 == 0.5)
        counted = daemon.services.metrics.registry.get_sample_value(
            "edgemed_shadow_comparisons_total", {"model": "chest", "outcome": outcome}
        )
        assert counted is not None
        assert counted >= 12
        assert host.get("chest").submit(frame(1)).result(WAIT_S).info.precision == "int8"


def test_golden_vectors_that_cannot_be_read_leave_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[ContainedRunner] = []
    begin = ContainedRunner.begin
    damaged = IntegrityError("The golden vectors are damaged.", "Build the bundle anew.")

    def unreadable(_: object) -> Comparer:
        raise damaged

    def noted(runner: ContainedRunner) -> None:
        begin(runner)
        begun.append(runner)

    monkeypatch.setattr("edgemed.serve.models.shadow.Comparer", unreadable)
    monkeypatch.setattr("edgemed.serve.models.shadow.ContainedRunner.begin", noted)
    with hosting(shadowed(tmp_path, 0.5)) as daemon:
        host = daemon.services.models
        assert isinstance(host, ModelHost)
        wait_for(lambda: host.describe("chest")["shadow"]["reason"] == damaged.what)
        wait_for(lambda: daemon.services.readiness.ready)
        assert [runner.info.precision for runner in begun] == ["int8"]  # of the model itself


def test_a_second_worker_that_is_busy_is_never_waited_for() -> None:
    held, dropped, judged = threading.Event(), [], []

    def slow(feeds: object) -> Future[Reply]:
        held.wait(WAIT_S)
        return done()

    mirror = Mirror("m", slow, lambda ours, theirs: judged.append(ours), dropped=lambda: dropped.append(1))
    for _ in range(50):
        copied = mirror.copy({"x": np.zeros(4)})
        if copied is not None:
            mirror.answered(copied, done())
    assert len(dropped) == 48  # two find room
    held.set()
    wait_for(lambda: len(judged) == 2)
    assert mirror.copy({"x": np.zeros(4)}) is not None  # there is room again
    mirror.close()


def done() -> Future[Reply]:
    future: Future[Reply] = Future()
    future.set_result(Reply({}, RunnerInfo("a", "fp32", "b"), (), 1, 1))
    return future


def test_feeds_that_find_no_memory_cost_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[int] = []
    mirror = Mirror("m", lambda _: Future(), lambda *_: None, dropped=lambda: dropped.append(1))

    def full(_: object) -> None:
        raise MemoryError

    feeds = frame(1)
    with monkeypatch.context() as patch:
        patch.setattr(np, "array", full)
        assert [mirror.copy(feeds) for _ in range(5)] == [None] * 5
    assert mirror.copy(feeds) is not None
    assert len(dropped) == 5
    mirror.close()


def test_only_a_share_is_mirrored_and_feeds_are_copies() -> None:
    mirror = Mirror("m", lambda _: done(), lambda *_: None, share=0.2)
    feeds = {"x": np.zeros(4)}
    copied = 0
    for _ in range(2000):
        copy = mirror.copy(feeds)
        if copy is not None:
            copied += 1
            assert copy["x"] is not feeds["x"]
            failed: Future[Reply] = Future()
            failed.set_exception(ValueError())
            mirror.answered(copy, failed)  # nothing to compare with
    assert 250 < copied < 550  # 400 expected; eight standard deviations either way
    mirror.close()


def test_what_is_compared(tmp_path: Path) -> None:
    from edgemed.bundle.read import open_bundle

    comparer = Comparer(open_bundle(kit.write_classifier(tmp_path / "c.edgemed")))

    def score(value: float) -> dict[str, NDArray[np.float32]]:
        return {"score": np.array([[value]], np.float32)}

    assert comparer.compare(score(0.6), score(0.9)).decision
    assert not comparer.compare(score(0.49), score(0.51)).decision
    assert comparer.compare(score(0.49), score(0.51)).error < 0.03
    assert not comparer.compare(score(0.6), score(float("nan"))).decision
    masks = Comparer(open_bundle(kit.write_segmenter(tmp_path / "m.edgemed", shape=(1, 10, 10, 1))))
    name = next(iter(masks._ranges))
    one = np.zeros((1, 10, 10, 1), np.float32)
    other = one.copy()
    other[0, 0, 0, 0] = 1.0
    assert masks.compare({name: one}, {name: other}).decision  # one pixel in a hundred
    other[0, 0, 1, 0] = 1.0
    assert not masks.compare({name: one}, {name: other}).decision


def test_the_page_shows_what_a_configuration_takes_and_the_figure_that_holds(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/serve-models.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "shown.toml").write_text(f'[daemon]\nstate = "state"\n{shown}', encoding="utf-8")
    config = load_config(tmp_path / "shown.toml")
    assert config.models[0].shadow == Shadow(share=0.05, window=200, disagree=0.05)
    words = " ".join(page.split())
    assert f"that takes {Window(Shadow()).limit} of 200" in words
