"""The execution surface: one execution context of a loaded engine, as the CUDA lane drives it.

TensorRT's context stands behind it (`edgemed.engine`), and in tests and on GPUs without TensorRT a stand-in whose work
is kernels. Addresses are device addresses as integers, streams and events are driver handles as integers: this
protocol knows no CUDA library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edgemed.base.runner import RunnerSpecs

Shape = tuple[int, ...]


class Execution(Protocol):
    """Everything is called with the process's CUDA context current, by one thread at a time."""

    @property
    def specs(self) -> RunnerSpecs: ...

    @property
    def profiles(self) -> Mapping[str, tuple[Shape, Shape, Shape]]:
        """Least, usual and greatest shape of each input that varies, over all optimization profiles."""
        ...

    @property
    def greatest(self) -> Sequence[Mapping[str, Shape]]:
        """For each optimization profile the greatest shapes that it takes together; an empty one where none varies.

        Those of `profiles` may come from several, and then no one takes them together.
        """
        ...

    @property
    def capturable(self) -> bool:
        """Whether `enqueue` may be recorded into a CUDA graph, as far as is known; the driver has the last word."""
        ...

    def set_input_shapes(self, shapes: Mapping[str, Shape]) -> None:
        """Choose the shapes of the next `enqueue`.

        Raises:
            InputError: outside every profile.
        """
        ...

    def output_shape(self, name: str) -> Shape | None:
        """Of an output for the present input shapes; `None` where it depends on the data (see `allocator`)."""
        ...

    def bind(self, name: str, address: int) -> None:
        """Tell the device address of an input or output; it holds for every `enqueue` until bound anew.

        Raises:
            ValueError: not aligned to 256 bytes.
            GpuError: refused.
        """
        ...

    def grown(self, name: str) -> tuple[int, Shape]:
        """Address and shape of a data-dependent output after an execution has ended.

        The context owns the memory, and its next execution writes there again.

        Raises:
            GpuError: no shape was told.
        """
        ...

    def signal_input_consumed(self, event: int) -> None:
        """Have `event` (a driver handle; 0: none) recorded when the inputs have been read and may be overwritten."""
        ...

    def enqueue(self, stream: int) -> None:
        """Put one execution on a stream and return at once.

        Raises:
            GpuError: refused, or an earlier execution went wrong; what the library said is in the message. Part of the
                work may be on the stream all the same: wait for the stream before memory is used again.
        """
        ...

    def check(self) -> None:
        """Called when an execution has ended, also one that was replayed: its answer counts only if this returns.

        May be called by another thread while one enqueues.

        Raises:
            GpuError: the library reported an error since it was last asked.
        """
        ...

    def close(self) -> None:
        """Free the context. Doing it twice does no harm."""
        ...
