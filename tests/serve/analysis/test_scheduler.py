"""Requests in front of a worker: who goes first, batches split back exactly, and every end by its reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from edgemed.base.errors import ChildError, InputError, ResourceError
from edgemed.base.runner import RunnerInfo, RunnerSpecs, TensorSpec
from edgemed.runtime.contained.requests import Reply
from edgemed.serve.analysis.edf import Rules
from edgemed.serve.analysis.scheduler import Scheduler

VARYING = RunnerSpecs((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 1)),))
FIXED = RunnerSpecs((TensorSpec("x", "float32", (1, 2)),), (TensorSpec("y", "float32", (1, 1)),))
INFO = RunnerInfo("onnxruntime", "fp32", "cpu")
PATIENCE_S = 30.0


class Device:
    """Answers with the sums of the rows, when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[np.ndarray, Future[Reply]]] = []
        self.deadlines: list[int | None] = []

    def __call__(self, feeds: Any, *, frame: int | None = None, deadline_ns: int | None = None) -> Future[Reply]:
        del frame
        future: Future[Reply] = Future()
        self.asked.append((feeds["x"], future))
        self.deadlines.append(deadline_ns)
        return future

    def answer(self) -> np.ndarray:
        rows, future = self.asked.pop(0)
        future.set_result(Reply({"y": rows.sum(axis=1, keepdims=True)}, INFO, (), 1, 1))
        return rows

    def fail(self) -> None:
        self.asked.pop(0)[1].set_exception(ChildError("The worker was killed.", ""))


def x(*rows: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[row, 1] for row in rows], np.float32)}


@pytest.fixture
def device() -> Device:
    return Device()


Begin = Callable[..., Scheduler]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Makes schedulers that end with the test."""
    with ExitStack() as stack:

        def begun(*values: Any, **others: Any) -> Scheduler:
            scheduler = Scheduler(*values, **others)
            stack.callback(scheduler.close)
            return scheduler

        yield begun


def test_one_is_asked_for_at_a_time_in_the_order_of_their_dues(device: Device, begin: Begin) -> None:
    scheduler = begin(device, FIXED)
    first = scheduler.submit(x(0))
    later = scheduler.submit(x(2), due_ns=20)
    soon = scheduler.submit(x(1), due_ns=10)
    live = scheduler.submit(x(3), live=True)
    assert len(device.asked) == 1
    assert [device.answer()[0, 0] for _ in range(4)] == [0, 3, 1, 2]
    assert [future.result(0).outputs["y"][0, 0] for future in (first, soon, later, live)] == [1, 2, 3, 4]
    assert soon.result().spans[0].name == "queue"


def test_a_batch_is_split_back_exactly(device: Device, begin: Begin) -> None:
    scheduler = begin(device, VARYING, Rules(most=8))
    blocking = scheduler.submit(x(0))
    sizes = [1, 3, 2, 1, 4]
    futures = [scheduler.submit(x(*(10 * i + k for k in range(size)))) for i, size in enumerate(sizes)]
    device.answer()
    assert blocking.done()
    assert len(device.answer()) == 7  # the last would make 11
    device.answer()
    for i, (size, future) in enumerate(zip(sizes, futures, strict=True)):
        assert future.result(0).outputs["y"].tolist() == [[10 * i + k + 1] for k in range(size)]


def test_too_few_are_filled_up_and_cut_off_again(device: Device, begin: Begin) -> None:
    scheduler = begin(device, VARYING, Rules(most=8), least=4)
    future = scheduler.submit(x(1, 2))
    assert device.answer()[:, 0].tolist() == [1, 2, 2, 2]
    assert future.result(0).outputs["y"].tolist() == [[2], [3]]


def test_one_that_breaks_the_worker_does_not_take_others_with_it(device: Device, begin: Begin) -> None:
    scheduler = begin(device, VARYING, Rules(most=8))
    scheduler.submit(x(0))
    bad, good = scheduler.submit(x(1)), scheduler.submit(x(2))
    device.answer()
    device.fail()
    device.fail()  # alone
    with pytest.raises(ChildError):
        bad.result(0)
    device.answer()
    assert good.result(0).outputs["y"][0, 0] == 3


def test_every_drop_has_its_reason(device: Device) -> None:
    scheduler = Scheduler(device, FIXED, Rules(bound=2))
    scheduler.submit(x(0))
    expiring = scheduler.submit(x(1), deadline_ns=time.monotonic_ns() + 1_000_000_000)
    waiting = scheduler.submit(x(2))
    full = scheduler.submit(x(3))
    with pytest.raises(ResourceError, match="wait already"):
        full.result(0)
    with pytest.raises(ResourceError, match="deadline passed"):
        expiring.result(PATIENCE_S)  # nothing else happens: the scheduler looks by itself
    scheduler.close()
    with pytest.raises(ResourceError, match="closed"):
        waiting.result(0)
    with pytest.raises(ResourceError, match="closed"):
        scheduler.submit(x(4)).result(0)
    assert scheduler.dropped == {"full": 1, "expired": 1, "closed": 2}


def test_a_cancelled_request_is_not_computed(device: Device, begin: Begin) -> None:
    scheduler = begin(device, FIXED)
    scheduler.submit(x(0))
    unwanted, wanted = scheduler.submit(x(1)), scheduler.submit(x(2))
    assert unwanted.cancel()
    device.answer()
    assert device.answer()[0, 0] == 2
    assert wanted.done()


def test_the_worker_is_told_when_nobody_wants_the_answer(device: Device, begin: Begin) -> None:
    scheduler = begin(device, VARYING, Rules(most=8))
    far_ns = time.monotonic_ns() + 10**12
    scheduler.submit(x(0), deadline_ns=far_ns)
    scheduler.submit(x(1), deadline_ns=far_ns + 5)
    scheduler.submit(x(2), due_ns=far_ns, deadline_ns=far_ns + 9)
    device.answer()
    device.answer()
    assert device.deadlines == [far_ns, far_ns + 9]


def test_feeds_that_do_not_fit_are_refused_at_once(device: Device, begin: Begin) -> None:
    scheduler = begin(device, FIXED)
    with pytest.raises(InputError, match="takes"):
        scheduler.submit({"x": np.zeros((1, 3), np.float32)})


def test_a_worker_that_refuses_at_once_fails_thousands_without_nesting(begin: Begin) -> None:
    def refuse(feeds: Any, *, frame: int | None = None, deadline_ns: int | None = None) -> Future[Reply]:
        gate.wait(PATIENCE_S)
        raise ChildError("There is no worker.", "")

    gate = threading.Event()
    scheduler = begin(refuse, FIXED, Rules(bound=5000))
    threading.Timer(0.2, gate.set).start()
    with_one = threading.Thread(target=scheduler.submit, args=(x(0),))
    with_one.start()
    futures = [scheduler.submit(x(i)) for i in range(3000)]
    with_one.join()
    assert all(isinstance(future.exception(PATIENCE_S), ChildError) for future in futures)


def test_many_threads_each_get_their_own(begin: Begin) -> None:
    def compute(feeds: Any, *, frame: int | None = None, deadline_ns: int | None = None) -> Future[Reply]:
        future: Future[Reply] = Future()

        def run() -> None:
            future.set_result(Reply({"y": feeds["x"].sum(axis=1, keepdims=True)}, INFO, (), 1, 1))

        threading.Thread(target=run).start()
        return future

    scheduler = begin(compute, VARYING, Rules(most=16), depth=2)
    wrong = []

    def client(number: int) -> None:
        for i in range(50):
            value = number * 1000 + i
            if scheduler.submit(x(value)).result(PATIENCE_S).outputs["y"].tolist() != [[value + 1]]:
                wrong.append(value)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(scheduler) == 0


def test_an_answer_that_cannot_be_handed_on_ends_its_requests_and_frees_the_worker(
    device: Device, begin: Begin
) -> None:
    scheduler = begin(device, VARYING)
    bad, good = scheduler.submit(x(1)), scheduler.submit(x(2))
    device.asked.pop(0)[1].set_result(Reply({"y": None}, INFO, (), 1, 1))  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        bad.result(0)
    device.answer()
    assert good.result(0).outputs["y"][0, 0] == 3


def test_an_error_while_one_is_chosen_is_its_callers_alone(
    device: Device, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = begin(device, FIXED)

    def fail(now_ns: int) -> list[Any]:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(scheduler._queue, "take", fail)
        with pytest.raises(MemoryError):
            scheduler.submit(x(0))
    other = scheduler.submit(x(1))
    device.answer()
    device.answer()
    assert other.result(0).outputs["y"][0, 0] == 2


def test_where_there_can_be_no_more_threads_the_next_request_has_deadlines_watched(
    device: Device, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = begin(device, FIXED)
    scheduler.submit(x(0))
    soon_ns = time.monotonic_ns() + 100_000_000

    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        waits = scheduler.submit(x(1), deadline_ns=soon_ns)
    scheduler.submit(x(2), deadline_ns=soon_ns + 1)
    with pytest.raises(ResourceError, match="deadline passed"):
        waits.result(PATIENCE_S)


def test_who_looks_at_deadlines_outlives_an_error(
    device: Device, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = begin(device, FIXED)
    scheduler.submit(x(0))
    failed = threading.Event()
    pump = scheduler._pump

    def fail() -> None:
        if threading.current_thread().name == "scheduler" and not failed.is_set():
            failed.set()
            raise MemoryError
        pump()

    monkeypatch.setattr(scheduler, "_pump", fail)
    first = scheduler.submit(x(1), deadline_ns=time.monotonic_ns() + 50_000_000)
    assert failed.wait(PATIENCE_S)
    second = scheduler.submit(x(2), deadline_ns=time.monotonic_ns() + 50_000_000)
    for future in (first, second):
        with pytest.raises(ResourceError, match="deadline passed"):
            future.result(PATIENCE_S)
