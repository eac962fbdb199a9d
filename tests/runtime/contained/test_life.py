"""From the first process to the last: loads, closing, deadlines, a dead parent, Ctrl-C; nothing is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Future, wait
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemed.base.errors import ChildError, InputError, ResourceError
from edgemed.base.runner import Runner
from edgemed.base.spans import SpanLog
from edgemed.runtime.contained.runner import ContainedRunner, Status
from edgemed.runtime.contained.spec import FunctionWorker
from tests.runtime.contained.faulty import Control
from tests.runtime.contained.kit import FAULTY, MS, QUICK, WAIT_S, frame, right, worker

SECOND = 1_000_000_000


def test_it_is_a_runner_that_says_who_answers() -> None:
    with ContainedRunner(worker(), limits=QUICK) as runner:
        assert isinstance(runner, Runner)
        assert [str(spec) for spec in runner.specs.inputs] == ["x float32 1×16"]
        assert runner.info.backend == "faulty"
        log, feeds = SpanLog(), frame(0)
        begun_ns = time.monotonic_ns()
        assert right(feeds, runner.infer(feeds, frame=7, spans=log))
        assert [(span.name, span.frame) for span in log.spans] == [("queue", 7), ("compute", 7)]
        for span in log.spans:  # one clock for all processes
            assert begun_ns <= span.start_ns <= span.end_ns <= time.monotonic_ns()
        assert log.spans[0].end_ns <= log.spans[1].start_ns


def test_its_state_is_told_with_each_change(tmp_path: Path) -> None:
    told: list[Status] = []
    control = tmp_path / "control"
    with ContainedRunner(worker(control), limits=QUICK, on_status=told.append) as runner:
        assert runner.status.answers
        assert runner.status.model.golden is not None
        assert runner.status.model.golden.passed
        Control(control).tell("kill")
        runner.infer(frame(1))
        health = runner.status.model
        assert (health.generation, health.rebuilds) == (2, 1)
        assert health.since_ns <= time.monotonic_ns()
    life = ["starting", "checking", "ready"]
    states = [status.state for status in told]
    assert states == [*life, "rebuilding", *life, "closed"]
    assert [status.answers for status in told] == [state == "ready" for state in states]


def test_a_callback_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def raises(_: Status) -> None:
        raise ValueError("the caller's own bug")

    with ContainedRunner(worker(), limits=QUICK, on_status=raises) as runner:
        assert right(frame(2), runner.infer(frame(2)))
    assert "the caller's own bug" in caplog.text


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"x": np.zeros((1, 15), np.float32)},
        {"x": np.zeros((1, 16), np.float64)},
        {"x": np.zeros((1, 16), np.float32), "z": np.zeros(1, np.float32)},
        {"x": np.zeros((1, 16), ">f4")},
    ],
)
def test_feeds_that_do_not_fit_are_refused_before_the_worker_sees_them(feeds: dict[str, np.ndarray]) -> None:
    with ContainedRunner(worker(), limits=QUICK) as runner, pytest.raises(InputError):
        runner.submit(feeds)


def test_shapes_may_vary_up_to_the_greatest() -> None:
    greatest = {"x": (4, 8), "y": (4, 8)}
    spec = FunctionWorker(FAULTY, {"shape": [None, 8]}, greatest)
    with ContainedRunner(spec, limits=QUICK) as runner:
        for batch in (1, 4, 2, 4, 0):
            feeds = frame(batch, (batch, 8))
            assert right(feeds, runner.infer(feeds))
        with pytest.raises(InputError, match="takes"):
            runner.infer(frame(5, (5, 8)))
        strided = {"x": frame(6, (8, 4))["x"].T}
        assert right(strided, runner.infer(strided))


def test_a_shape_that_varies_without_limit_is_refused() -> None:
    runner = ContainedRunner(FunctionWorker(FAULTY, {"shape": [None, 8]}), limits=QUICK)
    with pytest.raises(InputError, match="greatest shape"), runner:
        pytest.fail("it was entered")


def test_many_threads_ask_and_each_gets_its_own_answers() -> None:
    with ContainedRunner(worker(), limits=QUICK, slots=3) as runner:
        wrong: list[int] = []

        def ask(thread: int) -> None:
            for seed in range(thread * 1000, thread * 1000 + 200):
                feeds = frame(seed)
                if not right(feeds, runner.infer(feeds)):
                    wrong.append(seed)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_requests_beyond_the_limit_are_refused_and_the_others_answered() -> None:
    limits = replace(QUICK, waiting=4)
    with ContainedRunner(worker(work_us=20_000), limits=limits, slots=1) as runner:
        asked = [(feeds, runner.submit(feeds)) for feeds in map(frame, range(12))]
        wait([future for _, future in asked], WAIT_S)
        refused = [future for _, future in asked if future.exception() is not None]
        assert 1 <= len(refused) <= 7  # 1 flies and 4 wait; some more if the worker was quick
        for future in refused:
            assert isinstance(future.exception(), ResourceError)
            assert "4 requests wait already" in str(future.exception())
        assert all(right(feeds, f.result().outputs) for feeds, f in asked if f not in refused)


def test_a_deadline_ends_what_waits_and_what_is_under_way() -> None:
    with ContainedRunner(worker(work_us=100_000), limits=QUICK, slots=1) as runner:
        under_way = runner.submit(frame(0), timeout_ns=10 * MS)
        waiting = runner.submit(frame(1), deadline_ns=time.monotonic_ns() + 10 * MS, timeout_ns=SECOND)
        patient = runner.submit(frame(2), timeout_ns=WAIT_S * SECOND)
        for future in (under_way, waiting):
            with pytest.raises(ResourceError, match="deadline passed"):
                future.result(WAIT_S)
        assert right(frame(2), patient.result(WAIT_S).outputs)
        assert runner.status.model.generation == 1  # a deadline is no fault of the worker


def test_a_deadline_passes_during_a_rebuild_too(tmp_path: Path) -> None:
    control = tmp_path / "control"
    limits = replace(QUICK, backoff_ns=WAIT_S * SECOND, backoff_cap_ns=WAIT_S * SECOND)
    with ContainedRunner(worker(control), limits=limits) as runner:
        Control(control).tell("kill")
        assert right(frame(0), runner.infer(frame(0)))  # the first rebuild of a window is at once
        Control(control).tell("kill")
        with pytest.raises(ChildError):
            runner.submit(frame(0), retries=0).result(WAIT_S)
        assert runner.status.state == "rebuilding"
        with pytest.raises(ResourceError, match="deadline passed"):
            runner.submit(frame(0), timeout_ns=20 * MS).result(WAIT_S)


def test_a_request_that_waits_can_be_cancelled() -> None:
    with ContainedRunner(worker(work_us=50_000), limits=QUICK, slots=1) as runner:
        first = runner.submit(frame(0))
        second, third = runner.submit(frame(1)), runner.submit(frame(2))
        assert second.cancel()
        assert second in wait([second], WAIT_S).done
        assert first.cancel() or first.done()  # under way: nobody waits for it any more, and its slot comes back
        assert third in wait([third], WAIT_S).done
        assert first in wait([first], WAIT_S).done
        assert right(frame(2), third.result(WAIT_S).outputs)
        with pytest.raises(CancelledError):
            second.result(WAIT_S)


def test_a_request_whose_caller_is_interrupted_is_cancelled(tmp_path: Path) -> None:
    control = tmp_path / "control"
    limits = replace(QUICK, waiting=1, backoff_ns=WAIT_S * SECOND, backoff_cap_ns=WAIT_S * SECOND)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ContainedRunner(worker(control), limits=limits) as runner:
            Control(control).tell("kill")
            runner.infer(frame(0))  # the first rebuild of a window is at once
            Control(control).tell("kill")
            with pytest.raises(ChildError):
                runner.submit(frame(0), retries=0).result(WAIT_S)

            def interrupt() -> None:
                while not runner.model.desk._waiting:
                    time.sleep(0.001)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                runner.infer(frame(1))
            thread.join()
            next_one = runner.submit(frame(2))  # there is room again, where only one may wait
            assert not next_one.done()
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ChildError, match="shut"):
        next_one.result(WAIT_S)


def test_closing_answers_what_is_under_way_and_refuses_the_rest() -> None:
    runner = ContainedRunner(worker(work_us=30_000), limits=QUICK, slots=2).__enter__()
    asked = [(feeds, runner.submit(feeds)) for feeds in map(frame, range(6))]
    runner.close()
    assert all(future.done() for _, future in asked)
    assert all(right(feeds, future.result().outputs) for feeds, future in asked[:2])
    for _, future in asked[2:]:
        assert "shutting down" in str(future.exception())
    with pytest.raises(ChildError):
        runner.infer(frame(7))
    assert runner.status.state == "closed"


def test_a_worker_that_no_signal_ends_is_not_waited_for_and_its_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits inside a driver cannot be killed. None can be made here: the signal is kept back."""
    control = tmp_path / "control"
    with ContainedRunner(worker(control), limits=replace(QUICK, kill_ns=20 * MS)) as runner:
        pid = runner.status.model.pid
        assert pid is not None
        with monkeypatch.context() as patch:
            patch.setattr(os, "killpg", lambda *_: None)
            Control(control).tell("hang")
            with pytest.raises(ChildError, match=r"does not die: a driver holds it. Before that: The worker hung"):
                runner.infer(frame(0))
            assert runner.status.state == "refused"
            assert alive(pid)
        os.kill(pid, signal.SIGKILL)
        runner.restart()
        while runner.status.state != "ready":
            time.sleep(0.01)
        assert right(frame(1), runner.infer(frame(1)))
    assert not alive(pid)


def test_closing_does_not_wait_for_a_worker_that_hangs(tmp_path: Path) -> None:
    control = tmp_path / "control"
    limits = replace(QUICK, hang_ns=WAIT_S * SECOND, drain_ns=50 * MS)
    with ContainedRunner(worker(control), limits=limits) as runner:
        Control(control).tell("hang_holding_gil")
        future = runner.submit(frame(0))
        pid = runner.status.model.pid
    with pytest.raises(ChildError, match="shut down"):
        future.result(0)
    assert pid is not None
    assert not alive(pid)


def test_closing_from_a_callback_does_not_lock_up() -> None:
    closed: Future[None] = Future()
    runner = ContainedRunner(worker(), limits=QUICK).__enter__()

    def close(_: Future[object]) -> None:
        runner.close()
        closed.set_result(None)

    runner.submit(frame(0)).add_done_callback(close)
    closed.result(WAIT_S)
    runner.close()
    assert runner.status.state == "closed"


def test_the_worker_leaves_signals_of_the_terminal_and_of_a_service_manager_to_its_parent() -> None:
    with ContainedRunner(worker(), limits=QUICK) as runner:
        pid = runner.status.model.pid
        assert pid is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        assert right(frame(0), runner.infer(frame(0)))
        assert runner.status.model.generation == 1
        assert os.getsid(pid) == pid  # no terminal signals it together with its parent


PARENT = """
import os, signal, sys, time
from edgemed.runtime.contained.runner import ContainedRunner
from tests.runtime.contained.kit import QUICK, frame, worker
with ContainedRunner(worker(work_us=10), limits=QUICK) as runner:
    try:
        print(runner.status.model.pid, flush=True)
        while True:
            runner.infer(frame(0))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_worker_does_not_outlive_its_parent(repo: Path, number: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repo)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=repo,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        os.kill(parent.pid, number)
        if number == signal.SIGINT:
            assert parent.stdout.readline() == "interrupted\n"
            assert parent.wait(WAIT_S) == 0
    by_ns = time.monotonic_ns() + WAIT_S * SECOND
    while alive(pid) and time.monotonic_ns() < by_ns:
        time.sleep(0.01)
    assert not alive(pid)


def test_fifty_rebuilds_leave_neither_descriptors_nor_processes_nor_memory(tmp_path: Path) -> None:
    control = tmp_path / "control"
    shape = [1, 1 << 18]  # a mebibyte: a mapping that stays would show
    spec = worker(control, golden=False, shape=shape)
    with ContainedRunner(spec, limits=QUICK) as runner:
        feeds = frame(0, (1, 1 << 18))
        children: set[int] = set()

        def lose() -> None:
            Control(control).tell("kill")
            assert right(feeds, runner.infer(feeds))
            assert runner.status.model.pid is not None
            children.add(runner.status.model.pid)

        for _ in range(3):
            lose()
        before = footprint()
        for _ in range(50):
            lose()
        after = footprint()
        assert len(children) == 53
        assert after[0] == before[0]
        assert after[1] - before[1] < 20 << 20  # 50 lost mappings would be 150 MiB
        assert [pid for pid in children if alive(pid)] == [runner.status.model.pid]
    assert not any(alive(pid) for pid in children)


def test_a_closed_runner_gives_everything_back() -> None:
    def use() -> None:
        with ContainedRunner(worker(), limits=QUICK) as runner:
            runner.infer(frame(0))

    use()
    before = footprint()[0], threading.active_count()
    use()
    ContainedRunner(worker(), limits=QUICK).close()
    assert (footprint()[0], threading.active_count()) == before


def footprint() -> tuple[int, int]:
    """Open descriptors, and bytes of mapped memory, of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return len(list(Path("/proc/self/fd").iterdir())), pages * os.sysconf("SC_PAGESIZE")


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped counts as well."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


_FORKED = """
import os
from tests.runtime.contained.kit import QUICK, frame, right, worker
from edgemed.base.errors import DeviceStateError
from edgemed.runtime.contained.runner import ContainedRunner
with ContainedRunner(worker(), limits=QUICK) as runner:
    child = os.fork()
    if child == 0:
        try:
            runner.infer(frame(1))
        except DeviceStateError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert right(frame(2), runner.infer(frame(2)))
    assert runner.model.health.generation == 1  # the child sent nothing to its worker
"""


def test_a_forked_child_is_refused_and_does_not_disturb_the_worker() -> None:
    subprocess.run([sys.executable, "-c", _FORKED], check=True, timeout=WAIT_S)
