"""Errors of the driver, capture and graphs."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest

from edgemed.base.errors import GpuError, GpuMemoryError
from edgemed.runtime import driver
from edgemed.runtime.arena import Arena
from edgemed.runtime.cuda import Cuda, Graph, NotCaptured, open_cuda
from tests.runtime.fakecuda.handle import FakeCudaHandle, listing
from tests.runtime.standin import SOURCE


class Setting:
    """Two streams, some memory, a kernel; what tests of capture begin with."""

    def __init__(self) -> None:
        self.cuda: Cuda = open_cuda()
        self.arena: Arena = self.cuda.arena()
        self.one, self.two = self.arena.stream(), self.arena.stream()
        self.event, self.joined = self.arena.event(), self.arena.event()
        self.x, self.y = self.arena.pinned(64, np.float32), self.arena.pinned(64, np.float32)
        self.dx, self.dy = self.arena.device(256), self.arena.device(256)
        self.affine = self.arena.module(listing(SOURCE)).kernel("affine", "PPffI")

    def __enter__(self) -> Setting:
        return self

    def __exit__(self, *_: object) -> None:
        self.arena.close()

    def straight(self) -> None:
        """In, compute, out on one stream."""
        self.one.copy_in(self.dx, self.x)
        self.affine.launch(self.one, (1,), (64,), self.dx, self.dy, 2.0, 1.0, 64)
        self.one.copy_out(self.y, self.dy)

    def forked(self, *, joins: bool = True) -> None:
        """In and compute on one stream, out on another."""
        self.one.copy_in(self.dx, self.x)
        self.affine.launch(self.one, (1,), (64,), self.dx, self.dy, 2.0, 1.0, 64)
        self.event.record(self.one)
        self.two.wait(self.event)
        self.two.copy_out(self.y, self.dy)
        self.joined.record(self.two)
        if joins:
            self.one.wait(self.joined)

    def usable(self) -> bool:
        """Whether both streams still do what they are told."""
        self.x[:] = np.arange(64)
        with self.cuda.current():
            self.forked()
            self.one.synchronize()
        return bool((self.y == 2 * self.x + 1).all())


def refusal(setting: Setting, work: Callable[[], object]) -> str:
    captured = setting.arena.capture(setting.one, work)
    assert isinstance(captured, NotCaptured)
    return captured.reason


# --- errors ---


def test_names_and_words_are_the_driver_s(fakecuda: FakeCudaHandle) -> None:
    assert driver.error_name(700) == "CUDA_ERROR_ILLEGAL_ADDRESS"
    assert driver.error_text(700) == "an illegal memory access was encountered"
    assert driver.error_name(12345) == "CUDA error 12345"
    assert driver.error_text(12345) == ""


def test_out_of_memory_is_its_own_kind(fakecuda: FakeCudaHandle) -> None:
    assert type(driver.gpu_error(2, "cuMemAlloc")) is GpuMemoryError
    assert type(driver.gpu_error(1, "cuMemAlloc")) is GpuError


@pytest.mark.parametrize("code", sorted(driver.STICKY))
def test_the_first_sticky_error_is_kept(fakecuda: FakeCudaHandle, code: int) -> None:
    heard: list[GpuError] = []
    driver.health.listeners.append(heard.append)
    driver.gpu_error(1, "cuFirst")
    first = driver.gpu_error(code, "cuSecond")
    second = driver.gpu_error(700, "cuThird")
    assert first.sticky
    assert second.sticky
    assert heard == [first]
    assert driver.health.poison is first


@pytest.mark.parametrize(
    ("said", "expected", "sticky"),
    [
        ("cuMemFree failed: an illegal memory access was encountered", "CUDA_ERROR_ILLEGAL_ADDRESS", True),
        ("cuLaunchKernel failed: invalid argument - too many blocks", "CUDA_ERROR_INVALID_VALUE", False),
        ("function::launch_kernel failed: invalid resource handle", "function::launch_kernel", False),
        ("cuModuleLoadDataEx failed: a PTX JIT compilation failed - line 1:\n - error", "error", False),
        ("cuFuture failed: words of a driver to come", "words of a driver to come", False),
        ("something else", "something else", False),
    ],
)
def test_what_pycuda_says_is_understood(fakecuda: FakeCudaHandle, said: str, expected: str, sticky: bool) -> None:
    error = driver.translate(RuntimeError(said))
    assert expected in error.what
    assert error.hint
    assert error.sticky is sticky


def test_attributes_that_a_driver_lacks_are_0(fakecuda: FakeCudaHandle) -> None:
    open_cuda()
    fakecuda.set(integrated=1)
    assert driver.attribute(18, 0) == 1  # CU_DEVICE_ATTRIBUTE_INTEGRATED
    assert driver.attribute(9999, 0) == 0


def test_functions_that_a_driver_lacks_are_refused(fakecuda: FakeCudaHandle) -> None:
    with pytest.raises(GpuError, match="cuNoSuchThing: CUDA_ERROR_NOT_SUPPORTED"):
        driver.call("cuNoSuchThing", ctypes.c_int(1))


# --- capture ---


@pytest.mark.parametrize("shape", ["straight", "forked"])
def test_a_graph_does_what_was_captured(fakecuda: FakeCudaHandle, shape: str) -> None:
    with Setting() as setting:
        graph = setting.arena.capture(setting.one, getattr(setting, shape))
        assert isinstance(graph, Graph)
        setting.x[:] = np.arange(64)
        with setting.cuda.current():
            setting.one.synchronize()
            assert not setting.y.any()  # nothing was done when it was captured
            for round_ in range(3):
                setting.x[:] = round_ + np.arange(64)
                graph.launch(setting.one.handle)
                setting.one.synchronize()
                np.testing.assert_array_equal(setting.y, 2 * setting.x + 1)
        assert setting.usable()


def test_a_graph_may_be_launched_on_another_stream(fakecuda: FakeCudaHandle) -> None:
    with Setting() as setting:
        graph = setting.arena.capture(setting.one, setting.straight)
        assert isinstance(graph, Graph)
        with setting.cuda.current():
            graph.launch(setting.two.handle)
            setting.two.synchronize()
        assert (setting.y == 1).all()


def test_other_threads_may_allocate_while_one_captures(fakecuda: FakeCudaHandle) -> None:
    with Setting() as setting, setting.cuda.arena() as other:

        def work() -> None:
            setting.straight()
            thread = threading.Thread(target=lambda: other.device(100))
            thread.start()
            thread.join()

        assert isinstance(setting.arena.capture(setting.one, work), Graph)


def test_garbage_is_not_collected_into_a_capture(fakecuda: FakeCudaHandle, caplog: pytest.LogCaptureFixture) -> None:
    with Setting() as setting:
        dropped = setting.cuda.arena()
        dropped.device(100)
        cycle = [dropped]
        cycle.append(cycle)  # type: ignore[arg-type]

        def work() -> None:
            nonlocal dropped, cycle
            setting.straight()
            del dropped, cycle
            assert len([[] for _ in range(100_000)]) == 100_000  # more than enough to start a collection

        assert isinstance(setting.arena.capture(setting.one, work), Graph)
        assert gc.isenabled()
        gc.collect()
        assert "dropped without being closed" in caplog.text


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (lambda s: s.one.synchronize(), "cuStreamSynchronize: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
        (lambda s: s.arena.device(10), "cuMemAlloc: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
        (lambda s: s.one.done(), "cuStreamQuery: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
        (lambda s: s.cuda.synchronize(), "cuCtxSynchronize: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
        (lambda s: (s.event.record(s.one), s.event.synchronize()), "CUDA_ERROR_CAPTURED_EVENT"),
        (lambda s: s.one.copy_in(s.dx, np.zeros(64, np.float32)), "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
        (lambda s: s.forked(joins=False), "cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_UNJOINED"),
        (lambda s: (s.event.record(s.two), s.one.wait(s.event)), "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"),
    ],
)
def test_what_cannot_be_captured_leaves_the_stream_usable(
    fakecuda: FakeCudaHandle, work: Callable[[Setting], object], reason: str
) -> None:
    with Setting() as setting:
        assert reason in refusal(setting, lambda: work(setting))
        assert setting.usable()
        assert isinstance(setting.arena.capture(setting.one, setting.straight), Graph)


@pytest.mark.parametrize("name", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_a_driver_that_refuses_a_step_leaves_the_stream_usable(fakecuda: FakeCudaHandle, name: str) -> None:
    with Setting() as setting:
        fakecuda.fail(name, 801)
        assert name in refusal(setting, setting.straight)
        assert setting.usable()


def test_an_exception_of_the_work_goes_through(fakecuda: FakeCudaHandle) -> None:
    with Setting() as setting:

        def work() -> None:
            setting.straight()
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            setting.arena.capture(setting.one, work)
        assert setting.usable()
        assert "graphs" not in fakecuda.live()


def test_a_sticky_error_is_raised_not_reported(fakecuda: FakeCudaHandle) -> None:
    setting = Setting()
    fakecuda.fail("cuLaunchKernel", 719, sticky=True)
    with pytest.raises(GpuError, match="CUDA_ERROR_LAUNCH_FAILED") as caught:
        setting.arena.capture(setting.one, setting.straight)
    assert caught.value.sticky
    setting.arena.close()
    fakecuda.forgive()


def test_older_drivers_instantiate_too(fakecuda: FakeCudaHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    known = driver.function
    monkeypatch.setattr(driver, "function", lambda name: None if name.endswith("WithFlags") else known(name))
    with Setting() as setting:
        graph = setting.arena.capture(setting.one, setting.straight)
        assert isinstance(graph, Graph)
        with setting.cuda.current():
            graph.launch(setting.one.handle)
            setting.one.synchronize()
        assert (setting.y == 1).all()


def test_a_graph_that_is_destroyed_is_refused(fakecuda: FakeCudaHandle) -> None:
    with Setting() as setting:
        graph = setting.arena.capture(setting.one, setting.straight)
        assert isinstance(graph, Graph)
        with setting.cuda.current():
            graph.destroy()
            graph.destroy()
            with pytest.raises(GpuError, match="cuGraphLaunch"):
                graph.launch(setting.one.handle)
