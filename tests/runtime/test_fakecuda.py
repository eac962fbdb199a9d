"""The host-only libcuda finds what it is there to find, and nothing in what is right."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pytest

from edgemed.base.errors import GpuError
from edgemed.runtime import driver
from edgemed.runtime.arena import Arena
from edgemed.runtime.cuda import Cuda, Graph, open_cuda
from tests.runtime.fakecuda import child, fetch, handle
from tests.runtime.fakecuda.handle import FakeCudaHandle, listing
from tests.runtime.standin import SOURCE

COUNT = 4096


@dataclass
class Pipe:
    """One slot: in on one stream, computed on a second, out on a third; as a ring does it."""

    fake: FakeCudaHandle
    cuda: Cuda
    arena: Arena

    def __post_init__(self) -> None:
        self.streams = [self.arena.stream() for _ in range(3)]
        self.copied, self.computed, self.done = (self.arena.event() for _ in range(3))
        self.x, self.y = self.arena.pinned(COUNT, np.float32), self.arena.pinned(COUNT, np.float32)
        self.dx, self.dy = self.arena.device(4 * COUNT), self.arena.device(4 * COUNT)
        self.kernel = self.arena.module(listing(SOURCE)).kernel("affine", "PPffI")

    def fill(self, value: float) -> None:
        self.fake.writes(self.x)
        self.x[:] = value

    def put(self, *, wait_copied: bool = True, wait_computed: bool = True) -> None:
        into, compute, out = self.streams
        into.copy_in(self.dx, self.x)
        self.copied.record(into)
        if wait_copied:
            compute.wait(self.copied)
        self.kernel.launch(compute, (COUNT // 256,), (256,), self.dx, self.dy, 2.0, 1.0, COUNT)
        self.computed.record(compute)
        if wait_computed:
            out.wait(self.computed)
        out.copy_out(self.y, self.dy)
        self.done.record(out)

    def read(self) -> float:
        self.fake.reads(self.y)
        return float(self.y[-1])


@pytest.fixture
def pipe(fakecuda: FakeCudaHandle) -> Iterator[Pipe]:
    cuda = open_cuda()
    with cuda.arena() as arena, cuda.current():
        made = Pipe(fakecuda, cuda, arena)
        yield made
        made.__dict__.clear()  # pytest keeps it, and views of memory would live on


def expect_race(fake: FakeCudaHandle, *words: str) -> None:
    """Such races were found, and no others."""
    races = fake.take_races()
    assert races
    for race in races:
        assert all(word in race for word in words), race


# --- races: each is found whatever the timing was ---


@pytest.mark.parametrize("us", [0, 300])
def test_right_code_is_not_accused(pipe: Pipe, us: int) -> None:
    pipe.fake.delay(us=us)
    for value in range(20):
        pipe.fill(value)
        pipe.put()
        pipe.done.synchronize()
        assert pipe.read() == 2 * value + 1
    assert pipe.fake.races() == []


@pytest.mark.parametrize("us", [0, 300])
@pytest.mark.parametrize(
    ("missing", "words"), [("wait_copied", ("copy-in", "kernel")), ("wait_computed", ("kernel", "copy-out"))]
)
def test_a_missing_wait_is_a_race(pipe: Pipe, us: int, missing: str, words: tuple[str, str]) -> None:
    pipe.fake.delay(us=us)
    pipe.fill(1)
    pipe.put(**{missing: False})
    pipe.cuda.synchronize()
    expect_race(pipe.fake, *words)


@pytest.mark.parametrize("us", [0, 300])
def test_filling_a_slot_too_early_is_a_race(pipe: Pipe, us: int) -> None:
    pipe.fake.delay("copy-in", us=us)
    pipe.fill(1)
    pipe.put()
    pipe.fill(2)
    pipe.done.synchronize()
    expect_race(pipe.fake, "copy-in reads", "host writes")


def test_filling_a_slot_too_early_gives_wrong_data(pipe: Pipe) -> None:
    pipe.fake.hang("copy-in")
    pipe.fill(1)
    pipe.put()
    pipe.x[:] = 2
    pipe.fake.release()
    pipe.done.synchronize()
    assert pipe.read() == 5


@pytest.mark.parametrize("us", [0, 300])
def test_reading_an_answer_too_early_is_a_race(pipe: Pipe, us: int) -> None:
    pipe.fake.delay("copy-out", us=us)
    pipe.fill(1)
    pipe.put()
    pipe.read()
    pipe.done.synchronize()
    expect_race(pipe.fake, "copy-out writes", "host reads")


def test_the_next_frame_must_wait_for_the_computation(pipe: Pipe) -> None:
    pipe.fill(1)
    pipe.put()
    pipe.streams[0].copy_in(pipe.dx, pipe.x)  # over what the kernel may still read
    pipe.cuda.synchronize()
    expect_race(pipe.fake, "kernel reads", "copy-in writes")


def test_a_query_that_said_done_orders(pipe: Pipe) -> None:
    pipe.fill(1)
    pipe.put()
    while not pipe.done.done():
        pass
    assert pipe.read() == 3


def test_memory_used_in_place_is_watched_too(pipe: Pipe) -> None:
    x, x_address = pipe.arena.mapped(COUNT, np.float32)
    compute = pipe.streams[1]
    for early in (False, True):
        pipe.fake.writes(x)
        pipe.kernel.launch(compute, (16,), (256,), x_address, pipe.dy, 2.0, 1.0, COUNT)
        if not early:
            compute.synchronize()
            assert pipe.fake.races() == []
        pipe.fake.writes(x)
        compute.synchronize()
    expect_race(pipe.fake, "kernel reads", "host writes")


def test_a_graph_is_watched_from_outside(pipe: Pipe) -> None:
    stream = pipe.streams[0]
    graph = pipe.arena.capture(stream, lambda: stream.copy_in(pipe.dx, pipe.x))
    assert isinstance(graph, Graph)
    pipe.fill(1)
    graph.launch(stream.handle)
    pipe.fill(2)
    stream.synchronize()
    expect_race(pipe.fake, "copy-in reads", "host writes")


# --- memory ---


def test_device_memory_cannot_be_touched_by_the_host() -> None:
    done = child.run("""
        import ctypes
        arena = open_cuda().arena()
        ctypes.c_ubyte.from_address(arena.device(10)).value
    """)
    assert done.returncode == -11  # SIGSEGV


@pytest.mark.parametrize(
    "wrong",
    [
        lambda p: p.streams[0].copy_in(p.dx + 1, p.x),  # beyond the end
        lambda p: p.streams[0].copy_in(p.x.ctypes.data + 4, p.x),
        lambda p: p.streams[0].copy_in(p.dx - 4096, p.x),
        lambda p: p.streams[0].copy_in(0, p.x),
        lambda p: p.streams[0].copy_out(p.y, p.dy + 1),
        lambda p: p.streams[0].fill(p.dx, 0, 4 * COUNT + 1),
        lambda p: p.streams[0].copy(p.dx, p.dy, 4 * COUNT + 1),
        lambda p: p.cuda.native.memcpy_htod(p.dx + 1, p.x),
        lambda p: p.kernel.launch(p.streams[0], (1,), (2048,), p.dx, p.dy, 1.0, 1.0, 1),
    ],
)
def test_what_is_out_of_range_is_refused(pipe: Pipe, wrong: Callable[[Pipe], object]) -> None:
    with pytest.raises((GpuError, pipe.cuda.native.Error), match=r"invalid argument"):
        wrong(pipe)


def test_a_kernel_that_goes_astray_poisons(pipe: Pipe) -> None:
    pipe.kernel.launch(pipe.streams[0], (1,), (256,), 0xDEAD000, pipe.dy, 1.0, 1.0, 16)
    with pytest.raises(GpuError, match="CUDA_ERROR_ILLEGAL_ADDRESS") as caught:
        pipe.streams[0].synchronize()
    assert caught.value.sticky
    pipe.arena.close()
    pipe.fake.forgive()


def test_freed_twice_is_refused(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    with cuda.current():
        allocation = cuda.native.mem_alloc(10)
        again = int(allocation)
        allocation.free()
        with pytest.raises(GpuError, match="CUDA_ERROR_INVALID_VALUE"):
            driver.call("cuMemFree_v2", ctypes.c_ulonglong(again))


def test_pageable_memory_is_staged(pipe: Pipe) -> None:
    stream, array = pipe.streams[0], np.full(COUNT, 5, np.float32)
    pipe.fake.hang("copy-in")
    stream.copy_in(pipe.dx, array)
    array[:] = 6  # allowed: the driver has its own copy
    pipe.fake.release()
    back = np.zeros(COUNT, np.float32)
    stream.copy_out(back, pipe.dx)  # returns when done
    assert (back == 5).all()


def test_new_memory_is_not_zero(pipe: Pipe) -> None:
    back = np.zeros(COUNT, np.float32)
    pipe.streams[0].copy_out(back, pipe.dx)
    assert (back.view(np.uint8) == 0xCD).all()


# --- order ---


def test_blocking_streams_and_the_null_stream_wait_for_each_other(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    native = cuda.native
    with cuda.arena() as arena, cuda.current():
        free, blocking = arena.stream(), native.Stream()
        there, back = arena.device(COUNT), arena.pinned(COUNT, np.uint8)
        fakecuda.delay("fill", us=500)
        native.memset_d8_async(there, 1, COUNT, blocking)
        native.memset_d8(there, 2, COUNT)
        native.memcpy_dtoh_async(back, there, blocking)
        blocking.synchronize()
        assert (back == 2).all()
        assert fakecuda.races() == []
        native.memset_d8(there, 3, COUNT)
        free.copy_out(back, there)  # of a stream that does not wait
        free.synchronize()
        cuda.synchronize()
        del blocking
    expect_race(fakecuda, "fill writes", "copy-out reads")


def test_streams_overlap(pipe: Pipe) -> None:
    pipe.fake.set(trace=1)
    pipe.fake.delay(us=20_000)
    for stream, there in zip(pipe.streams, (pipe.dx, pipe.dy, pipe.dy), strict=True):
        stream.fill(there, 0, 4)
    pipe.cuda.synchronize()
    one, two, _ = (traced for traced in pipe.fake.trace() if traced.name == "fill")
    assert max(one.start_ns, two.start_ns) < min(one.end_ns, two.end_ns)
    assert one.who != two.who
    expect_race(pipe.fake, "fill writes", "fill writes")  # two of them wrote the same


def test_delays_are_by_kind_and_bytes(pipe: Pipe) -> None:
    pipe.fake.set(trace=1)
    pipe.fake.delay("copy-in", us=1000, mbps=2)  # 16,384 bytes at 2 MB/s: 8.192 ms
    pipe.fill(1)
    pipe.put()
    pipe.done.synchronize()
    taken = {traced.name: traced.end_ns - traced.start_ns for traced in pipe.fake.trace()}
    assert taken["copy-in"] >= 9_192_000
    assert pipe.read() == 3


# --- faults ---


def test_the_nth_call_fails_once(pipe: Pipe) -> None:
    pipe.fake.fail("cuEventRecord", 1, nth=3)
    for attempt in range(1, 6):
        with pytest.raises(GpuError) if attempt == 3 else nullcontext():
            pipe.done.record(pipe.streams[0])


def test_a_fault_of_the_device_shows_later_and_stays(pipe: Pipe) -> None:
    pipe.fake.fail_op("kernel", 719, nth=2)
    pipe.fill(1)
    pipe.put()
    pipe.done.synchronize()
    assert pipe.read() == 3
    pipe.fake.hang("copy-in")
    pipe.fill(2)
    pipe.put()  # nothing has happened yet
    pipe.fake.release()
    for use in (pipe.done.synchronize, pipe.done.done, pipe.streams[0].synchronize, pipe.put):
        with pytest.raises(GpuError, match="CUDA_ERROR_LAUNCH_FAILED"):
            use()
    assert pipe.y[0] == 3  # nothing came after the fault
    pipe.arena.close()
    pipe.fake.forgive()


def test_a_hang_ends_when_released(pipe: Pipe) -> None:
    pipe.fake.hang("kernel")
    pipe.fill(1)
    pipe.put()
    assert not pipe.done.done()
    pipe.fake.release()
    pipe.done.synchronize()
    assert pipe.read() == 3


def test_names_it_does_not_know_are_refused(fakecuda: FakeCudaHandle) -> None:
    for wrong in (
        lambda: fakecuda.set(nonsense=1),
        lambda: fakecuda.fail_op("nonsense", 1),  # type: ignore[arg-type]
        lambda: fakecuda.hang("nonsense"),  # type: ignore[arg-type]
        lambda: fakecuda.fail("cuNonsense", 1),
    ):
        with pytest.raises(ValueError, match="does not take"):
            wrong()


def test_children_are_steered_by_their_environment() -> None:
    code = """
        cuda = open_cuda()
        print(cuda.facts.compute_capability, cuda.facts.integrated)
        arena = cuda.arena()
        s, d = arena.stream(), arena.device(8)
        try:
            arena.event()
        except GpuError as error:
            print(error.what)
        try:
            with cuda.current():
                s.fill(d, 0, 8)
                s.synchronize()
        except GpuError as error:
            print(error.what)
    """
    steered = handle.environment({"sm": 72, "integrated": 1}, fail="cuEventCreate:1:1", ops="fill:1:700")
    facts, call, op = child.quiet(code, env=steered).splitlines()
    assert facts == "7.2 True"
    assert "cuEventCreate: CUDA_ERROR_INVALID_VALUE" in call
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in op


# --- the whole of it ---


def test_functions_that_it_lacks_say_so(pipe: Pipe) -> None:
    with pytest.raises(pipe.cuda.native.Error, match="cuIpcGetEventHandle failed: operation not supported"):
        pipe.cuda.native.Event().ipc_handle()


def test_the_cache_is_by_content(tmp_path: object) -> None:
    first = fetch.ensure()
    assert first == fetch.ensure()
    assert first.library.parent.name.startswith("shim-")
    assert fetch.digest("a", "b") != fetch.digest("ab", "")
