"""The process's one CUDA context and everything that lives in it. The only importer of pycuda.

The device's primary context is retained once and kept for the life of the process: pycuda cannot release it rightly,
TensorRT shares it, and threads only push and pop it. Every buffer, stream and event belongs to one `Arena`, which frees
them together, in the right context, whatever thread the last reference dies in.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import warnings
from dataclasses import dataclass
from typing import Any

from edgemed.base.errors import DeviceStateError, GpuError, MissingSoftwareError, UsageError
from edgemed.base.lazy import require
from edgemed.runtime import arena, driver
from edgemed.runtime.arena import Arena, Host, keep_forever
from edgemed.runtime.current import Current
from edgemed.runtime.driver import Graph, HandleEvent, NotCaptured
from edgemed.runtime.streams import Event, Kernel, Module, Stream

__all__ = [
    "Arena",
    "Cuda",
    "Event",
    "Facts",
    "Graph",
    "HandleEvent",
    "Kernel",
    "Module",
    "NotCaptured",
    "Stream",
    "open_cuda",
    "require_cuda",
]

Native = Any  # an object of pycuda, which has no types
_HOST_REGISTER_SUPPORTED = 99  # of CUdevice_attribute; pycuda has no name for it


@dataclass(frozen=True)
class Facts:
    """What the device and its driver say of themselves.

    Attributes:
        compute_capability: e.g. `"8.7"` (Orin).
        integrated: it shares the processor's memory, as on every Jetson.
        can_map_host_memory: kernels may read and write pinned memory in place.
        can_register_host_memory: memory of others (e.g. shared memory) may be pinned after the fact.
        copy_engines: how many copies run beside a computation.
        driver_version: newest CUDA that the driver knows, e.g. `"12.6"`.
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    integrated: bool
    can_map_host_memory: bool
    can_register_host_memory: bool
    copy_engines: int
    multiprocessors: int
    driver_version: str

    @property
    def zero_copy(self) -> bool:
        """Whether slots are better mapped than copied: the memory is the same, and kernels may use it in place."""
        return self.integrated and self.can_map_host_memory


class Cuda:
    """One device, its primary context, and the way to memory, streams and kernels in it. Made by `open_cuda`."""

    def __init__(self, native: Native, context: Native, facts: Facts) -> None:
        self.native = native
        self.facts = facts
        self._current = Current(context.push, native.Context.pop, native.Error)
        self._forked = False
        driver.health.listeners.append(self._refuse_poisoned)

    def current(self) -> Current:
        """A context manager: inside its block this thread may call CUDA.

        Raises:
            GpuError: on entering, when an earlier sticky error made the context unusable.
            DeviceStateError: on entering, in a process forked from the one that opened the GPU.
        """
        return self._current

    @property
    def poison(self) -> GpuError | None:
        """The sticky error that made this process's context unusable, if any."""
        return driver.health.poison

    @property
    def usable(self) -> bool:
        """Whether calls can still work: no sticky error, and not a forked child."""
        return driver.health.poison is None and not self._forked

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the device."""
        with self._current:
            try:
                free, total = self.native.mem_get_info()
            except self.native.Error as error:
                raise driver.translate(error) from error
        return int(free), int(total)

    def synchronize(self) -> None:
        """Wait for all work of the device, without the GIL.

        Raises:
            GpuError: some of it failed.
        """
        with self._current:
            try:
                self.native.Context.synchronize()
            except self.native.Error as error:
                raise driver.translate(error) from error

    def arena(self) -> Arena:
        """A new owner of buffers, streams, events and kernels."""
        return Arena(self._host)

    @property
    def _host(self) -> Host:
        return Host(self.native, self._current, lambda: self.usable)

    def _refuse_poisoned(self, poison: GpuError) -> None:
        def push() -> None:
            raise GpuError(poison.what, poison.hint, sticky=True)

        self._current.refuse(push)

    def at_exit(self, pid: int) -> None:
        """Leave all to the driver, which cleans up after a process: to free here would wait for work that may hang."""
        if os.getpid() == pid:
            self._current.end()
            arena.abandon_all()
            _empty_stack(self.native)

    def after_fork(self) -> None:
        """Make every later use in a forked child a clear error."""
        self._forked = True
        self._current.refuse(_refuse_forked)
        self._current.forget()
        _empty_stack(self.native)


def _refuse_forked() -> None:
    raise DeviceStateError(
        "This process was forked from one that already used the GPU; CUDA does not work in it.",
        "Start it anew instead (multiprocessing: the start method 'spawn'), or fork before the GPU is opened.",
    )


_lock = threading.Lock()
_cuda: Cuda | None = None


def open_cuda(device: int = 0) -> Cuda:
    """The device's primary context, retained at the first call and kept for the life of the process.

    Args:
        device: index of the GPU. A process has one: a second call must name the same.

    Raises:
        MissingSoftwareError: pycuda or NVIDIA's driver library is not installed.
        DeviceStateError: there is no such device, or this process was forked from one that uses it.
        UsageError: the process already uses another device.
        GpuError: the driver refused the context, or a sticky error made it unusable.
    """
    global _cuda
    with _lock:
        if _cuda is None:
            _cuda = _open(device)
        if _cuda._forked:
            _refuse_forked()
        if _cuda.poison is not None:
            raise GpuError(_cuda.poison.what, _cuda.poison.hint, sticky=True)
        if _cuda.facts.index != device:
            raise UsageError(
                f"This process uses GPU {_cuda.facts.index}; it cannot use GPU {device} too.",
                "Run one process for each GPU.",
            )
        return _cuda


def require_cuda() -> None:
    """See that the GPU's software is here; no device is touched.

    Raises:
        MissingSoftwareError: pycuda or NVIDIA's driver library is not installed.
    """
    _import_pycuda()


def _open(device: int) -> Cuda:
    native = _import_pycuda()
    try:
        native.init()
        count = native.Device.count()
    except native.Error as error:
        raise _no_device(driver.translate(error)) from error
    if not 0 <= device < count:
        raise DeviceStateError(f"There is no GPU {device}; this machine has {count}.", "Choose one from 0 upwards.")
    try:
        chosen = native.Device(device)
        context = chosen.retain_primary_context()
        facts = _facts(native, chosen, device)
    except native.Error as error:
        raise driver.translate(error) from error
    keep_forever(context)
    cuda = Cuda(native, context, facts)
    atexit.register(cuda.at_exit, os.getpid())
    return cuda


def _import_pycuda() -> Native:
    driver.library()
    try:
        with warnings.catch_warnings():
            # pycuda's guess at what an ImportError means; ours follows
            warnings.simplefilter("ignore")
            return require("pycuda.driver", extra="gpu", purpose="run models on the GPU")
    except MissingSoftwareError as missing:
        cause = missing.__cause__
        if cause is not None and "undefined symbol" in str(cause):
            raise MissingSoftwareError(
                "pycuda was built for a newer NVIDIA driver than this machine has.",
                "Build it here: pip install --force-reinstall --no-binary pycuda --no-cache-dir pycuda",
            ) from cause
        raise


def _no_device(error: GpuError) -> DeviceStateError:
    return DeviceStateError(
        f"CUDA finds no GPU that it can use. {error.what}",
        "Run `edgemed doctor`; a container needs --runtime nvidia, and CUDA_VISIBLE_DEVICES must not hide the GPU.",
    )


def _facts(native: Native, device: Native, index: int) -> Facts:
    ask, names = device.get_attribute, native.device_attribute
    major, minor = device.compute_capability()
    version = native.get_driver_version()
    return Facts(
        index=index,
        name=device.name(),
        compute_capability=f"{major}.{minor}",
        memory_bytes=int(device.total_memory()),
        integrated=bool(ask(names.INTEGRATED)),
        can_map_host_memory=bool(ask(names.CAN_MAP_HOST_MEMORY)),
        can_register_host_memory=bool(driver.attribute(_HOST_REGISTER_SUPPORTED, index)),
        copy_engines=int(ask(names.ASYNC_ENGINE_COUNT)),
        multiprocessors=int(ask(names.MULTIPROCESSOR_COUNT)),
        driver_version=f"{version // 1000}.{version % 1000 // 10}",
    )


def _empty_stack(native: Native) -> None:
    """A context left pushed (Ctrl-C can do it, and a fork inside a block) would make pycuda abort the process."""
    with contextlib.suppress(native.Error):
        while True:
            native.Context.pop()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    if _cuda is not None:
        _cuda.after_fork()


os.register_at_fork(after_in_child=_after_fork)
