"""The one owner of buffers, streams, events and kernels: it frees them together, in the right context.

pycuda's own objects free themselves when their last reference dies, and fail to where that happens in a thread that
has not pushed the context. Here nobody outside holds one: streams, events and kernels are wrapped, and arrays are views
of memory that outlives the arena for as long as somebody looks at it.
"""

from __future__ import annotations

import ctypes
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgemed.base.errors import GpuError
from edgemed.runtime import driver
from edgemed.runtime.driver import Graph, HandleEvent, NotCaptured, translate
from edgemed.runtime.streams import GONE, Event, Module, Native, Stream

Shape = int | tuple[int, ...]
T = TypeVar("T")

_log = logging.getLogger(__name__)
_ASK_S = 0.0005  # between two questions whether a stream has ended


@dataclass(frozen=True)
class Host:
    """What an arena needs of `Cuda`: pycuda's module, the way into the context, and whether that still works."""

    native: Native
    current: AbstractContextManager[None]
    usable: Callable[[], bool]


@dataclass
class _Pinned:
    """Pinned memory: pycuda's owner of it, and a weak reference to what all views of it keep alive."""

    owner: Native
    lease: weakref.ref[ctypes.Array[ctypes.c_ubyte]]


@dataclass(eq=False)
class _Belongings:
    """What an arena owns. It does not know the arena, so that it can be freed when the arena is gone."""

    host: Host
    streams: list[Stream] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    handle_events: list[HandleEvent] = field(default_factory=list)
    graphs: list[Graph] = field(default_factory=list)
    modules: list[Module] = field(default_factory=list)
    device: list[Native] = field(default_factory=list)
    pinned: list[_Pinned] = field(default_factory=list)
    registered: list[tuple[int, NDArray[Any], int]] = field(default_factory=list)

    def free(self, dropped: bool) -> None:
        """Free everything, once its work has ended. Never raises."""
        if dropped:
            _log.warning("An arena was dropped without being closed; it is closed now.")
        if self.host.usable():
            try:
                with self.host.current:
                    self._settle()
                    if self.host.usable():
                        self._free_all()
                        return
            except GpuError as error:
                _log.error("What an arena owned could not be freed: %s", error.what)
        self.abandon()

    def _settle(self) -> None:
        """Wait for the streams by asking: Ctrl-C goes through, and other threads run, which freeing would stop."""
        for stream in self.streams:
            _try(partial(_wait_for, stream))

    def _free_all(self) -> None:
        while self.graphs:
            _try(self.graphs.pop().destroy)
        while self.handle_events:
            _try(self.handle_events.pop().destroy)
        while self.modules:
            self.modules.pop().drop()
        while self.events:
            self.events.pop()._native = GONE
        while self.streams:
            self.streams.pop()._native = GONE
        while self.device:
            self.device.pop().free()
        while self.registered:
            _try(partial(driver.unregister, self.registered.pop()[0]))
        while self.pinned:
            pinned = self.pinned.pop()
            lease = pinned.lease()
            if lease is None:
                pinned.owner.free()
            else:
                _free_after(lease, pinned.owner, self.host)

    def abandon(self) -> None:
        """Leave everything to the end of the process: with a dead context, freeing fails and pycuda prints so."""
        natives: list[Any] = [event._native for event in self.events]
        natives += [stream._native for stream in self.streams]
        natives += [module._native for module in self.modules]
        natives += [*self.device, *(pinned.owner for pinned in self.pinned), *self.registered]
        for native in natives:
            keep_forever(native)
        everything = (
            self.streams,
            self.events,
            self.handle_events,
            self.graphs,
            self.modules,
            self.device,
            self.pinned,
        )
        for owned in (*everything, self.registered):
            owned.clear()


_open: weakref.WeakSet[_Belongings] = weakref.WeakSet()


def abandon_all() -> None:
    """At the end of the process: run no destructor of pycuda's any more."""
    for belongings in list(_open):
        belongings.abandon()


def _wait_for(stream: Stream) -> None:
    while not stream.done():
        time.sleep(_ASK_S)


def _try(free: Callable[[], None]) -> None:
    try:
        free()
    except GpuError as error:
        _log.error("While an arena was closed: %s", error.what)


def keep_forever(thing: object) -> None:
    """Never run the destructor of one of pycuda's objects: what it would do is wrong."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _free_after(lease: ctypes.Array[ctypes.c_ubyte], owner: Native, host: Host) -> None:
    """Free pinned memory when the last view of it is gone; at the end of the process, leave it to the system."""
    keep_forever(owner)

    def free() -> None:
        if host.usable():
            with host.current:
                owner.free()

    weakref.finalize(lease, free).atexit = False


class Arena:
    """Owns what is made through it, until `close`. A context manager that closes.

    Making and closing may happen in any thread; the context need not be current. Everything is made before the first
    frame: a steady ring allocates nothing.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._belongings = _Belongings(host)
        self._finalizer = weakref.finalize(self, self._belongings.free, True)
        self._finalizer.atexit = False  # see `abandon_all`
        _open.add(self._belongings)

    def stream(self) -> Stream:
        """A stream that does not wait for the null stream.

        Raises:
            GpuError: the driver refused; of every method here.
        """
        return self._make(lambda: Stream(self._host.native), self._belongings.streams)

    def event(self, *, timing: bool = False, blocking: bool = True) -> Event:
        """An event.

        Args:
            timing: `elapsed_ns` may be asked; costs a little.
            blocking: a thread that waits sleeps; otherwise it spins, and wakes some microseconds earlier.
        """
        flags = self._host.native.event_flags
        chosen = (0 if timing else flags.DISABLE_TIMING) | (flags.BLOCKING_SYNC if blocking else 0)
        return self._make(lambda: Event(self._host.native, chosen), self._belongings.events)

    def handle_event(self, *, blocking: bool = True) -> HandleEvent:
        """An event with a handle, for `Execution.signal_input_consumed`."""
        return self._make(lambda: HandleEvent(blocking=blocking), self._belongings.handle_events)

    def pinned(self, shape: Shape, dtype: DTypeLike, *, write_combined: bool = False) -> NDArray[Any]:
        """Page-locked host memory, zeroed, that copies need not stage.

        Args:
            shape: of the array.
            dtype: of the array.
            write_combined: the device reads it faster, the processor reads it very slowly: for inputs only.
        """
        flags = self._host.native.host_alloc_flags
        return self._host_array(shape, dtype, flags.PORTABLE | (flags.WRITECOMBINED if write_combined else 0))[0]

    def mapped(self, shape: Shape, dtype: DTypeLike) -> tuple[NDArray[Any], int]:
        """Page-locked host memory, zeroed, that kernels use in place, and its device address."""
        flags = self._host.native.host_alloc_flags
        array, owner = self._host_array(shape, dtype, flags.PORTABLE | flags.DEVICEMAP)
        with self._host.current:
            try:
                return array, int(owner.get_device_pointer())
            except self._host.native.Error as error:
                raise translate(error) from error

    def registered(self, array: NDArray[Any]) -> int:
        """Lock the pages of an array of ordinary memory (shared memory, a camera's buffer). Gives its device address.

        The arena keeps the array until it is closed. Whole pages are locked, so two arrays must not share one. See
        `Facts.can_register_host_memory`.
        """
        if not (array.flags.c_contiguous and array.nbytes):
            raise ValueError("only one piece of memory can be registered")

        def lock() -> tuple[int, NDArray[Any], int]:
            return array.ctypes.data, array, driver.register(array.ctypes.data, array.nbytes)

        return int(self._make(lock, self._belongings.registered)[2])

    def device(self, nbytes: int) -> int:
        """Device memory; its address, aligned to 256 bytes. Its content is anything.

        Raises:
            GpuMemoryError: there is not so much left.
        """
        return int(self._make(lambda: self._host.native.mem_alloc(max(1, nbytes)), self._belongings.device))

    def module(self, image: bytes) -> Module:
        """Load PTX (compiled here for this device) or a cubin.

        Raises:
            GpuError: the driver cannot use it; the message holds its compiler's log.
        """
        terminated = image if image.endswith(b"\0") else image + b"\0"  # the driver reads PTX up to a NUL
        return self._make(lambda: Module(self._host.native, self._host.current, terminated), self._belongings.modules)

    def capture(self, stream: Stream, work: Callable[[], object]) -> Graph | NotCaptured:
        """Record what `work` puts on a stream into a graph, or say why that could not be.

        Addresses and shapes are recorded with it: a graph is for one slot and one set of shapes.

        Raises:
            GpuError: sticky.
        """
        self._refuse_closed()
        with self._host.current:  # without the lock: what `work` asks of this arena is refused by the driver
            graph = driver.capture(stream.handle, work)
        if isinstance(graph, Graph):
            with self._lock:
                self._belongings.graphs.append(graph)
        return graph

    def close(self) -> None:
        """Wait for the streams, then free everything. Doing it twice does no harm.

        Views of pinned memory stay readable; the memory goes when the last of them does. After a sticky error nothing
        is freed: the process has to end.
        """
        with self._lock:
            if self._finalizer.alive:
                self._belongings.free(False)
                self._finalizer.detach()

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _host_array(self, shape: Shape, dtype: DTypeLike, flags: int) -> tuple[NDArray[Any], Native]:
        dtype = np.dtype(dtype)
        dims = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        nbytes = max(1, math.prod(dims) * dtype.itemsize)
        made: list[NDArray[Any]] = []

        def make() -> _Pinned:
            raw = self._host.native.pagelocked_empty((nbytes,), np.uint8, mem_flags=flags)
            lease = (ctypes.c_ubyte * nbytes).from_address(raw.ctypes.data)
            made.append(np.ndarray(dims, dtype, buffer=memoryview(lease)))
            return _Pinned(raw.base, weakref.ref(lease))

        pinned = self._make(make, self._belongings.pinned)
        made[0].fill(0)
        return made[0], pinned.owner

    def _make(self, make: Callable[[], T], owned: list[T]) -> T:
        with self._lock, self._host.current:
            self._refuse_closed()
            try:
                thing = make()
            except self._host.native.Error as error:
                raise translate(error) from error
            owned.append(thing)
            return thing

    def _refuse_closed(self) -> None:
        if self.closed:
            raise RuntimeError("The arena is closed.")
