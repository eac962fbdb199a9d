"""Four ways to send frames through the same execution contexts: ours, and three that people write.

All take the same frames (arrays in ordinary memory), give the outputs to the same reader, and run on whatever driver
pycuda has loaded. Each yields after every frame, so that whoever drives it can take the time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from edgemed.base.runner import RunnerInfo
from edgemed.runtime.cuda import Arena, Cuda
from edgemed.runtime.cuda_lane import CudaLane
from edgemed.runtime.execution import Execution
from edgemed.runtime.frames import Answer, Frame
from edgemed.runtime.ring import Ring

Feeds = Mapping[str, np.ndarray]


class Ours:
    """The slot ring in the caller's thread: the loop face, every stage left to the lane."""

    def __init__(self, cuda: Cuda, execution: Execution, slots: int) -> None:
        self._exit = ExitStack()
        lane = CudaLane(cuda, [execution], RunnerInfo("stand-in", "fp32", "gpu"), slots)
        self.ring = self._exit.enter_context(Ring(lane))

    def loop(self, feeds: Feeds, count: int) -> Iterator[Mapping[str, np.ndarray]]:
        clock = time.monotonic_ns
        for outcome in self.ring.run(Frame(number, feeds, clock()) for number in range(count)):
            assert isinstance(outcome, Answer), outcome
            yield outcome.outputs

    def close(self) -> None:
        self._exit.close()


class Buffers:
    """Pinned and device memory of one set of inputs and outputs, bound."""

    def __init__(self, arena: Arena, execution: Execution) -> None:
        self.inputs = {spec.name: arena.pinned(spec.shape, spec.dtype) for spec in execution.specs.inputs}
        self.outputs = {
            spec.name: arena.pinned(execution.output_shape(spec.name), spec.dtype) for spec in execution.specs.outputs
        }
        self.device = {name: arena.device(array.nbytes) for name, array in {**self.inputs, **self.outputs}.items()}

    def bind(self, execution: Execution) -> None:
        for name, address in self.device.items():
            execution.bind(name, address)


class Textbook:
    """One stream and pinned buffers: copy in, execute, copy out, synchronise; the loop of NVIDIA's Python samples."""

    def __init__(self, cuda: Cuda, execution: Execution) -> None:
        self._cuda, self._execution = cuda, execution
        self._arena = cuda.arena()
        self._stream = self._arena.stream()
        self._buffers = Buffers(self._arena, execution)
        self._buffers.bind(execution)

    def loop(self, feeds: Feeds, count: int) -> Iterator[Mapping[str, np.ndarray]]:
        buffers, stream = self._buffers, self._stream
        for _ in range(count):
            with self._cuda.current():
                for name, feed in feeds.items():
                    np.copyto(buffers.inputs[name], feed)
                for name, array in buffers.inputs.items():
                    stream.copy_in(buffers.device[name], array)
                self._execution.enqueue(stream.handle)
                for name, array in buffers.outputs.items():
                    stream.copy_out(array, buffers.device[name])
                stream.synchronize()
            yield buffers.outputs

    def close(self) -> None:
        self._arena.close()


class RunnerLoop:
    """A runner as Polygraphy's: device arrays kept, everything else of each `infer` checked and set anew."""

    def __init__(self, cuda: Cuda, execution: Execution) -> None:
        self._cuda, self._execution = cuda, execution
        self._arena = cuda.arena()
        self._stream = self._arena.stream()
        self._device: dict[str, tuple[int, int]] = {}
        self._host: dict[str, np.ndarray] = {}

    def infer(self, feeds: Feeds) -> dict[str, np.ndarray]:
        execution, stream, specs = self._execution, self._stream, self._execution.specs
        with self._cuda.current():
            for spec in specs.inputs:
                feed = np.ascontiguousarray(feeds[spec.name])
                if not spec.admits(str(feed.dtype), feed.shape):
                    raise ValueError(f"{spec} does not admit {feed.dtype} {feed.shape}")
                execution.bind(spec.name, self._room(spec.name, feed.nbytes))
                stream.copy_in(self._room(spec.name, feed.nbytes), feed)
            execution.set_input_shapes({})
            for spec in specs.outputs:
                shape = execution.output_shape(spec.name)
                if spec.name not in self._host or self._host[spec.name].shape != shape:
                    self._host[spec.name] = np.empty(shape, spec.dtype)
                execution.bind(spec.name, self._room(spec.name, self._host[spec.name].nbytes))
            execution.enqueue(stream.handle)
            for name, array in self._host.items():
                stream.copy_out(array, self._device[name][0])
            stream.synchronize()
        return self._host

    def _room(self, name: str, nbytes: int) -> int:
        if self._device.get(name, (0, -1))[1] < nbytes:
            self._device[name] = (self._arena.device(nbytes), nbytes)
        return self._device[name][0]

    def loop(self, feeds: Feeds, count: int) -> Iterator[Mapping[str, np.ndarray]]:
        return (self.infer(feeds) for _ in range(count))

    def close(self) -> None:
        self._arena.close()


class Bare:
    """The calls that ours ends in, and nothing else: three streams, events, one graph for each slot, pycuda's objects.

    No policy, no account, no check, no error handling; what a frame costs here is what the driver costs. Memory and
    graphs are those of a lane, so that the device does the same work.
    """

    def __init__(self, cuda: Cuda, execution: Execution, slots: int) -> None:
        self._cuda = cuda
        self._lane = CudaLane(cuda, [execution], RunnerInfo("stand-in", "fp32", "gpu"), slots)
        self._lane.__enter__()
        native = cuda.native
        self._copy_in, self._copy_out = native.memcpy_htod_async, native.memcpy_dtoh_async

    def loop(self, feeds: Feeds, count: int) -> Iterator[Mapping[str, np.ndarray]]:
        """Finishes the oldest slot, then fills and starts it again."""
        lane = self._lane
        slots = [self._calls(slot) for slot in lane._slots]
        into, out = lane._copy_in._native, lane._copy_out._native
        stream = lane._slots[0].context.compute
        compute, handle, copy_in, copy_out = stream._native, stream.handle, self._copy_in, self._copy_out
        with self._cuda.current():
            for number in range(count + len(slots)):
                inputs, outputs, copies_in, copies_out, graph, copied, computed, done = slots[number % len(slots)]
                if number >= len(slots):
                    done.synchronize()
                    yield outputs
                if number >= count:
                    continue
                for name, feed in feeds.items():
                    np.copyto(inputs[name], feed)
                for address, array in copies_in:
                    copy_in(address, array, into)
                copied.record(into)
                compute.wait_for_event(copied)
                graph.launch(handle)
                computed.record(compute)
                out.wait_for_event(computed)
                for array, address in copies_out:
                    copy_out(array, address, out)
                done.record(out)

    @staticmethod
    def _calls(slot: Any) -> tuple[Any, ...]:
        shaped, marks = slot.shaped, slot.marks
        events = (marks.copied._native, marks.computed._native, marks.done._native)
        return (shaped.inputs, shaped.outputs, shaped.copies_in, shaped.copies_out, slot.recorded.graph, *events)

    def close(self) -> None:
        self._lane.__exit__(None, None, None)
