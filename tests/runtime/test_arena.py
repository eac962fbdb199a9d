"""What an arena owns is freed once, in the right context, whatever thread lets go of it."""

from __future__ import annotations

import gc
import logging
import signal
import threading

import numpy as np
import pytest

from edgemed.base.errors import GpuError, GpuMemoryError
from edgemed.runtime.arena import Arena
from edgemed.runtime.cuda import Graph, open_cuda
from tests.runtime.fakecuda.handle import FakeCudaHandle, listing
from tests.runtime.standin import SOURCE

AFFINE = "PPffI"


def furnish(arena: Arena) -> None:
    """One of everything."""
    stream = arena.stream()
    arena.event(timing=True)
    arena.handle_event()
    arena.device(1000)
    arena.pinned((3, 5), np.float32)
    arena.mapped(7, np.uint16)
    arena.registered(np.zeros(100, np.uint8))
    arena.module(listing(SOURCE)).kernel("affine", AFFINE)
    there, here = arena.device(16), arena.pinned(16, np.uint8)
    assert isinstance(arena.capture(stream, lambda: stream.copy_in(there, here)), Graph)


def test_all_of_it_is_alive_until_closed(fakecuda: FakeCudaHandle) -> None:
    arena = open_cuda().arena()
    furnish(arena)
    live = fakecuda.live()
    assert live == {
        "device": 1016,
        "pinned": 3 * 5 * 4 + 7 * 2 + 16,
        "registered": 100,
        "streams": 1,
        "events": 2,
        "modules": 1,
        "execs": 1,
    }
    arena.close()
    assert not fakecuda.live()
    arena.close()
    assert arena.closed


def test_it_may_be_made_and_closed_in_different_threads(fakecuda: FakeCudaHandle) -> None:
    made: list[Arena] = []

    def make() -> None:
        made.append(open_cuda().arena())
        furnish(made[0])

    for work in (make, lambda: made[0].close()):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert not fakecuda.live()


def test_closing_in_many_threads_frees_once(fakecuda: FakeCudaHandle) -> None:
    arena = open_cuda().arena()
    furnish(arena)
    threads = [threading.Thread(target=arena.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not fakecuda.live()
    assert fakecuda.calls("cuMemFree") == 2


def test_one_that_is_dropped_is_closed_and_says_so(fakecuda: FakeCudaHandle, caplog: pytest.LogCaptureFixture) -> None:
    def use() -> None:
        arena = open_cuda().arena()
        furnish(arena)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    gc.collect()
    assert not fakecuda.live()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "dropped without being closed" in caplog.text


def test_closing_waits_for_work_that_uses_it(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    arena = cuda.arena()
    stream, here, there = arena.stream(), arena.pinned(1000, np.uint8), arena.device(1000)
    fakecuda.hang("copy-out")
    with cuda.current():
        stream.fill(there, 9, 1000)
        stream.copy_out(here, there)
    closing = threading.Thread(target=arena.close)
    closing.start()
    closing.join(0.05)
    # still waiting, and without the GIL, or this thread would not run
    assert closing.is_alive()
    assert fakecuda.live()["device"] == 1000
    fakecuda.release()
    closing.join()
    assert (here == 9).all()


def test_closing_can_be_interrupted_and_tried_again(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    arena = cuda.arena()
    stream, there = arena.stream(), arena.device(1000)
    fakecuda.hang("fill")
    with cuda.current():
        stream.fill(there, 9, 1000)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            arena.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not arena.closed
    fakecuda.release()
    arena.close()
    assert not fakecuda.live()


def test_what_cannot_be_freed_is_said(fakecuda: FakeCudaHandle, caplog: pytest.LogCaptureFixture) -> None:
    arena = open_cuda().arena()
    furnish(arena)
    fakecuda.fail("cuEventDestroy", 1)
    arena.close()
    assert "cuEventDestroy_v2: CUDA_ERROR_INVALID_VALUE" in caplog.text
    assert fakecuda.live() == {"events": 1}  # all else is gone
    fakecuda.forgive()


def test_closing_where_the_context_cannot_be_entered(
    fakecuda: FakeCudaHandle, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    arena = open_cuda().arena()
    furnish(arena)
    fakecuda.set(context_fault=201)
    arena.close()
    gc.collect()
    assert "could not be freed" in caplog.text
    assert capfd.readouterr().err == ""  # pycuda's destructors would have spoken here
    fakecuda.forgive()


def test_views_outlive_it(fakecuda: FakeCudaHandle) -> None:
    arena = open_cuda().arena()
    array = arena.pinned((4, 8), np.float32)
    array[:] = np.arange(32).reshape(4, 8)
    view = array[1:, ::2].T
    del array
    arena.close()
    assert fakecuda.live() == {"pinned": 128}
    assert view[0].tolist() == [8.0, 16.0, 24.0]
    held = [view]
    del view
    # the last look at it ends in a thread that knows nothing of CUDA
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert not fakecuda.live()


def test_used_after_closing_it_says_so(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    arena = cuda.arena()
    stream, event, handle_event = arena.stream(), arena.event(), arena.handle_event()
    module = arena.module(listing(SOURCE))
    kernel = module.kernel("burn", "Q")
    arena.close()
    with cuda.current():
        for use in (stream.synchronize, lambda: kernel.launch(stream, (1,), (1,), 1), event.done, arena.stream):
            with pytest.raises(RuntimeError, match="closed"):
                use()
        with pytest.raises(GpuError, match="INVALID_HANDLE"):
            handle_event.done()


@pytest.mark.parametrize("shape", [5, (5,), (0, 3), (), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "int64"])
def test_host_arrays_are_ordinary_arrays(fakecuda: FakeCudaHandle, shape: int | tuple[int, ...], dtype: str) -> None:
    with open_cuda().arena() as arena:
        for array in (arena.pinned(shape, dtype), arena.mapped(shape, dtype)[0]):
            assert array.shape == np.zeros(shape).shape
            assert array.dtype == dtype
            assert array.flags.c_contiguous
            assert array.flags.writeable
            assert not array.any()


def test_mapped_memory_is_used_in_place(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    with cuda.arena() as arena:
        stream = arena.stream()
        x, x_address = arena.mapped(100, np.float32)
        y, y_address = arena.mapped(100, np.float32)
        kernel = arena.module(listing(SOURCE)).kernel("affine", AFFINE)
        x[:] = np.arange(100)
        with cuda.current():
            kernel.launch(stream, (1,), (128,), x_address, y_address, 2.0, 1.0, 100)
            stream.synchronize()
        np.testing.assert_array_equal(y, 2 * x + 1)
        assert fakecuda.calls("cuMemcpyHtoDAsync") + fakecuda.calls("cuMemcpyDtoHAsync") == 0


def test_memory_that_cannot_be_mapped_is_refused(fakecuda: FakeCudaHandle) -> None:
    fakecuda.set(map_host=0)
    with open_cuda().arena() as arena, pytest.raises(GpuError, match="cuMemHostGetDevicePointer"):
        arena.mapped(10, np.uint8)


def test_ordinary_memory_can_be_pinned_after_the_fact(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    with cuda.arena() as arena:
        stream, there, back = arena.stream(), arena.device(1000), arena.pinned(1000, np.uint8)
        array = np.arange(1000).astype(np.uint8)
        assert arena.registered(array)
        with pytest.raises(GpuError, match="ALREADY_REGISTERED"):
            arena.registered(array)
        with cuda.current():
            stream.copy_in(there, array)
            stream.copy_out(back, there)
            stream.synchronize()
        np.testing.assert_array_equal(back, array)
        for pieces in (array[::2], array[:0]):
            with pytest.raises(ValueError, match="one piece"):
                arena.registered(pieces)
    fakecuda.set(register_host=0)
    with open_cuda().arena() as arena, pytest.raises(GpuError, match="NOT_SUPPORTED"):
        arena.registered(array)


def test_too_much_memory_is_refused_and_the_process_is_sound(fakecuda: FakeCudaHandle) -> None:
    fakecuda.set(memory=1 << 20, integrated=1)
    cuda = open_cuda()
    with cuda.arena() as arena:
        arena.device(1 << 19)
        for ask in (arena.device, lambda n: arena.pinned(n, np.uint8), lambda n: arena.mapped(n, np.uint8)):
            with pytest.raises(GpuMemoryError, match="CUDA_ERROR_OUT_OF_MEMORY") as caught:
                ask((1 << 19) + 1)
            assert not caught.value.sticky
        assert arena.device(1 << 18)
        assert cuda.usable


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("cuStreamCreate", lambda arena: arena.stream()),
        ("cuEventCreate", lambda arena: arena.event()),
        ("cuEventCreate", lambda arena: arena.handle_event()),
        ("cuMemAlloc", lambda arena: arena.device(10)),
        ("cuMemHostAlloc", lambda arena: arena.pinned(10, np.uint8)),
        ("cuMemHostRegister", lambda arena: arena.registered(np.zeros(10))),
    ],
)
def test_what_the_driver_refuses_leaves_nothing(fakecuda: FakeCudaHandle, name: str, make: object) -> None:
    fakecuda.fail(name, 1)
    with open_cuda().arena() as arena:
        with pytest.raises(GpuError, match=f"{name}.*CUDA_ERROR_INVALID_VALUE"):
            make(arena)  # type: ignore[operator]
        assert not fakecuda.live()
        make(arena)  # type: ignore[operator]
        assert fakecuda.live()


def test_a_frame_allocates_nothing(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    with cuda.arena() as arena:
        one, two, event, timed = arena.stream(), arena.stream(), arena.event(), arena.event(timing=True)
        here, there, back = arena.pinned(64, np.float32), arena.device(256), arena.pinned(64, np.float32)
        kernel = arena.module(listing(SOURCE)).kernel("affine", AFFINE)
        graph = arena.capture(one, lambda: one.copy_in(there, here))
        assert isinstance(graph, Graph)
        fakecuda.set(trace=1)
        for frame in range(20):
            with cuda.current():
                here[:] = frame
                one.copy_in(there, here)
                graph.launch(one.handle)
                kernel.launch(one, (1,), (64,), there, there, 2.0, 1.0, 64)
                event.record(one)
                two.wait(event)
                two.copy_out(back, there)
                timed.record(two)
                timed.synchronize()
            assert (back == 2 * frame + 1).all()
        names = {traced.name.removesuffix("_v2") for traced in fakecuda.trace()}
    assert names == {
        "cuMemcpyHtoDAsync",
        "cuGraphLaunch",
        "cuLaunchKernel",
        "cuEventRecord",
        "cuStreamWaitEvent",
        "cuMemcpyDtoHAsync",
        "cuEventSynchronize",
        "copy-in",
        "kernel",
        "copy-out",
    }


def test_events_time_the_device(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    with cuda.arena() as arena:
        stream, start, end, plain = arena.stream(), arena.event(timing=True), arena.event(timing=True), arena.event()
        there = arena.device(10)
        fakecuda.delay("fill", us=2000)
        with cuda.current():
            start.record(stream)
            stream.fill(there, 0, 10)
            end.record(stream)
            end.synchronize()
            assert end.elapsed_ns(start) >= 2_000_000
            plain.record(stream)
            plain.synchronize()
            with pytest.raises(GpuError, match="INVALID_HANDLE"):
                plain.elapsed_ns(start)


def test_queries_do_not_wait(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    with cuda.arena() as arena:
        stream, event, handle_event, there = arena.stream(), arena.event(), arena.handle_event(), arena.device(10)
        fakecuda.hang("fill")
        with cuda.current():
            assert event.done()
            assert handle_event.done()
            stream.fill(there, 1, 10)
            event.record(stream)
            handle_event.record(stream.handle)
            assert not stream.done()
            assert not event.done()
            assert not handle_event.done()
            fakecuda.release()
            handle_event.synchronize()
            event.synchronize()
            assert event.done()


def test_copies_within_the_device(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    with cuda.arena() as arena:
        one, two = arena.stream(), arena.stream()
        here, there, back = arena.device(100), arena.device(100), arena.pinned(100, np.uint8)
        event = arena.handle_event()
        with cuda.current():
            one.fill(here, 7, 100)
            one.copy(there, here, 100)
            event.record(one.handle)
            event.wait_on(two.handle)
            two.copy_out(back, there)
            two.synchronize()
        assert (back == 7).all()


def test_a_driver_that_cannot_load_an_image(fakecuda: FakeCudaHandle) -> None:
    with open_cuda().arena() as arena:
        fakecuda.fail("cuModuleLoadDataEx", 1)
        # what pycuda adds to it is memory that nobody wrote: now and then that is text
        with pytest.raises(GpuError, match=r"cuModuleLoadDataEx: CUDA_ERROR_INVALID_VALUE|could not load an image"):
            arena.module(listing(SOURCE))
        assert not fakecuda.live()


def test_images_and_kernels_that_are_none(fakecuda: FakeCudaHandle) -> None:
    with open_cuda().arena() as arena:
        with pytest.raises(GpuError, match=r"CUDA_ERROR_INVALID_PTX.*syntax error: not PTX"):
            arena.module(b"not PTX")
        with pytest.raises(GpuError, match="could not load an image"):
            arena.module(b"\xff\xfe")  # the log is no text, and pycuda stumbles over it
        module = arena.module(listing(SOURCE))
        with pytest.raises(GpuError, match="CUDA_ERROR_NOT_FOUND"):
            module.kernel("aff", AFFINE)
