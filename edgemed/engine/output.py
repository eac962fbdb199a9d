"""Outputs whose size only the data decides: memory that TensorRT asks for while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgemed.base.errors import EdgemedError, GpuError
from edgemed.engine.bridge import Native
from edgemed.engine.tensors import varying

ALIGNMENT = 256  # bytes; NvInferRuntime.h asks it of every address


@dataclass(frozen=True)
class DeviceCalls:
    """What an execution needs of CUDA and TensorRT's bindings do not give: the runtime hands it in.

    Attributes:
        stream: handle of a stream on which profiles are switched; `enqueue` may use any other.
        synchronize: waits until the device has done everything that was put on any stream.
        allocate: device address of so many bytes, aligned to 256; raises `GpuMemoryError`.
        free: gives an address of `allocate` back once the device has done with it.
        aux_streams: handles for TensorRT's auxiliary streams, none of them `stream` or one that is enqueued on;
            where there are fewer than it wants, it makes its own.
        lost: told of an error after which nothing on the device can be trusted, before it is raised.
    """

    stream: int
    synchronize: Callable[[], None]
    allocate: Callable[[int], int]
    free: Callable[[int], None]
    aux_streams: tuple[int, ...] = ()
    lost: Callable[[GpuError], None] = lambda _error: None


class GrownOutput:
    """Memory of one output. It grows when an execution needs more, and stays until the context is closed."""

    def __init__(self, device: DeviceCalls) -> None:
        self._device = device
        self._bytes = 0
        self.address = 0
        self.shape: tuple[int, ...] | None = None
        self.error: EdgemedError | None = None

    def reallocate(self, size: int, alignment: int = ALIGNMENT) -> int:
        """Address of at least `size` bytes, or 0 where there are none. Never raises: the caller is C++."""
        self.shape = None
        if size <= self._bytes:
            return self.address
        try:
            self.release()
            self.address, self._bytes = self._device.allocate(size), size
            if self.address % alignment:
                self.release()  # or the next, smaller execution would be given it
                raise GpuError(f"An output wants memory aligned to {alignment} bytes.", "Report this as a bug.")
        except Exception as error:
            self.error = error if isinstance(error, EdgemedError) else GpuError(f"{error}", "Run again with --debug.")
            return 0
        return self.address

    def take_error(self) -> EdgemedError | None:
        """Why the last `reallocate` gave no memory, told once."""
        error, self.error = self.error, None
        return error

    def release(self) -> None:
        """Free the memory. Doing it twice does no harm."""
        address, self.address, self._bytes = self.address, 0, 0
        if address:
            self._device.free(address)


def make_output_allocator(trt: Native, output: GrownOutput) -> Native:
    """An `IOutputAllocator` of this module that asks `output`. It must outlive the context that it is set on."""

    class OutputAllocator(trt.IOutputAllocator):  # type: ignore[misc]  # the base is imported at run time
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output(self, _tensor: str, _memory: int, size: int, alignment: int) -> int:
            return output.reallocate(size, alignment)

        # from 10 on; its stream is the one that is enqueued on
        def reallocate_output_async(self, _tensor: str, _memory: int, size: int, alignment: int, _stream: int) -> int:
            return output.reallocate(size, alignment)

        def notify_shape(self, _tensor: str, shape: Native) -> None:
            sizes = varying(shape)
            output.shape = None if None in sizes else tuple(size for size in sizes if size is not None)

    return OutputAllocator()
