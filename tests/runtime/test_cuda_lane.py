"""The CUDA lane on real pycuda over the host-only libcuda, with the stand-in engine: order, overlap, memory, faults."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import threading
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from edgemed.base.errors import GpuError, GpuMemoryError, InputError
from edgemed.base.runner import RunnerInfo, TensorSpec
from edgemed.runtime.arena import Arena
from edgemed.runtime.cuda import open_cuda
from edgemed.runtime.cuda_lane import CudaLane
from edgemed.runtime.frames import Answer, Failure, Frame
from edgemed.runtime.policy import LATEST
from edgemed.runtime.prepare import Work
from edgemed.runtime.ring import Ring
from edgemed.runtime.streams import Event, Stream
from tests.runtime.fakecuda.handle import FakeCudaHandle
from tests.runtime.standin import StandIn

INFO = RunnerInfo("stand-in", "fp32", "shim")
OUT_OF_MEMORY, ILLEGAL_ADDRESS, INVALID_VALUE = 2, 700, 1
CREATES = (
    "cuMemAlloc_v2",
    "cuMemHostAlloc",
    "cuMemAllocHost_v2",
    "cuEventCreate",
    "cuStreamCreate",
    "cuGraphInstantiateWithFlags",
)


def feeds(number: int, rows: int = 4, names: tuple[str, ...] = ("x",)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {name: rng.random((rows, 8), np.float32) for name in names}


def frames(count: int, first: int = 0, **options: Any) -> Iterator[Frame]:
    return (Frame(number, feeds(number, **options), 0) for number in range(first, first + count))


class Bench:
    """A ring over the shim that tells the race checker of every access of the host, and judges every answer."""

    def __init__(
        self,
        fake: FakeCudaHandle,
        *,
        slots: int = 3,
        contexts: int = 1,
        engine: Mapping[str, Any] | None = None,
        ring: Mapping[str, Any] | None = None,
        **lane: Any,
    ) -> None:
        self.fake = fake
        self.cuda = open_cuda()
        self.executions = [StandIn(self.cuda, **(engine or {})) for _ in range(contexts)]
        self.lane = CudaLane(self.cuda, self.executions, INFO, slots, **lane)
        self.ring = Ring(self.lane, fill=self.fill, **(ring or {}))

    def fill(self, frame: Frame, memory: Any) -> None:
        inputs = memory({name: value.shape for name, value in frame.data.items()})
        for name, value in frame.data.items():
            self.fake.writes(inputs[name])
            np.copyto(inputs[name], value)

    def is_right(self, outcome: Any, rows: int = 4) -> bool:
        want = self.executions[0].expected(feeds(outcome.frame, rows, self.executions[0].inputs))
        assert sorted(outcome.outputs) == sorted(want)
        for array in outcome.outputs.values():
            self.fake.reads(array)
        return all(np.array_equal(outcome.outputs[name], want[name]) for name in want)

    def __enter__(self) -> Bench:
        self.ring.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.ring.__exit__(*exc)
        self.close()

    def close(self) -> None:
        while self.executions:
            self.executions.pop().close()  # the last reference: its pinned memory goes with it

    def run(self, count: int, first: int = 0) -> list[bool]:
        given = frames(count, first, names=self.executions[0].inputs)
        return [isinstance(outcome, Answer) and self.is_right(outcome) for outcome in self.ring.run(given)]


@contextmanager
def traced(fake: FakeCudaHandle) -> Iterator[None]:
    fake.set(trace=1)
    yield
    fake.set(trace=0)


MODES = pytest.mark.parametrize("zero_copy", [False, True], ids=["copied", "mapped"])
GRAPHS = pytest.mark.parametrize("graphs", [False, True], ids=["enqueued", "replayed"])


@MODES
@GRAPHS
@pytest.mark.parametrize(("slots", "contexts"), [(1, 1), (3, 1), (4, 2), (2, 3)])
def test_every_frame_gets_its_own_answer(
    fakecuda: FakeCudaHandle, zero_copy: bool, graphs: bool, slots: int, contexts: int
) -> None:
    with Bench(fakecuda, slots=slots, contexts=contexts, zero_copy=zero_copy, graphs=graphs) as bench:
        assert bench.run(40) == [True] * 40
        assert bench.lane.graphs == ("replayed" if graphs else "not used: not wanted")
        assert bench.ring.counts().answered == 40


@MODES
def test_slow_operations_change_no_answer_and_race_with_none(fakecuda: FakeCudaHandle, zero_copy: bool) -> None:
    fakecuda.delay(us=300)
    with Bench(fakecuda, zero_copy=zero_copy, engine={"inputs": ("x", "mask")}) as bench:
        assert bench.run(30) == [True] * 30
        assert fakecuda.races() == []


def test_the_race_checker_sees_a_lane_that_forgets_an_event(fakecuda: FakeCudaHandle, monkeypatch) -> None:
    """What the other tests rely on: without the wait for the copy, the checker speaks."""
    fakecuda.delay(us=300)
    monkeypatch.setattr(Stream, "wait", lambda self, event: None)
    with Bench(fakecuda, warm_up=False, graphs=False) as bench:
        bench.run(1)
    assert fakecuda.races()  # the lane has waited for all its streams
    fakecuda.forgive()


@pytest.mark.parametrize(
    ("hung", "goes_on"), [("copy-out", "kernel"), ("kernel", "copy-in")], ids=["computing", "copying in"]
)
def test_later_frames_go_on_while_an_earlier_one_is_held_up(fakecuda: FakeCudaHandle, hung, goes_on) -> None:
    """Overlap without a clock: the first frame's operation does not end, and those of the next two do."""
    with Bench(fakecuda) as bench, traced(fakecuda):
        fakecuda.hang(hung)
        for frame in frames(3):
            bench.ring.submit(frame)
        per_frame = 2 if goes_on == "kernel" else 1
        while sum(each.name == goes_on for each in fakecuda.trace()) < 3 * per_frame:
            time.sleep(0.001)
        assert not any(each.name == "copy-out" for each in fakecuda.trace())
        fakecuda.release()
        for number in range(3):
            with bench.ring.collect() as outcome:
                assert outcome.frame == number
                assert bench.is_right(outcome)


def test_zero_copy_copies_nothing(fakecuda: FakeCudaHandle) -> None:
    fakecuda.set(integrated=1, sm=87)
    with Bench(fakecuda) as bench:
        assert bench.lane.zero_copy
        before = fakecuda.calls()
        assert before > 0
        copies = {name: fakecuda.calls(name) for name in ("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2")}
        assert all(bench.run(10))
        assert {name: fakecuda.calls(name) for name in copies} == copies == dict.fromkeys(copies, 0)


def test_a_device_with_memory_of_its_own_is_copied_to(fakecuda: FakeCudaHandle) -> None:
    with Bench(fakecuda, warm_up=False) as bench:
        assert not bench.lane.zero_copy
        before = fakecuda.calls("cuMemcpyHtoDAsync_v2")
        assert all(bench.run(10))
        assert fakecuda.calls("cuMemcpyHtoDAsync_v2") == before + 10


def test_all_inputs_go_in_one_copy_and_all_outputs_in_another(fakecuda: FakeCudaHandle) -> None:
    with Bench(fakecuda, engine={"inputs": ("x", "mask", "prior")}) as bench:
        names = ("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2")
        before = [fakecuda.calls(name) for name in names]
        assert all(bench.run(10))
        assert [fakecuda.calls(name) - was for name, was in zip(names, before, strict=True)] == [10, 10]


@MODES
@GRAPHS
@pytest.mark.parametrize("spans", [False, True])
def test_a_steady_ring_allocates_nothing(fakecuda: FakeCudaHandle, zero_copy: bool, graphs: bool, spans: bool) -> None:
    with Bench(fakecuda, zero_copy=zero_copy, graphs=graphs, ring={"spans": spans}) as bench, traced(fakecuda):
        before = fakecuda.live()
        assert all(bench.run(50))
        names = {each.name for each in fakecuda.trace()}
        assert "cuEventRecord" in names
        assert not [
            name for name in names if "Alloc" in name or "Create" in name or "Free" in name or "Destroy" in name
        ]
        assert not [name for name in names if "Instantiate" in name or "Capture" in name]
        assert fakecuda.live() == before


def test_pythons_memory_stays_flat(fakecuda: FakeCudaHandle) -> None:
    with Bench(fakecuda, ring={"spans": True}) as bench:
        given = {"x": np.zeros((4, 8), np.float32)}

        def go(count: int) -> None:
            for outcome in bench.ring.run(Frame(number, given, 0) for number in range(count)):
                assert isinstance(outcome, Answer)

        go(200)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.take_snapshot()
        go(2000)
        gc.collect()
        grown = sum(line.size_diff for line in tracemalloc.take_snapshot().compare_to(before, "filename"))
        tracemalloc.stop()
        assert grown < 10_000  # five bytes a frame would show; the tracer's own bookkeeping is some kilobytes


def test_nothing_is_left_after_the_lane(fakecuda: FakeCudaHandle) -> None:
    for _ in range(3):
        with Bench(fakecuda, contexts=2) as bench:
            assert all(bench.run(5))
            assert fakecuda.live()
        gc.collect()
        assert fakecuda.live() == {}


def entering_is_refused(lane: CudaLane) -> bool:
    try:
        with lane:
            return False
    except GpuMemoryError:
        return True


@MODES
@pytest.mark.parametrize("call", ["cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate"])
def test_without_memory_nothing_is_kept(fakecuda: FakeCudaHandle, zero_copy: bool, call: str) -> None:
    nth, refused = 0, True
    while refused:
        nth += 1
        bench = Bench(fakecuda, zero_copy=zero_copy)
        before = fakecuda.live()
        for _ in range(2):  # pycuda tries once more by itself; the second fault counts from the first
            fakecuda.fail(call, OUT_OF_MEMORY, nth=nth)
        refused = entering_is_refused(bench.lane)
        gc.collect()
        assert fakecuda.live() == before
        bench.close()
        del bench
        gc.collect()
        assert fakecuda.live() == {}
        fakecuda.fresh()
    # mapped slots have device memory only where kernels make inputs
    assert (
        nth > {"cuMemAlloc": 0 if zero_copy else 6, "cuMemHostAlloc": 6, "cuStreamCreate": 3, "cuEventCreate": 9}[call]
    )


# ---------------------------------------------------------------- graphs


def test_a_slot_is_recorded_after_it_ran_once_and_replayed_from_then_on(fakecuda: FakeCudaHandle) -> None:
    with Bench(fakecuda, slots=2, warm_up=False) as bench:
        assert bench.lane.graphs == "not yet recorded"
        bench.run(2)
        assert bench.executions[0].enqueued == 2
        assert fakecuda.calls("cuGraphLaunch") == 0
        assert all(bench.run(6))
        assert bench.executions[0].enqueued == 4  # twice more, while recording
        assert fakecuda.calls("cuGraphLaunch") == 6
        assert bench.lane.graphs == "replayed"


@pytest.mark.parametrize(
    ("engine", "why"),
    [({"capturable": False}, "cannot be recorded"), ({"refuses_capture": True}, "CAPTURE"), ({}, "INSTANTIATE")],
)
def test_what_cannot_be_recorded_is_enqueued_and_the_reason_is_kept(fakecuda: FakeCudaHandle, engine, why) -> None:
    if not engine:
        fakecuda.fail("cuGraphInstantiateWithFlags", 801)
    with Bench(fakecuda, engine=engine) as bench:
        enqueued = bench.executions[0].enqueued
        assert bench.run(20) == [True] * 20
        assert bench.executions[0].enqueued == enqueued + 20
        assert bench.lane.graphs.startswith("not used: ")
        assert why in bench.lane.graphs or not engine
        assert fakecuda.calls("cuGraphLaunch") == 0


# ---------------------------------------------------------------- shapes


@MODES
@pytest.mark.parametrize("contexts", [1, 2])
def test_shapes_may_change_from_frame_to_frame(fakecuda: FakeCudaHandle, zero_copy: bool, contexts: int) -> None:
    engine = {"rows": (1, 4, 16), "inputs": ("x", "mask")}
    rows = [4, 4, 4, 4, 16, 16, 16, 16, 16, 16, 1, 2, 3, 4, 4, 4, 4, 4, 16, 1, 16, 1, 7, 7, 7, 7, 7]

    def given() -> Iterator[Frame]:
        return (Frame(n, feeds(n, count, ("x", "mask")), 0) for n, count in enumerate(rows))

    with Bench(fakecuda, contexts=contexts, zero_copy=zero_copy, engine=engine) as bench:
        for _ in range(3):
            for outcome in bench.ring.run(given()):
                assert bench.is_right(outcome, rows[outcome.frame])
                assert outcome.outputs["sum"].shape == (rows[outcome.frame],)
        assert bench.lane.graphs == "replayed"
        assert bench.ring.counts().answered == 3 * len(rows)


def test_small_frames_copy_no_more_than_they_hold(fakecuda: FakeCudaHandle) -> None:
    with Bench(fakecuda, engine={"rows": (1, 4, 1024)}, slots=1) as bench, traced(fakecuda):
        (outcome,) = bench.ring.run(iter([Frame(0, feeds(0, 2), 0)]))
        copied = {each.name: each.bytes for each in fakecuda.trace() if each.name in ("copy-in", "copy-out")}
        assert copied["copy-in"] == 2 * 8 * 4
        assert outcome.frame == 0


def test_many_shapes_neither_grow_memory_nor_record_for_ever(fakecuda: FakeCudaHandle) -> None:
    rows = [1 + n % 60 for n in range(600)]
    with Bench(fakecuda, engine={"rows": (1, 4, 64)}) as bench:
        for outcome in bench.ring.run(Frame(n, feeds(n, count), 0) for n, count in enumerate(rows)):
            assert bench.is_right(outcome, rows[outcome.frame])
        assert all(len(slot._kept) <= 16 for slot in bench.lane._slots)
        captures = fakecuda.calls("cuGraphInstantiateWithFlags")
        assert captures <= 3 * 8


def test_shapes_outside_the_profile_are_refused_and_the_ring_goes_on(fakecuda: FakeCudaHandle) -> None:
    with Bench(fakecuda, engine={"rows": (2, 4, 8)}) as bench:
        given = [Frame(n, feeds(n, count), 0) for n, count in enumerate((2, 1, 8, 9, 4))]
        given.append(Frame(5, {"x": np.zeros((4, 7), np.float32)}, 0))
        outcomes = [
            isinstance(outcome, Failure)
            if outcome.frame in (1, 3, 5)
            else bench.is_right(outcome, len(outcome.outputs["y"]))
            for outcome in bench.ring.run(given)
        ]
        assert outcomes == [True] * 6
        with pytest.raises(InputError, match="takes 2×8 to 8×8"):
            bench.lane.inputs(0, {"x": (9, 8)})


@MODES
def test_an_output_whose_shape_depends_on_the_data(fakecuda: FakeCudaHandle, zero_copy: bool) -> None:
    engine = {"data_dependent": True}
    with Bench(fakecuda, slots=3, contexts=2, zero_copy=zero_copy, engine=engine) as bench:
        assert bench.lane.slots == 2  # its memory is the context's own
        assert bench.run(20) == [True] * 20
        assert "depends on the data" in bench.lane.graphs
        empty = bench.ring.infer({"x": np.zeros((4, 8), np.float32)})
        assert empty.outputs["above"].shape == (0,)


class Triple:
    """A `Prepare` whose work is the stand-in's own kernel: x = 3 · pixels."""

    raw = (TensorSpec("pixels", "float32", (4, 8)),)
    makes = (TensorSpec("x", "float32", (4, 8)),)

    def __init__(self, execution: StandIn) -> None:
        self.execution = execution
        self.loaded = 0

    def load(self, arena: Arena, stream: Stream) -> None:
        self.loaded += 1

    def work(self, raw: Mapping[str, int], made: Mapping[str, int]) -> Work:
        pointers = ctypes.c_ulonglong(raw["pixels"]), ctypes.c_ulonglong(made["x"])
        numbers = ctypes.c_float(3), ctypes.c_float(0), ctypes.c_uint(32)
        return lambda stream: self.execution._kernels.launch(stream.handle, "affine", 32, *pointers, *numbers)


@MODES
@GRAPHS
@pytest.mark.parametrize("rows", [(4, 4, 4), (1, 2, 6)], ids=["fixed", "varying"])
def test_kernels_make_inputs_of_raw_frames(fakecuda: FakeCudaHandle, zero_copy: bool, graphs: bool, rows) -> None:
    bench = Bench(fakecuda, engine={"inputs": ("x", "mask"), "rows": rows})
    prepare = Triple(bench.executions[0])
    lane = CudaLane(bench.cuda, bench.executions, INFO, zero_copy=zero_copy, graphs=graphs, prepare=prepare)
    assert [spec.name for spec in lane.specs.inputs] == ["pixels", "mask"]
    with Ring(lane, fill=bench.fill) as ring:
        assert prepare.loaded == 1
        for outcome in ring.run(frames(20, names=("pixels", "mask"))):
            given = feeds(outcome.frame, 4, ("pixels", "mask"))
            want = bench.executions[0].expected({"x": np.float32(3) * given["pixels"], "mask": given["mask"]})
            for name in want:
                np.testing.assert_array_equal(outcome.outputs[name], want[name])
        assert lane.graphs.startswith("replayed" if graphs else "not used")
    del lane, ring, prepare
    bench.close()


# ---------------------------------------------------------------- faults


@MODES
@GRAPHS
def test_a_fault_at_any_call_fails_frames_and_no_answer_is_wrong(
    fakecuda: FakeCudaHandle, zero_copy: bool, graphs: bool
) -> None:
    calls = ("cuEventRecord", "cuStreamWaitEvent", "cuEventSynchronize", "cuLaunchKernel", "cuGraphLaunch")
    calls += () if zero_copy else ("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2")
    with Bench(fakecuda, zero_copy=zero_copy, graphs=graphs) as bench:
        done, right = 0, 0
        for call in calls:
            before = fakecuda.calls(call)
            assert bench.run(6, done) == [True] * 6
            done, right = done + 6, right + 6
            if fakecuda.calls(call) == before:  # e.g. no kernel is launched by itself where graphs are
                continue
            for nth in range(1, 13):
                fakecuda.fail(call, INVALID_VALUE, nth=nth)
                outcomes = bench.run(12, done)
                assert outcomes.count(False) <= 1
                done, right = done + 12, right + outcomes.count(True)
            counts = bench.ring.counts()
            assert counts.failed > 0
            assert (counts.answered, counts.answered + counts.failed) == (right, done)  # no answer was wrong
            assert (counts.unaccounted, counts.in_flight) == (0, 0)
        assert bench.lane.poisoned is None


@pytest.mark.parametrize("kind", ["copy-in", "kernel", "copy-out"])
def test_after_a_sticky_error_every_frame_fails_with_its_reason(fakecuda: FakeCudaHandle, kind) -> None:
    with Bench(fakecuda) as bench:
        assert all(bench.run(5))
        fakecuda.fail_op(kind, ILLEGAL_ADDRESS, nth=4)
        outcomes = list(bench.ring.run(frames(30)))
        kinds = [type(outcome) for outcome in outcomes]
        assert len(outcomes) == 30
        broke = kinds.index(Failure)
        assert set(kinds[broke:]) == {Failure}
        assert all(isinstance(outcome.error, GpuError) for outcome in outcomes[broke:])
        assert all(outcome.error.sticky for outcome in outcomes[broke + 3 :])
        assert bench.lane.poisoned is not None
        assert bench.lane.poisoned.what == outcomes[-1].error.what
        assert bench.ring.counts().unaccounted == 0
    fakecuda.forgive()


def test_an_execution_that_refuses_once_costs_one_frame(fakecuda: FakeCudaHandle) -> None:
    with Bench(fakecuda, graphs=False, warm_up=False, engine={"fails_at": 5}) as bench:
        assert bench.run(10) == [number != 4 for number in range(10)]


def test_a_refusal_while_recording_costs_no_frame(fakecuda: FakeCudaHandle) -> None:
    with Bench(fakecuda, warm_up=False, engine={"fails_at": 5}) as bench:  # 1 to 3 run, 4 and on are recorded
        assert bench.run(10) == [True] * 10
        assert bench.lane.graphs == "not used: The stand-in refused."


def test_ctrl_c_while_a_frame_is_started_costs_that_frame(fakecuda: FakeCudaHandle, monkeypatch) -> None:
    copy_out, calls = Stream.copy_out, []

    def interrupted(self, array, address) -> None:
        calls.append(address)
        if len(calls) == 2:
            raise KeyboardInterrupt
        copy_out(self, array, address)

    fakecuda.delay(us=300)
    with Bench(fakecuda) as bench:
        monkeypatch.setattr(Stream, "copy_out", interrupted)
        bench.ring.submit(next(frames(1)))
        with pytest.raises(KeyboardInterrupt):
            bench.ring.submit(next(frames(1, 1)))
        bench.ring.submit(next(frames(1, 2)))
        outcomes = [bench.ring.collect() for _ in range(3)]
        assert [isinstance(outcome, Failure) for outcome in outcomes] == [False, True, False]
        assert bench.is_right(outcomes[0])
        assert bench.is_right(outcomes[2])


def test_ctrl_c_while_a_frame_is_waited_for_loses_nothing(fakecuda: FakeCudaHandle, monkeypatch) -> None:
    synchronize, calls = Event.synchronize, []

    def interrupted(self) -> None:
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        synchronize(self)

    with Bench(fakecuda) as bench:
        monkeypatch.setattr(Event, "synchronize", interrupted)
        bench.ring.submit(next(frames(1)))
        with pytest.raises(KeyboardInterrupt):
            bench.ring.collect()
        assert bench.ring.counts().in_flight == 1
        assert bench.is_right(bench.ring.collect())
    calls.clear()


def test_threads_and_coroutines_share_one_lane(fakecuda: FakeCudaHandle) -> None:
    """Each thread pushes the context by itself and leaves nothing behind: pycuda would end the process."""
    seen: list[bool] = []

    async def ask(ring: Ring) -> None:
        for number in range(20):
            answer = await ring.ainfer(feeds(number))
            seen.append(bool((answer.outputs["y"] == 2 * feeds(number)["x"] + 1).all()))

    with Bench(fakecuda, slots=4, contexts=2) as bench:
        stream = bench.ring.start(frames(40), lambda outcome: seen.append(bench.is_right(outcome)))
        threads = [
            threading.Thread(target=lambda: seen.extend(bench.run(40))),
            threading.Thread(target=lambda: asyncio.run(ask(bench.ring))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stream.wait()
        assert seen == [True] * 100
        del stream, threads, thread


def test_latest_on_the_device(fakecuda: FakeCudaHandle) -> None:
    fakecuda.delay(us=200)
    with Bench(fakecuda, ring={"policy": LATEST}) as bench:
        submitted = 0
        for number in range(50):
            bench.ring.submit(Frame(number, feeds(number), 0))
            submitted += 1
        seen = []
        while bench.ring.counts().in_flight:
            with bench.ring.collect() as outcome:
                assert bench.is_right(outcome)
                seen.append(outcome.frame)
        assert seen[-1] == 49
        counts = bench.ring.counts()
        assert counts.answered + counts.dropped["superseded"] == submitted


# ---------------------------------------------------------------- spans


@MODES
def test_stages_lie_in_order_within_the_frame(fakecuda: FakeCudaHandle, zero_copy: bool) -> None:
    fakecuda.delay(us=500)
    names = ["compute"] if zero_copy else ["copy-in", "compute", "copy-out"]
    with Bench(fakecuda, zero_copy=zero_copy, ring={"spans": True}) as bench:
        for outcome in bench.ring.run(frames(10)):
            last = outcome
            if outcome.frame == 0:
                continue
            ends = [span.end_ns for span in outcome.spans]
            assert ends == sorted(ends)
        spans = {span.name: span for span in last.spans}
        assert list(spans) == ["fill", "queue", *names, "read"]
        for name in names:
            assert spans[name].duration_ns > 450_000  # what the shim was told it takes; its clock is the host's own
            assert spans["fill"].end_ns <= spans[name].start_ns <= spans[name].end_ns <= last.answered_ns
        if not zero_copy:
            assert spans["copy-in"].end_ns <= spans["compute"].start_ns
            assert spans["compute"].end_ns <= spans["copy-out"].start_ns


def test_the_devices_clock_is_anchored_anew_and_stays_with_the_hosts(fakecuda: FakeCudaHandle, monkeypatch) -> None:
    monkeypatch.setattr("edgemed.runtime.device_clock.ANCHOR_EVERY_NS", 1_000_000)
    fakecuda.delay(us=300)
    with Bench(fakecuda, ring={"spans": True}) as bench, traced(fakecuda):
        anchors = set()
        for outcome in bench.ring.run(frames(60)):
            assert bench.is_right(outcome)
            anchors.update(slot.anchor for slot in bench.lane._slots)
        assert len(anchors) > 5
        assert all(each.uncertainty_ns >= 0 for each in anchors)


def test_without_spans_no_event_keeps_time(fakecuda: FakeCudaHandle) -> None:
    with Bench(fakecuda) as bench, traced(fakecuda):
        assert all(bench.run(9))
        names = [each.name for each in fakecuda.trace()]
        assert names.count("cuEventRecord") == 3 * 9
        assert not any("Elapsed" in name for name in names)
