"""Every way to fail, in a real process: the request goes on to the next worker or fails with the reason, never else."""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from edgemed.base.errors import ChildError, EdgemedError, GpuError, GpuMemoryError, InputError, ResourceError
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.runtime.contained.states import State
from tests.runtime.contained.faulty import Control
from tests.runtime.contained.kit import QUICK, WAIT_S, frame, right, worker

# what happens -> what is said of it
LOSSES = {
    "sticky": (GpuError, "illegal memory access"),
    "hang": (ChildError, "hung: it made no step"),
    "hang_holding_gil": (ChildError, "hung: it made no step"),
    "stop": (ChildError, "hung: it made no step"),
    "kill": (ChildError, r"killed \(signal 9\), probably because memory ran out"),
    "segv": (ChildError, "SIGSEGV"),
    "abort": (ChildError, "SIGABRT"),
    "poison": (ChildError, "SIGBUS"),
    "exit": (ChildError, "ended with status 0"),
    "system_exit": (ChildError, "SystemExit"),
    "rubbish": (ChildError, "broke the protocol"),
    "empty": (ChildError, "broke the protocol"),
    "stale": (ChildError, "broke the protocol: it sent a message of generation"),
    "wrong_slot": (ChildError, "slot 9999, which was not asked"),
    "twice": (ChildError, "which was not asked"),
    "unasked_kind": (ChildError, "at the wrong time"),
    "shapes": (ChildError, "broke the protocol"),
    "stages": (ChildError, "broke the protocol"),
    "close": (ChildError, "closed its end of the socket"),
    "silence": (ChildError, "worker"),
}
FAILURES = {
    "exception": (ChildError, "ValueError: a bug of the Runner"),
    "memory": (GpuMemoryError, "no memory left"),
    "python_memory": (ResourceError, "ran out of memory"),
    "missing_output": (ChildError, "KeyError"),
    "misshapen": (ChildError, r"gave y as float32 \(1, 15\)"),
}


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults") / "control"


@pytest.fixture(scope="module")
def one_runner(control: Path) -> Iterator[ContainedRunner]:
    with ContainedRunner(worker(control), limits=QUICK) as entered:
        yield entered


@pytest.fixture
def runner(one_runner: ContainedRunner) -> ContainedRunner:
    """The module's runner, whatever the test before did to it."""
    one_runner.model.settle()
    return one_runner


@pytest.mark.parametrize("fault", LOSSES)
def test_a_lost_worker_is_rebuilt_and_the_request_is_answered_by_the_next_one(
    runner: ContainedRunner, control: Path, fault: str
) -> None:
    _, words = LOSSES[fault]
    generation = runner.status.model.generation
    Control(control).tell(fault)
    feeds = frame(1)
    reply = runner.submit(feeds).result(WAIT_S)
    assert right(feeds, reply.outputs)
    assert (reply.tries, reply.generation) == (2, generation + 1)
    assert re.search(words, runner.status.model.reason)


@pytest.mark.parametrize("fault", LOSSES)
def test_without_a_retry_the_request_fails_with_the_reason(runner: ContainedRunner, control: Path, fault: str) -> None:
    kind, words = LOSSES[fault]
    Control(control).tell(fault)
    with pytest.raises(kind, match=words):
        runner.submit(frame(2), retries=0).result(WAIT_S)
    feeds = frame(3)
    assert right(feeds, runner.infer(feeds))


@pytest.mark.parametrize("fault", FAILURES)
def test_a_worker_under_suspicion_is_checked_and_goes_on(runner: ContainedRunner, control: Path, fault: str) -> None:
    kind, words = FAILURES[fault]
    before = runner.status.model
    Control(control).tell(fault)
    with pytest.raises(kind, match=words):
        runner.submit(frame(4), retries=0).result(WAIT_S)
    feeds = frame(5)
    assert right(feeds, runner.infer(feeds))
    after = runner.status.model
    assert after.generation == before.generation
    assert after.golden_ns is not None
    assert before.golden_ns is not None
    assert after.golden_ns > before.golden_ns
    assert re.search(words, after.reason)


@pytest.mark.parametrize("fault", FAILURES)
def test_a_request_that_failed_in_a_sound_worker_is_asked_again(
    runner: ContainedRunner, control: Path, fault: str
) -> None:
    Control(control).tell(fault)
    feeds = frame(6)
    reply = runner.submit(feeds).result(WAIT_S)
    assert right(feeds, reply.outputs)
    assert reply.tries == 2


def test_a_bad_frame_is_its_senders_fault_alone(runner: ContainedRunner, control: Path) -> None:
    before = runner.status.model
    Control(control).tell("input")
    with pytest.raises(InputError, match="This frame is no frame"):
        runner.infer(frame(7))
    assert runner.status.model == before


def test_what_a_worker_prints_is_read_and_its_end_is_kept(runner: ContainedRunner, control: Path) -> None:
    Control(control).tell("loud")  # more than a pipe holds: unread, it would hang
    feeds = frame(8)
    assert right(feeds, runner.infer(feeds))
    Control(control).tell("kill")
    with pytest.raises(ChildError) as raised:
        runner.submit(frame(9), retries=0).result(WAIT_S)
    printed = str(raised.value.__cause__)
    assert len(printed) < 10_000
    *_, before, last = printed.splitlines()
    assert before.endswith("xxxx")
    assert last.startswith(r"\x1b[2J\x9b31m ")  # a library's letters are shown, and steer no terminal
    assert last.endswith(r" last\u202e words")


def test_a_worker_that_answers_wrongly_after_its_rebuild_answers_nobody(runner: ContainedRunner, control: Path) -> None:
    generation = runner.status.model.generation
    Control(control).tell("wrong")
    Control(control).tell("kill")
    feeds = frame(10)
    reply = runner.submit(feeds).result(WAIT_S)
    assert right(feeds, reply.outputs)
    assert (reply.generation, reply.tries) == (generation + 2, 2)
    assert "golden vectors were answered wrongly: y differs by 1" in runner.status.model.reason


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("gpu_load", "cuInit failed"),
        ("die_loading", "while it loaded the model"),
        ("gpu_golden", "No memory for the golden vectors"),
        ("wrong_once", "differs by 1"),
    ],
)
def test_a_load_that_fails_is_tried_again(runner: ContainedRunner, control: Path, fault: str, words: str) -> None:
    generation = runner.status.model.generation
    Control(control).tell(fault)
    Control(control).tell("exit")
    feeds = frame(11)
    reply = runner.submit(feeds).result(WAIT_S)
    assert right(feeds, reply.outputs)
    assert reply.generation == generation + 2
    assert re.search(words, runner.status.model.reason)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("refused", "no model"), ("lie", "another model"), ("too_large", "another model")],
)
def test_what_no_rebuild_mends_is_refused_until_somebody_asks(tmp_path: Path, fault: str, words: str) -> None:
    control = tmp_path / "control"
    with ContainedRunner(worker(control), limits=QUICK) as runner:
        Control(control).tell(fault)
        Control(control).tell("exit")
        with pytest.raises(EdgemedError, match=words):
            runner.infer(frame(12))
        assert runner.status.state == State.REFUSED.value
        assert runner.status.model.rebuilds == 1
        with pytest.raises(EdgemedError, match=words):
            runner.infer(frame(12))
        with pytest.raises(ChildError, match="no worker to check"):
            runner.check().result(WAIT_S)
        runner.restart()
        feeds = frame(13)
        while runner.status.state == State.REFUSED.value:
            time.sleep(0.01)
        assert right(feeds, runner.infer(feeds))


@pytest.mark.parametrize(("fault", "golden"), [("refused", True), ("too_large", False)])
def test_a_first_worker_that_cannot_load_ends_the_block_before_it_began(
    tmp_path: Path, fault: str, golden: bool
) -> None:
    spec = worker(tmp_path / "control", golden=golden)
    Control(tmp_path / "control").tell(fault)
    with pytest.raises(InputError), ContainedRunner(spec, limits=QUICK):
        pytest.fail("it was entered")


def test_a_load_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with ContainedRunner(worker(control), limits=replace(QUICK, load_ns=3_000_000_000)) as runner:
        Control(control).tell("slow")
        Control(control).tell("exit")
        feeds = frame(14)
        assert right(feeds, runner.infer(feeds))
        assert "not ready 3 s after its start" in runner.status.model.reason


def test_the_budget_of_rebuilds_ends_them(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with ContainedRunner(worker(control), limits=replace(QUICK, rebuilds=2)) as runner:
        for _ in range(2):
            Control(control).tell("kill")
            assert right(frame(15), runner.infer(frame(15)))
        Control(control).tell("kill")
        with pytest.raises(ChildError, match=r"Given up after 2 rebuilds in 10 minutes.*killed"):
            runner.infer(frame(15))
        assert runner.status.state == "refused"


def test_a_golden_check_can_be_asked_for_and_a_wrong_one_costs_the_worker(runner: ContainedRunner) -> None:
    result = runner.check().result(WAIT_S)
    assert result.passed
    assert result.samples == 8
    assert runner.status.model.golden == result


def test_the_timer_finds_a_worker_that_has_begun_to_answer_wrongly(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with ContainedRunner(worker(control), limits=replace(QUICK, check_every_ns=50_000_000)) as runner:
        Control(control).tell("drift")
        generation = runner.status.model.generation
        while runner.status.model.generation == generation or not runner.status.answers:
            time.sleep(0.01)
        assert "differs by 1" in runner.status.model.reason
        feeds = frame(16)
        assert right(feeds, runner.infer(feeds))


def test_a_worker_is_replaced_where_descriptors_have_large_numbers(tmp_path: Path) -> None:
    """As in a daemon with a thousand connections: `select` refuses numbers from 1024 on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (-1, resource.RLIM_INFINITY) and hard < 2048:
        pytest.skip("no more than 2047 files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    with open(os.devnull) as null, ExitStack() as stack:  # noqa: PTH123
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        while (number := os.dup(null.fileno())) < 1024:
            stack.callback(os.close, number)
        stack.callback(os.close, number)
        control = tmp_path / "control"
        with ContainedRunner(worker(control), limits=QUICK) as runner:
            for fault in ("kill", "exit"):
                Control(control).tell(fault)
                assert right(frame(1), runner.infer(frame(1)))
            assert runner.status.model.generation == 3
