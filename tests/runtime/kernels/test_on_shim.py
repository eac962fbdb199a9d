"""The real way to the device, on the host-only driver: PTX loaded and launched by pycuda gives the recipe's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgemed.base.errors import GpuError
from edgemed.recipe.apply import Preprocessor
from edgemed.runtime.cuda import Graph, open_cuda
from edgemed.runtime.kernels.beside import Beside, beside
from edgemed.runtime.kernels.device import KernelPrepare
from edgemed.runtime.kernels.plan import KernelPlan, Refusal
from edgemed.runtime.kernels.raw import RawFormat
from tests.runtime.fakecuda.handle import FakeCudaHandle
from tests.runtime.kernels import twin
from tests.runtime.kernels.compare import HALF, planned, recipe, spec_of

RNG = np.random.default_rng(9)
CASES: dict[str, tuple[RawFormat, list[dict[str, Any]], int, str]] = {
    "ct": (RawFormat(64, 72, "int16"), [{"op": "window", "center": 40, "width": 400}, {"op": "resize"}], 1, "float32"),
    "camera": (RawFormat(60, 80, pixels="nv12"), [{"op": "range", "of": "type"}, {"op": "resize"}], 3, "float16"),
    "as it is": (RawFormat(48, 40, pixels="bgr"), [{"op": "scale", "divisor": 255}], 3, "float32"),
}


def planned_case(name: str) -> tuple[KernelPlan, Preprocessor]:
    raw, steps, channels, dtype = CASES[name]
    spec = spec_of(48, 40, channels, "NCHW", dtype)
    return planned(recipe(*steps), spec, "NCHW", raw), Preprocessor(recipe(*steps), spec, "NCHW")


def check(plan: KernelPlan, make: Preprocessor, frame: np.ndarray, found: np.ndarray) -> None:
    expected = make(plan.raw.image(frame)).astype(np.float64)
    allowed = plan.tolerance + (HALF * np.abs(expected) if plan.dtype == "float16" else 0)
    assert (np.abs(found - expected) <= allowed).all()


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_frames_are_prepared_on_the_compute_stream(fakecuda: FakeCudaHandle, name: str, integrated: bool):
    """Frame after frame, copied in or mapped; nothing is allocated once the work is bound."""
    fakecuda.set(integrated=int(integrated), trace=1)
    fakecuda.kernels(twin.for_shim())
    plan, make = planned_case(name)
    frames = [RNG.integers(-2000, 3000, plan.raw.shape).astype(plan.raw.dtype) for _ in range(3)]
    cuda = open_cuda()
    with cuda.arena() as arena:
        stream = arena.stream()
        prepare = KernelPrepare(plan)
        with cuda.current():
            prepare.load(arena, stream)
        raw, made = prepare.raw[0], prepare.makes[0]
        assert raw.name == "pixels"
        if integrated:
            host, source = arena.mapped(raw.shape, raw.dtype)
        else:
            host, source = arena.pinned(raw.shape, raw.dtype), arena.device(frames[0].nbytes)
        sample, target = arena.pinned(made.shape, made.dtype), arena.device(plan.nbytes)
        work = prepare.work({"pixels": source}, {"x": target})
        before = {name: fakecuda.calls(name) for name in ("cuMemAlloc_v2", "cuMemHostAlloc")}
        for frame in frames:
            host[...] = frame
            fakecuda.writes(host)
            with cuda.current():
                if not integrated:
                    stream.copy_in(source, host)
                work(stream)
                stream.copy_out(sample, target)
                stream.synchronize()
            fakecuda.reads(sample)
            check(plan, make, frame, sample)
        assert {name: fakecuda.calls(name) for name in before} == before


def test_a_launch_can_be_captured_and_replayed(fakecuda: FakeCudaHandle):
    fakecuda.kernels(twin.for_shim())
    plan, make = planned_case("ct")
    cuda = open_cuda()
    with cuda.arena() as arena:
        stream, prepare = arena.stream(), KernelPrepare(plan)
        with cuda.current():
            prepare.load(arena, stream)
        host, source = arena.pinned(plan.raw.shape, plan.raw.dtype), arena.device(2 * 64 * 72)
        sample, target = arena.pinned(plan.shape, plan.dtype), arena.device(plan.nbytes)
        work = prepare.work({"pixels": source}, {"x": target})

        def whole() -> None:
            stream.copy_in(source, host)
            work(stream)
            stream.copy_out(sample, target)

        graph = arena.capture(stream, whole)
        assert isinstance(graph, Graph)
        for _ in range(2):
            host[...] = RNG.integers(-2000, 3000, host.shape)
            fakecuda.writes(host)
            with cuda.current():
                graph.launch(stream.handle)
                stream.synchronize()
            fakecuda.reads(sample)
            check(plan, make, host, sample)


def test_memory_that_is_too_small_is_an_error_of_the_device(fakecuda: FakeCudaHandle):
    fakecuda.kernels(twin.for_shim())
    plan, _ = planned_case("ct")
    cuda = open_cuda()
    with cuda.arena() as arena:
        stream, prepare = arena.stream(), KernelPrepare(plan)
        with cuda.current():
            prepare.load(arena, stream)
        work = prepare.work({"pixels": arena.device(2 * 64 * 72 - 1)}, {"x": arena.device(plan.nbytes)})
        with cuda.current():
            work(stream)
            with pytest.raises(GpuError, match="illegal"):
                stream.synchronize()
    fakecuda.forgive()


def test_work_needs_the_kernels_loaded():
    with pytest.raises(RuntimeError, match="loaded before"):
        KernelPrepare(planned_case("ct")[0]).work({"pixels": 1}, {"x": 2})


def test_both_ways_side_by_side(fakecuda: FakeCudaHandle):
    fakecuda.kernels(twin.for_shim())
    fakecuda.delay("kernel", us=2000)
    raw, steps, channels, dtype = CASES["ct"]
    frame = RNG.integers(-2000, 3000, raw.shape).astype(raw.dtype)
    spec = spec_of(48, 40, channels, "NCHW", dtype)
    found = beside(open_cuda(), recipe(*steps), spec, "NCHW", raw, frame, repeats=3)
    assert isinstance(found, Beside)
    assert found.difference <= found.plan.tolerance / max(map(abs, found.plan.bounds))
    assert len(found.cpu_ns) == len(found.kernel_ns) == len(found.copy_in_ns) == 3
    assert min(found.kernel_ns) >= 1_900_000  # events are exact to half a microsecond or so
    np.testing.assert_array_equal(found.expected, Preprocessor(recipe(*steps), spec, "NCHW")(frame))
    refusal = beside(open_cuda(), recipe({"op": "median"}), spec, "NCHW", raw, frame)
    assert isinstance(refusal, Refusal)
