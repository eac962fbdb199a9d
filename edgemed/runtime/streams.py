"""What work is put on and measured by: streams, events and kernels, as thin wrappers of pycuda's.

The wrappers are the only holders of pycuda's objects, so that an arena decides when those die; and the only place where
their exceptions surface, so that all become ours.
"""

from __future__ import annotations

import struct
from contextlib import AbstractContextManager
from typing import Any

from numpy.typing import NDArray

from edgemed.base.errors import GpuError
from edgemed.runtime.driver import translate

Native = Any  # an object of pycuda, which has no types

_NON_BLOCKING = 1  # of CUstream_flags: otherwise every stream waits for the legacy null stream, and the other way round


class _Gone:
    """Stands where something of a closed arena was."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("It belongs to an arena that is closed.")


GONE: Any = _Gone()


class Stream:
    """A queue of work on the device: it begins in order, after the call has returned.

    Methods are called with the context current, by one thread at a time. Arrays must be contiguous, and must neither
    change nor die before the work that names them has ended.

    Attributes:
        handle: the driver's handle, for TensorRT.
    """

    __slots__ = ("_error", "_module", "_native", "handle")

    def __init__(self, native: Native) -> None:
        self._module = native
        self._error = native.Error
        self._native: Native = native.Stream(_NON_BLOCKING)
        self.handle: int = self._native.handle

    def copy_in(self, address: int, array: NDArray[Any]) -> None:
        """Copy an array to device memory. From memory that is not pinned, the driver copies aside first.

        Raises:
            GpuError: the driver refused.
        """
        try:
            self._module.memcpy_htod_async(address, array, self._native)
        except self._error as error:
            raise translate(error) from error

    def copy_out(self, array: NDArray[Any], address: int) -> None:
        """Copy device memory to an array. To memory that is not pinned, it returns only when done."""
        try:
            self._module.memcpy_dtoh_async(array, address, self._native)
        except self._error as error:
            raise translate(error) from error

    def copy(self, to_address: int, from_address: int, nbytes: int) -> None:
        """Copy within device memory."""
        try:
            self._module.memcpy_dtod_async(to_address, from_address, nbytes, self._native)
        except self._error as error:
            raise translate(error) from error

    def fill(self, address: int, value: int, nbytes: int) -> None:
        """Set every byte of a range of device memory to `value`, 0 to 255."""
        try:
            self._module.memset_d8_async(address, value, nbytes, self._native)
        except self._error as error:
            raise translate(error) from error

    def wait(self, event: Event) -> None:
        """Let later work of this stream begin only when the event has come; the caller does not wait."""
        try:
            self._native.wait_for_event(event._native)
        except self._error as error:
            raise translate(error) from error

    def done(self) -> bool:
        """Whether everything put on the stream so far has ended."""
        try:
            return bool(self._native.is_done())
        except self._error as error:
            raise translate(error) from error

    def synchronize(self) -> None:
        """Wait, without the GIL, until everything put on the stream so far has ended.

        Raises:
            GpuError: some of it failed.
        """
        try:
            self._native.synchronize()
        except self._error as error:
            raise translate(error) from error


class Event:
    """A mark in a stream. Methods are called with the context current."""

    __slots__ = ("_error", "_native")

    def __init__(self, native: Native, flags: int) -> None:
        self._error = native.Error
        self._native: Native = native.Event(flags)

    def record(self, stream: Stream) -> None:
        """Mark the work put on a stream so far; what was marked before is forgotten."""
        try:
            self._native.record(stream._native)
        except self._error as error:
            raise translate(error) from error

    def done(self) -> bool:
        """Whether the marked work has ended; true before anything was marked."""
        try:
            return bool(self._native.query())
        except self._error as error:
            raise translate(error) from error

    def synchronize(self) -> None:
        """Wait, without the GIL, for the marked work.

        Raises:
            GpuError: it failed.
        """
        try:
            self._native.synchronize()
        except self._error as error:
            raise translate(error) from error

    def elapsed_ns(self, since: Event) -> int:
        """Time on the device between two events that have come, both made with `timing`; resolution about 0.5 µs."""
        try:
            milliseconds: float = self._native.time_since(since._native)
        except self._error as error:
            raise translate(error) from error
        return round(milliseconds * 1e6)


class Kernel:
    """A function of a module. Called with the context current."""

    __slots__ = ("_error", "_native", "_pack", "name")

    def __init__(self, native: Native, function: Native, name: str, arguments: str) -> None:
        self._error = native.Error
        self._native = function
        self._pack = struct.Struct(arguments).pack  # aligned as C does, which is how parameters lie
        self.name = name

    def launch(
        self,
        stream: Stream,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: int | float,
        shared_bytes: int = 0,
    ) -> None:
        """Put one launch on a stream.

        Args:
            stream: where.
            grid: blocks along x, y, z; missing ones are 1.
            block: threads of a block, likewise.
            arguments: as the format given to `Module.kernel` says.
            shared_bytes: dynamic shared memory of a block.

        Raises:
            GpuError: the driver refused.
        """
        try:
            # `prepared_async_call` would first call cuFuncSetBlockShape, which is deprecated and not needed
            self._native._launch_kernel(grid, block, self._pack(*arguments), shared_bytes, stream._native)
        except self._error as error:
            raise translate(error) from error


def _load(native: Native, image: bytes) -> Native:
    try:
        return native.module_from_buffer(image)
    except UnicodeDecodeError as error:
        # pycuda takes a buffer for the compiler's log that the driver does not write to when it fails earlier
        raise GpuError("The GPU's driver could not load an image of kernels.", "Run `edgemed doctor`.") from error


class Module:
    """Loaded PTX or a cubin. `kernel` may be called in any thread; the context need not be current."""

    __slots__ = ("_current", "_kernels", "_module", "_native")

    def __init__(self, native: Native, current: AbstractContextManager[None], image: bytes) -> None:
        self._module = native
        self._current = current
        self._native: Native = _load(native, image)
        self._kernels: list[Kernel] = []

    def kernel(self, name: str, arguments: str) -> Kernel:
        """A kernel by its name in the image.

        Args:
            name: as in the image: `extern "C"`, or mangled.
            arguments: one letter of the `struct` module for each parameter: `P` an address, `i`, `I`, `q`, `f`, `d`, …

        Raises:
            GpuError: there is no such kernel.
        """
        with self._current:
            try:
                kernel = Kernel(self._module, self._native.get_function(name), name, arguments)
            except self._module.Error as error:
                raise translate(error) from error
        self._kernels.append(kernel)
        return kernel

    def drop(self) -> None:
        """Let go of pycuda's objects, with the context current: they unload themselves."""
        for kernel in self._kernels:
            kernel._native = GONE
        self._kernels.clear()
        self._native = GONE
