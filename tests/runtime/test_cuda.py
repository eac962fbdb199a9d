"""One context for the life of the process: opening it, entering it, and ending well whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgemed.base.errors import DeviceStateError, GpuError, UsageError
from edgemed.runtime import driver
from edgemed.runtime.cuda import Cuda, open_cuda
from tests.runtime.fakecuda import child, fetch
from tests.runtime.fakecuda.handle import FakeCudaHandle
from tests.runtime.real_driver import shim_only


def in_thread(work: Callable[[], object]) -> object:
    """What `work` gives, or raises, in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_facts_are_the_device_s(fakecuda: FakeCudaHandle) -> None:
    fakecuda.set(sm=72, integrated=1, map_host=1, register_host=0, memory=8 << 30, driver_version=11040)
    facts = open_cuda().facts
    assert (facts.index, facts.compute_capability, facts.driver_version) == (0, "7.2", "11.4")
    assert facts.integrated
    assert facts.can_map_host_memory
    assert not facts.can_register_host_memory
    assert facts.zero_copy
    assert facts.memory_bytes == 8 << 30


@pytest.mark.parametrize(("integrated", "map_host", "expected"), [(0, 1, False), (1, 0, False), (1, 1, True)])
def test_zero_copy_is_for_integrated_gpus_that_map(
    fakecuda: FakeCudaHandle, integrated: int, map_host: int, expected: bool
) -> None:
    fakecuda.set(integrated=integrated, map_host=map_host)
    assert open_cuda().facts.zero_copy is expected


def test_memory_tells_what_is_left(fakecuda: FakeCudaHandle) -> None:
    fakecuda.set(memory=1 << 20)
    cuda = open_cuda()
    free, total = cuda.memory()
    assert total == 1 << 20
    with cuda.arena() as arena:
        arena.device(1 << 18)
        assert cuda.memory() == (free - (1 << 18), total)


def test_every_caller_gets_the_same_context(fakecuda: FakeCudaHandle) -> None:
    gate = threading.Barrier(8)

    def opened() -> Cuda:
        gate.wait()
        return open_cuda()

    with ThreadPoolExecutor(8) as pool:
        got = {id(future.result()) for future in [pool.submit(opened) for _ in range(8)]}
    assert len(got) == 1
    assert fakecuda.calls("cuDevicePrimaryCtxRetain") == 1


def test_another_device_is_refused(fakecuda: FakeCudaHandle) -> None:
    fakecuda.set(devices=2)
    open_cuda(1)
    with pytest.raises(UsageError, match="uses GPU 1; it cannot use GPU 0"):
        open_cuda(0)


@pytest.mark.parametrize("index", [1, -1])
def test_a_device_that_is_not_there_is_refused(fakecuda: FakeCudaHandle, index: int) -> None:
    with pytest.raises(DeviceStateError, match=f"no GPU {index}; this machine has 1"):
        open_cuda(index)


def test_no_device_is_the_machine_s_state(fakecuda: FakeCudaHandle) -> None:
    fakecuda.set(devices=0)
    with pytest.raises(DeviceStateError, match="CUDA_ERROR_NO_DEVICE"):
        open_cuda()


def test_a_refused_context_is_reported_and_can_be_tried_again(fakecuda: FakeCudaHandle) -> None:
    fakecuda.fail("cuDevicePrimaryCtxRetain", 2)
    with pytest.raises(GpuError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        open_cuda()
    assert open_cuda().memory()


def test_calls_work_inside_and_only_inside(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    with cuda.arena() as arena:
        stream = arena.stream()
        for where in (in_thread, lambda work: work()):
            with pytest.raises(GpuError, match="CUDA_ERROR_INVALID_CONTEXT") as caught:
                where(stream.synchronize)
            assert not caught.value.sticky

        def inside() -> None:
            with cuda.current():
                stream.synchronize()

        for where in (in_thread, lambda work: work()):
            where(inside)


def test_blocks_nest_and_survive_exceptions(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    with cuda.arena() as arena:
        stream = arena.stream()
        with cuda.current():
            with pytest.raises(ZeroDivisionError), cuda.current(), cuda.current():
                raise ZeroDivisionError
            stream.synchronize()  # the outer block is still inside
            in_thread(lambda: cuda.memory())  # another thread enters for itself
            assert fakecuda.live()["pushed"] == 1
        assert "pushed" not in fakecuda.live()


def test_a_context_that_cannot_be_entered_or_left(fakecuda: FakeCudaHandle) -> None:
    cuda = open_cuda()
    fakecuda.set(context_fault=1)
    with pytest.raises(GpuError, match="cuCtxPushCurrent"), cuda.current():
        pass
    fakecuda.set(context_fault=0)
    assert cuda.memory()  # the failed entry left no trace
    with pytest.raises(GpuError, match="cuCtxPopCurrent"), cuda.current():
        fakecuda.set(context_fault=1)
    fakecuda.set(context_fault=0)

    def fails() -> None:
        with cuda.current():
            fakecuda.set(context_fault=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):  # what came first stays the error
        fails()
    fakecuda.set(context_fault=0)
    assert cuda.memory()
    cuda.native.Context.pop()  # pycuda still has it pushed, twice
    cuda.native.Context.pop()


def test_threads_that_end_inside_do_not_end_the_process() -> None:
    printed = child.quiet("""
        cuda = open_cuda()
        def forgets():
            cuda.current().__enter__()
            cuda.current().__enter__()
        thread = threading.Thread(target=forgets)
        thread.start()
        thread.join()
        print(fake.live(), cuda.memory()[0] > 0)
    """)
    assert printed == "{} True\n"


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param("sys.exit(0)", id="inside"),
        pytest.param("cuda.current().__enter__(); cuda.current().__enter__(); sys.exit(0)", id="twice-inside"),
        pytest.param("kept = (x, y[1:], m); sys.exit(0)", id="views-alive"),
        pytest.param("kept = (s, e, h, k, arena); sys.exit(0)", id="handles-alive"),
        pytest.param("arena.close(); kept = x[1:]; sys.exit(0)", id="views-outlive"),
        pytest.param("cycle = [arena]; cycle.append(cycle); del arena; sys.exit(0)", id="in-a-cycle"),
        pytest.param("import builtins; builtins.kept = (arena, x, s, cuda); sys.exit(0)", id="in-builtins"),
        pytest.param("fake.hang('copy-in'); s.copy_in(d, x); sys.exit(0)", id="work-hangs"),
    ],
)
def test_the_process_ends_well(ending: str) -> None:
    child.quiet(f"""
        def make():
            global cuda, arena, s, e, h, k, d, x, y, m
            cuda = open_cuda()
            arena = cuda.arena()
            s, e, h = arena.stream(), arena.event(), arena.handle_event()
            d = arena.device(400)
            x, y, m = arena.pinned(100, np.float32), arena.pinned((10, 10), np.uint8), arena.mapped(3, np.uint8)
            k = arena.module(handle.listing(handle.fetch.HERE / "standin.cu")).kernel("burn", "Q")
        # pycuda's objects remember the thread that made the context
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        with cuda.current():
            {ending}
    """)


@pytest.mark.parametrize(
    "busy", ["fake.delay('fill', us=0)", "fake.delay('fill', us=1000)", "fake.hang('fill', nth=9)"]
)
def test_the_process_ends_well_beside_a_daemon_thread(busy: str) -> None:
    child.quiet(f"""
        cuda = open_cuda()
        arena = cuda.arena()
        stream, there, begun = arena.stream(), arena.device(8), threading.Event()
        {busy}
        def loop():
            while True:
                with cuda.current():
                    stream.fill(there, 0, 8)
                    begun.set()
                    stream.synchronize()
        threading.Thread(target=loop, daemon=True).start()
        begun.wait()
    """)


@shim_only
def test_the_process_ends_well_when_the_gpu_did_not() -> None:
    printed = child.quiet("""
        cuda = open_cuda()
        arena = cuda.arena()
        s, e, x, d = arena.stream(), arena.event(), arena.pinned(100, np.float32), arena.device(400)
        fake.fail_op("copy-in", 719)
        try:
            with cuda.current():
                s.copy_in(d, x)
                s.synchronize()
        except GpuError as error:
            print(error.sticky, error.what)
        arena.close()
        del arena, s, e, x
    """)
    assert (
        printed
        == "True The GPU failed in cuStreamSynchronize: CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure).\n"
    )


def test_a_forked_child_is_refused_and_ends_well() -> None:
    printed = child.quiet("""
        import warnings
        warnings.simplefilter("ignore")  # Python 3.12 and later warn of a fork beside threads, which is the point
        cuda = open_cuda()
        arena = cuda.arena()
        x = arena.pinned(10, np.uint8)
        with cuda.current():
            child = os.fork()
            if child == 0:
                for use in (open_cuda, cuda.memory, arena.stream):
                    try:
                        use()
                    except DeviceStateError as error:
                        print(error.what, flush=True)
                arena.close()
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
        print(cuda.memory()[0] > 0)
    """)
    assert printed.splitlines() == [
        *["This process was forked from one that already used the GPU; CUDA does not work in it."] * 3,
        "True",
    ]


def test_a_process_may_fork_before_it_opens_the_gpu() -> None:
    printed = child.quiet("""
        child = os.fork()
        memory = open_cuda().memory()
        if child:
            os.waitpid(child, 0)
        print("parent" if child else "child", memory[0] > 0)
    """)
    assert printed.splitlines() == ["child True", "parent True"]


@shim_only
def test_without_the_driver_or_pycuda_it_says_what_is_missing(tmp_path: Path) -> None:
    code = """
        import ctypes, sys
        from edgemed.base.errors import MissingSoftwareError
        from edgemed.runtime.cuda import open_cuda
        def attempt():
            try:
                open_cuda()
            except MissingSoftwareError as error:
                print(error)
        attempt()
        ctypes.CDLL({library!r}, ctypes.RTLD_GLOBAL)
        attempt()
        sys.path.insert(0, {broken!r})
        attempt()
    """
    package = tmp_path / "pycuda"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "driver.py").write_text("raise ImportError('_driver.so: undefined symbol: cuCtxCreate_v4')")
    library = str(fetch.ensure().library)
    done = child.run(code.format(library=library, broken=str(tmp_path)), prelude="")
    assert done.returncode == 0, done.stderr
    driver_line, pycuda_line, symbol_line = done.stdout.splitlines()
    assert "libcuda.so.1 is not on this machine" in driver_line
    assert "pycuda is needed to run models on the GPU" in pycuda_line
    assert "edgemed[gpu]" in pycuda_line
    assert "built for a newer NVIDIA driver" in symbol_line


def test_importing_it_imports_no_cuda() -> None:
    code = """
        import sys
        others = set(sys.modules)
        import edgemed.runtime.cuda
        new = {name.partition(".")[0] for name in set(sys.modules) - others}
        print(sorted(new - sys.stdlib_module_names))
    """
    done = child.run(code, prelude="")
    assert done.stdout.strip() == "['edgemed', 'numpy']", done.stdout + done.stderr


# --- errors ---

# codes whose words pycuda hands on; 4 and those of newer drivers are judged by test_driver
CODES = [1, 2, 201, 214, 220, 226, 400, 500, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911, 999]


@pytest.mark.parametrize("code", CODES)
def test_pycuda_s_errors_become_ours(fakecuda: FakeCudaHandle, code: int) -> None:
    cuda = open_cuda()
    arena = cuda.arena()
    stream, event = arena.stream(), arena.event()
    fakecuda.fail("cuEventRecord", code)
    with cuda.current(), pytest.raises(GpuError, match="cuEventRecord") as caught:
        event.record(stream)
    assert driver.error_name(code) in caught.value.what
    assert driver.error_text(code) in caught.value.what
    assert caught.value.sticky == (code in driver.STICKY)
    assert cuda.usable != caught.value.sticky
    arena.close()
    if caught.value.sticky:
        fakecuda.forgive()  # what a dead context held stays until the process ends


def test_a_poisoned_process_answers_no_more(fakecuda: FakeCudaHandle, caplog: pytest.LogCaptureFixture) -> None:
    cuda = open_cuda()
    arena = cuda.arena()
    stream, host, there = arena.stream(), arena.pinned(16, np.uint8), arena.device(16)
    fakecuda.fail_op("copy-in", 700)
    with cuda.current():
        stream.copy_in(there, host)
        with pytest.raises(GpuError) as caught:
            stream.synchronize()
        with pytest.raises(GpuError):  # the driver itself refuses a thread that is inside
            stream.copy_in(there, host)
    assert cuda.poison is caught.value
    calls = fakecuda.calls()
    for use in (cuda.memory, open_cuda, cuda.synchronize, arena.stream, cuda.arena().stream):
        with pytest.raises(GpuError, match="CUDA_ERROR_ILLEGAL_ADDRESS") as later:
            use()
        assert later.value.sticky
    assert fakecuda.calls() == calls  # the driver is not asked again
    frees = fakecuda.calls("cuMemFree") + fakecuda.calls("cuMemFreeHost")
    arena.close()
    assert fakecuda.calls("cuMemFree") + fakecuda.calls("cuMemFreeHost") == frees
    assert not caplog.records
    fakecuda.forgive()
