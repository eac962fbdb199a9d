"""Two workers for one model: who answers while the first one is lost, and that every answer says so."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from edgemed.base.errors import ChildError, EdgemedError, InputError
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.runtime.contained.states import State
from tests.runtime.contained.faulty import Control
from tests.runtime.contained.kit import QUICK, WAIT_S, frame, right, worker


def both(
    folder: Path, standby: Literal["warm", "lazy"] = "warm", limits=QUICK, work_us: int = 0
) -> tuple[ContainedRunner, Control, Control]:
    """A runner with a fallback, and what tells each of the two to fail."""
    first, second = folder / "first", folder / "second"
    runner = ContainedRunner(
        worker(first, backend="first", work_us=work_us),
        fallback=worker(second, backend="second"),
        standby=standby,
        limits=limits,
    )
    return runner, Control(first), Control(second)


@pytest.mark.parametrize("standby", ["warm", "lazy"])
def test_the_fallback_answers_while_the_first_is_lost_and_says_so(
    tmp_path: Path, standby: Literal["warm", "lazy"]
) -> None:
    runner, first, _ = both(tmp_path, standby, replace(QUICK, rebuilds=0))
    with runner:
        reply = runner.submit(frame(1)).result(WAIT_S)
        assert (reply.info.backend, runner.info.backend) == ("first", "first")
        assert runner.fallback is not None
        if standby == "warm":
            runner.fallback.settle()
        assert runner.status.fallback is not None
        assert (runner.status.fallback.state is State.NEW) == (standby == "lazy")
        first.tell("kill")
        reply = runner.submit(frame(2)).result(WAIT_S)
        assert right(frame(2), reply.outputs)
        assert (reply.info.backend, reply.tries) == ("second", 2)
        assert (runner.status.state, runner.status.answers) == ("fallback", True)
        assert runner.info.backend == "second"
        assert runner.status.model.state is State.REFUSED
        runner.restart()
        while runner.status.state != "ready":
            time.sleep(0.005)
        assert runner.submit(frame(3)).result(WAIT_S).info.backend == "first"


def test_without_a_fallback_requests_wait_for_the_rebuild_and_are_refused_after_it_failed(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with ContainedRunner(worker(control), limits=replace(QUICK, rebuilds=0)) as runner:
        Control(control).tell("kill")
        with pytest.raises(ChildError, match="Given up after 0 rebuilds"):
            runner.infer(frame(1))
        assert not runner.status.answers


def test_a_model_that_cannot_load_is_answered_by_the_fallback_from_the_beginning(tmp_path: Path) -> None:
    runner, first, _ = both(tmp_path, "lazy")
    first.tell("refused")
    with runner:
        assert runner.status.state == "fallback"
        assert "no model" in runner.status.model.reason
        assert runner.submit(frame(1)).result(WAIT_S).info.backend == "second"


def test_when_both_cannot_load_the_models_own_reason_is_given(tmp_path: Path) -> None:
    runner, first, second = both(tmp_path)
    first.tell("refused")
    second.tell("refused")
    with pytest.raises(InputError, match="no model"), runner:
        pytest.fail("it was entered")


def test_a_lost_fallback_is_rebuilt_like_any_other(tmp_path: Path) -> None:
    runner, first, second = both(tmp_path, limits=replace(QUICK, rebuilds=1, window_ns=1))
    with runner:
        assert runner.fallback is not None
        runner.fallback.settle()
        second.tell("wrong")
        assert runner.fallback.check().result(WAIT_S).passed  # the fault is for its next load
        first.tell("refused")
        first.tell("kill")
        assert right(frame(1), runner.infer(frame(1)))
        while runner.status.model.state is not State.REFUSED:
            time.sleep(0.005)
        second.tell("segv")
        reply = runner.submit(frame(2)).result(WAIT_S)
        assert right(frame(2), reply.outputs)
        assert reply.info.backend == "second"
        assert runner.status.fallback is not None
        assert runner.status.fallback.rebuilds == 2


def test_under_load_all_requests_end_and_none_is_wrong_while_both_are_lost_in_turn(tmp_path: Path) -> None:
    runner, first, second = both(tmp_path, work_us=200)
    with runner:
        stop, wrong, failed = threading.Event(), [], []

        def ask(thread: int) -> None:
            seed = thread * 1_000_000
            while not stop.is_set():
                seed += 1
                feeds = frame(seed)
                try:
                    reply = runner.submit(feeds).result(WAIT_S)
                except EdgemedError as error:
                    failed.append(error)
                    continue
                if not right(feeds, reply.outputs):
                    wrong.append(seed)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for turn in range(6):
            control, supervisor = (first, runner.model) if turn % 2 == 0 else (second, runner.fallback)
            assert supervisor is not None
            generation = supervisor.health.generation
            control.tell(("kill", "sticky", "abort")[turn // 2])
            if turn % 2:
                supervisor.check()  # it is asked for nothing else while the first one answers
            while supervisor.health.generation == generation or supervisor.health.state is not State.READY:
                time.sleep(0.002)
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        assert not wrong
        assert not failed
