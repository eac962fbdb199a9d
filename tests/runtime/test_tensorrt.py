"""The TensorRT Runner on real pycuda over the host-only libcuda, with a fake TensorRT whose executions are kernels.

Every test ends with the fixture's checks: no race, nothing left alive.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemed.base.errors import (
    DeviceStateError,
    EdgemedError,
    GpuError,
    GpuMemoryError,
    InputError,
    IntegrityError,
)
from edgemed.base.runner import Runner, RunnerInfo, TensorSpec
from edgemed.base.spans import SpanLog
from edgemed.runtime import driver
from edgemed.runtime.cuda import open_cuda
from edgemed.runtime.frames import Frame
from edgemed.runtime.ring import Ring
from edgemed.runtime.tensorrt import OpenedEngine, TensorRtLane, TensorRtRunner
from tests.engine.engines import asked, write_engine
from tests.engine.fake_runtime import EngineScript
from tests.engine.fake_tensorrt import Script, make_fake
from tests.runtime.fakecuda.handle import FakeCudaHandle
from tests.runtime.tensorrt_engines import BATCHED, COLUMNS, FIXED, GROWING, batched, expected, kernels_for, plan_for

Open = Callable[..., Any]


@pytest.fixture
def opened(fakecuda: FakeCudaHandle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens a Runner over a scripted engine; closed, with its kernels, before the shim is looked at."""
    with ExitStack() as stack:

        def open_(
            script: EngineScript,
            kind: Any = TensorRtRunner,
            *,
            version: str = "10.3.0",
            key: Any = None,
            **options: Any,
        ) -> Any:
            monkeypatch.setitem(sys.modules, "tensorrt", make_fake(version, Script(), script))
            cuda = open_cuda()
            stack.enter_context(kernels_for(cuda, script))
            plan = plan_for(cuda, script, version=version, **(key or {}))
            return stack.enter_context(kind(plan, **options))

        yield open_


def fixed(**changes: Any) -> EngineScript:
    return EngineScript(**{"tensors": FIXED, **changes})


def frame(rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    return {"x": np.random.default_rng(seed).random((rows, COLUMNS), dtype=np.float32)}


def is_right(runner: Runner, feeds: dict[str, NDArray[Any]]) -> bool:
    return bool(np.array_equal(runner.infer(feeds)["y"], expected(feeds["x"])))


@pytest.mark.parametrize("integrated", [0, 1], ids=["copies", "zero-copy"])
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.13.0", "11.4.0"])
def test_a_runner_answers(fakecuda: FakeCudaHandle, opened: Open, integrated: int, graphs: bool, version: str) -> None:
    fakecuda.set(integrated=integrated)
    fakecuda.delay("kernel", us=200)
    script = fixed()
    runner = opened(script, version=version, graphs=graphs)
    assert isinstance(runner, Runner)
    assert runner.specs.inputs == (TensorSpec("x", "float32", (4, COLUMNS)),)
    assert runner.info == RunnerInfo("tensorrt", "fp16", open_cuda().facts.name, "0" * 64)
    assert runner.lane.zero_copy == bool(integrated)
    for seed in range(5):
        assert is_right(runner, frame(4, seed))
    executions = len(asked(script, "execute_async_v3"))
    for seed in range(5):
        assert is_right(runner, frame(4, seed))
    again = len(asked(script, "execute_async_v3")) - executions
    assert again == (0 if graphs else 5)  # a graph is replayed without TensorRT
    assert runner.lane.graphs == ("replayed" if graphs else "not used: not wanted")


def test_an_error_that_is_reported_while_a_graph_is_replayed_is_its_frames(opened: Open) -> None:
    runner = opened(fixed())
    assert runner.lane.graphs == "replayed"
    execution = runner.lane._executions[0]
    code = execution._bridge.trt.ErrorCodeTRT.FAILED_EXECUTION
    execution._context.error_recorder.report_error(code, "a layer failed")
    with pytest.raises(GpuError, match="a layer failed"):
        runner.infer(frame(4))
    assert is_right(runner, frame(4))


def test_answers_are_the_callers_own(opened: Open) -> None:
    runner = opened(fixed())
    first = runner.infer(frame(4, 1))["y"]
    kept = first.copy()
    runner.infer(frame(4, 2))
    np.testing.assert_array_equal(first, kept)
    first[...] = 0


def test_nothing_of_the_device_is_touched_before_entering(fakecuda: FakeCudaHandle, tmp_path: Path) -> None:
    before = fakecuda.calls()
    runner = TensorRtRunner(tmp_path / "nothing here")
    with pytest.raises(RuntimeError, match="was not entered"):
        runner.infer({})
    with pytest.raises(IntegrityError, match="holds no whole engine"):
        runner.__enter__()
    assert fakecuda.calls() == before


def test_an_engine_folder_is_loaded_and_a_damaged_one_refused(opened: Open, tmp_path: Path) -> None:
    script = fixed()
    runner = opened(script)
    plan = plan_for(open_cuda(), script)
    folder = write_engine(tmp_path / "engine", script, **plan.key.model_dump())
    with TensorRtRunner(folder) as other:
        assert is_right(other, frame(4))
    (folder / "plan").write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match="does not match its hash"):
        TensorRtRunner(folder).__enter__()
    assert is_right(runner, frame(4))


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({}, "takes the inputs x, and got none"),
        ({"x": np.zeros((4, COLUMNS))}, "got float64"),
        ({"x": np.zeros((COLUMNS, 4), np.float32)}, "got float32 16×4"),
        ({"x": np.zeros((4, COLUMNS), np.float32), "z": np.zeros(1)}, "got x, z"),
    ],
)
def test_feeds_that_do_not_match_are_refused(opened: Open, feeds: Any, said: str) -> None:
    runner = opened(fixed())
    with pytest.raises(InputError, match=said):
        runner.infer(feeds)
    assert is_right(runner, frame(4))


@pytest.mark.parametrize("graphs", [True, False])
def test_the_batch_may_be_any_that_a_profile_takes(opened: Open, graphs: bool) -> None:
    script = batched()
    runner = opened(script, graphs=graphs)
    for rows in (1, 3, 3, 16, 5, 4, 4, 2, 16, 16, 16):
        assert is_right(runner, frame(rows, rows))
    switched = [profile for profile, _ in asked(script, "set_optimization_profile_async")]
    assert set(switched) == {0, 1}
    with pytest.raises(InputError, match="the engine takes 1×16 to 16×16"):
        runner.infer(frame(17))
    assert is_right(runner, frame(1))


def test_a_gap_between_profiles_is_refused_and_harms_nothing(opened: Open) -> None:
    gap = ({"x": ((1, COLUMNS),) * 3}, {"x": ((8, COLUMNS),) * 3})
    runner = opened(batched(profiles=gap))
    with pytest.raises(InputError, match="not in this combination"):
        runner.infer(frame(4))
    assert is_right(runner, frame(8))
    assert is_right(runner, frame(1))


@pytest.mark.parametrize("integrated", [0, 1], ids=["copies", "zero-copy"])
def test_profiles_of_several_inputs_need_not_share_a_greatest_shape(
    fakecuda: FakeCudaHandle, opened: Open, integrated: int
) -> None:
    fakecuda.set(integrated=integrated)
    few = ((1, COLUMNS), (2, COLUMNS), (4, COLUMNS))
    many = ((8, COLUMNS), (8, COLUMNS), (16, COLUMNS))
    tensors = (("x", "INPUT", "FLOAT", (-1, COLUMNS)), ("z", "INPUT", "FLOAT", (-1, COLUMNS)), BATCHED[1])
    for profiles in (({"x": few, "z": many}, {"x": many, "z": few}), ({"x": many, "z": few}, {"x": few, "z": many})):
        runner = opened(batched(tensors=tensors, profiles=profiles))
        for rows, others in ((3, 9), (16, 4), (16, 1), (1, 16), (8, 2)):
            assert is_right(runner, {**frame(rows, rows), "z": frame(others)["x"]})
        with pytest.raises(InputError, match="not in this combination"):
            runner.infer({**frame(16), "z": frame(16)["x"]})
        assert is_right(runner, {**frame(2), "z": frame(8)["x"]})


def test_an_output_that_only_the_data_sizes(fakecuda: FakeCudaHandle, opened: Open) -> None:
    script = EngineScript(tensors=GROWING, grown_shape=(4, COLUMNS))
    fakecuda.delay("kernel", us=300)
    runner = opened(script)
    for rows in (4, 2, 3):
        script.grown_shape = (rows, COLUMNS)
        feeds = frame(4, rows)
        np.testing.assert_array_equal(runner.infer(feeds)["y"], expected(feeds["x"])[:rows])
    assert "depends on the data" in runner.lane.graphs


def test_slots_and_contexts_work_side_by_side(fakecuda: FakeCudaHandle, opened: Open) -> None:
    fakecuda.delay(us=300)
    script = fixed()
    lane = opened(script, TensorRtLane, slots=4, contexts=2, graphs=False)
    frames = [frame(4, seed) for seed in range(12)]
    for turn in range(0, len(frames), 4):
        for slot, feeds in enumerate(frames[turn : turn + 4]):
            lane.inputs(slot)["x"][...] = feeds["x"]
            lane.start(slot)
        for slot, feeds in enumerate(frames[turn : turn + 4]):
            np.testing.assert_array_equal(lane.finish(slot)["y"], expected(feeds["x"]))
    by_context = {
        context: {stream for c, stream in asked(script, "execute_async_v3") if c == context} for context in (1, 2)
    }
    assert [len(streams) for streams in by_context.values()] == [1, 1]
    assert by_context[1] != by_context[2]


@pytest.mark.parametrize("contexts", [1, 2])
@pytest.mark.parametrize("graphs", [True, False])
def test_a_ring_runs_on_the_lane_of_an_engine(
    fakecuda: FakeCudaHandle, opened: Open, contexts: int, graphs: bool
) -> None:
    fakecuda.delay(us=100)
    options = {"slots": 4, "contexts": contexts, "graphs": graphs}
    ring = opened(batched(), lambda plan, **options: Ring(TensorRtLane(plan, **options), spans=True), **options)
    feeds = {number: frame((1, 4, 16)[number // 12 % 3], number) for number in range(72)}
    answered = 0
    for outcome in ring.run(Frame(number, data, time.monotonic_ns()) for number, data in feeds.items()):
        np.testing.assert_array_equal(outcome.outputs["y"], expected(feeds[outcome.frame]["x"]))
        assert {"copy-in", "compute", "copy-out"} <= {span.name for span in outcome.spans}
        answered += 1
    assert answered == len(feeds)
    assert ring.lane.poisoned is None


def test_threads_take_turns(opened: Open) -> None:
    runner, wrong = opened(fixed()), []

    def drive(seed: int) -> None:
        wrong.extend(turn for turn in range(20) if not is_right(runner, frame(4, 100 * seed + turn)))

    threads = [threading.Thread(target=drive, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("timed", "names"), [(False, ["compute"]), (True, ["copy-in", "compute", "copy-out"])], ids=["whole", "stages"]
)
def test_spans_are_recorded_for_the_frame(opened: Open, timed: bool, names: list[str]) -> None:
    runner, log = opened(fixed(), timed=timed), SpanLog()
    runner.infer(frame(4), frame=17, spans=log)
    assert [span.name for span in log.spans] == names
    assert {span.frame for span in log.spans} == {17}
    assert all(span.start_ns <= span.end_ns for span in log.spans)


# ---- what goes wrong


@pytest.mark.parametrize("changes", [{"board": "another"}, {"compute_capability": "5.3"}, {"version": "9.9.9"}])
def test_an_engine_of_another_device_is_refused(opened: Open, changes: dict[str, str]) -> None:
    script = fixed()
    opened(script)
    with pytest.raises(DeviceStateError, match="was built for") as caught:
        TensorRtRunner(plan_for(open_cuda(), script, **changes)).__enter__()
    assert caught.value.exit_code == 4


def test_a_device_that_is_not_there(opened: Open) -> None:
    with pytest.raises(EdgemedError, match="GPU 3") as caught:
        opened(fixed(), device=3)
    assert caught.value.exit_code in (2, 4)


def test_a_context_at_least() -> None:
    with pytest.raises(ValueError, match="one context at least"):
        OpenedEngine(plan_for(open_cuda(), fixed()), contexts=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"plan_errors": (("INTERNAL_ERROR", "Magic tag does not match"),)},
        {"context_is_null": True},
        {"contexts_left": 1},
        {"hosted": ("x",)},
        {"runtime_is_null": True},
        {"refused": {"set_tensor_address": ()}},
        {"refused": {"execute_async_v3": (("FAILED_ALLOCATION", "no scratch memory"),)}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_failed_start_leaves_nothing(opened: Open, changes: dict[str, Any]) -> None:
    script = fixed(**changes)
    with pytest.raises(EdgemedError):
        opened(script, contexts=2)
    assert script.alive in ([], ["null"])


@pytest.mark.parametrize("call", ["", "cuMemHostAlloc", "cuStreamCreate"])
def test_out_of_memory_while_starting_leaves_nothing(fakecuda: FakeCudaHandle, opened: Open, call: str) -> None:
    script = fixed()
    open_cuda()
    if call:
        fakecuda.fail(call, driver.OUT_OF_MEMORY)
    else:
        fakecuda.set(memory=64)
    with pytest.raises(GpuMemoryError):
        opened(script, contexts=2)
    assert not script.alive


def test_no_memory_for_a_grown_output(fakecuda: FakeCudaHandle, opened: Open) -> None:
    script = EngineScript(tensors=GROWING, grown_shape=(4, COLUMNS))
    runner = opened(script)
    script.grown_shape = (1 << 24, COLUMNS)
    fakecuda.set(memory=1 << 20)
    with pytest.raises(GpuMemoryError):
        runner.infer(frame(4))
    script.grown_shape = (4, COLUMNS)
    assert is_right(runner, frame(4))


def test_a_refused_execution_fails_its_frame_only(opened: Open) -> None:
    script = fixed()
    runner = opened(script, graphs=False)
    script.refused["execute_async_v3"] = (("INVALID_STATE", "not now"),)
    with pytest.raises(GpuError, match="could not run the engine: not now"):
        runner.infer(frame(4))
    script.refused.clear()
    assert is_right(runner, frame(4))


def test_a_sticky_error_that_tensorrt_tells_poisons_the_process(fakecuda: FakeCudaHandle, opened: Open) -> None:
    script = fixed()
    runner = opened(script, graphs=False)
    said = "Cuda Runtime (an illegal memory access was encountered)"
    script.refused["execute_async_v3"] = (("FAILED_EXECUTION", said),)
    with pytest.raises(GpuError, match="illegal memory access") as caught:
        runner.infer(frame(4))
    assert caught.value.sticky
    assert caught.value.exit_code == 6
    script.refused.clear()
    for _ in range(2):  # no answer leaves it any more
        with pytest.raises(GpuError, match="illegal memory access") as again:
            runner.infer(frame(4))
        assert again.value.sticky
    with pytest.raises(GpuError, match="illegal memory access"):
        open_cuda()
    runner.__exit__(None, None, None)
    del runner, caught, again
    gc.collect()
    assert script.alive == ["runtime", "engine", "context 1"]  # TensorRT is asked for nothing in a lost context
    fakecuda.forgive()


def test_a_fault_of_the_device_fails_the_frame(fakecuda: FakeCudaHandle, opened: Open) -> None:
    runner = opened(fixed(), graphs=False)
    illegal_address = 700
    fakecuda.fail_op("kernel", illegal_address)
    with pytest.raises(GpuError) as caught:
        runner.infer(frame(4))
    assert caught.value.sticky
    runner.__exit__(None, None, None)
    fakecuda.forgive()


def test_everything_is_freed_in_order_with_the_context_current(opened: Open) -> None:
    without: list[str] = []

    def look(label: str) -> None:
        context = ctypes.c_void_p()
        driver.call("cuCtxGetCurrent", ctypes.byref(context))
        if not context.value:
            without.append(label)

    script = fixed(on_free=look)
    runner = opened(script, contexts=2)
    assert is_right(runner, frame(4))
    runner.__exit__(None, None, None)
    runner.__exit__(None, None, None)
    assert script.freed == ["context 1", "context 2", "engine", "runtime"]
    assert not without
    script.on_free = None
    with pytest.raises(RuntimeError, match="was not entered"):
        runner.infer(frame(4))


def test_entering_twice_is_a_mistake_that_is_told(opened: Open) -> None:
    runner = opened(fixed())
    with pytest.raises(RuntimeError, match="entered already"):
        runner.__enter__()
    assert is_right(runner, frame(4))


def test_leaving_waits_for_the_inference_of_another_thread(fakecuda: FakeCudaHandle, opened: Open) -> None:
    runner, answers = opened(fixed()), []
    fakecuda.hang("kernel")
    feeds = frame(4)
    inferring = threading.Thread(target=lambda: answers.append(runner.infer(feeds)["y"]))
    inferring.start()
    while not runner._lock.locked():
        time.sleep(0.001)
    leaving = threading.Thread(target=runner.__exit__, args=(None, None, None))
    leaving.start()
    leaving.join(0.05)
    assert leaving.is_alive()
    fakecuda.release()
    inferring.join()
    leaving.join()
    np.testing.assert_array_equal(answers[0], expected(feeds["x"]))


def test_a_runner_may_be_left_in_another_thread_and_entered_again(opened: Open) -> None:
    script = fixed()
    runner = opened(script)
    thread = threading.Thread(target=runner.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert not script.alive
    with runner:
        assert is_right(runner, frame(4))


def test_the_dla_core_stands_in_the_name(opened: Open) -> None:
    script = fixed(dla_cores=2)
    runner = opened(script, key={"dla_core": 0}, dla_core=1)
    assert runner.info.device == f"{open_cuda().facts.name} DLA 1"
    assert asked(script, "deserialize")[0][2] == 1
    assert runner.lane.graphs == "not used: the engine cannot be recorded"
