"""The CUDA lane: slots whose copies and computations overlap, ordered by events alone.

Each frame goes host → copy-in stream → its context's compute stream → copy-out stream → host; while one is computed,
the next is copied in and the last one out. On a device that shares the host's memory the same buffers are bound in
place and nothing is copied. After the first two frames of each slot nothing is allocated and each computation is one
graph launch, where the engine allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import GpuError, InputError
from edgemed.base.runner import RunnerInfo, RunnerSpecs, TensorSpec
from edgemed.runtime.arena import Arena
from edgemed.runtime.cuda import Cuda, Facts
from edgemed.runtime.cuda_slot import Context, CudaSlot, Key, Layouts, Marks
from edgemed.runtime.device_clock import DeviceClock
from edgemed.runtime.execution import Execution, Shape
from edgemed.runtime.lane import SLOTS, Shapes, Stage
from edgemed.runtime.layout import Layout, fixed_shape, greatest_outputs, greatest_shape
from edgemed.runtime.prepare import Prepare
from edgemed.runtime.replay import Replay
from edgemed.runtime.streams import Event, Stream


class CudaLane:
    """Drives execution contexts of one engine.

    Slot i uses context i mod n. Contexts have a stream each, so that small models may compute side by side; the slots
    of one context share its scratch memory, and so its stream. Outputs are read-only views.

    Args:
        cuda: the process's context.
        executions: contexts of one engine, all alike. The lane closes none of them.
        info: stands in every answer.
        slots: see `lane.SLOTS`. With an output whose shape depends on the data no more than there are executions: its
            memory belongs to the execution.
        graphs: replay what can be recorded; see `graphs` for what came of it.
        zero_copy: bind the host's memory itself. Default: where the device shares it.
        prepare: kernels that make inputs of raw frames; then the raw frames are what the lane takes.
        warm_up: run each slot on zeros when entering, so that the first frame is as fast as the others.
        spin: wait for answers on the processor: some microseconds sooner, at the price of one core.

    Attributes:
        timed: whether `stages` is wanted; set before entering. Costs six timing events a frame.
    """

    overlaps = True

    def __init__(
        self,
        cuda: Cuda,
        executions: Sequence[Execution],
        info: RunnerInfo,
        slots: int = SLOTS,
        *,
        graphs: bool = True,
        zero_copy: bool | None = None,
        prepare: Prepare | None = None,
        warm_up: bool = True,
        spin: bool = False,
    ) -> None:
        if slots < 1 or not executions:
            raise ValueError("a lane has at least one slot and one execution")
        self.timed = False
        self._cuda = cuda
        self._current = cuda.current()
        self._executions = executions
        self._info = info
        self._graphs = graphs
        self._zero_copy = cuda.facts.zero_copy if zero_copy is None else zero_copy
        self._prepare = prepare
        self._warm_up = warm_up
        self._spin = spin
        self._model = executions[0].specs
        self._profiles = executions[0].profiles
        self._specs = _specs(self._model, prepare)
        self._varying = tuple(spec for spec in self._specs.inputs if None in spec.shape)
        self._names = tuple(spec.name for spec in self._varying)
        self._dependent: tuple[TensorSpec, ...] = ()
        self._wanted_slots = slots
        self._arena: Arena | None = None
        self._slots: list[CudaSlot] = []
        self._replay: Replay | None = None

    # ---------------------------------------------------------------- what it is

    @property
    def specs(self) -> RunnerSpecs:
        """The model's, with raw frames in the place of the inputs that kernels make of them."""
        return self._specs

    @property
    def info(self) -> RunnerInfo:
        return self._info

    @property
    def slots(self) -> int:
        return len(self._slots) or self._wanted_slots

    @property
    def facts(self) -> Facts:
        """Of the device."""
        return self._cuda.facts

    @property
    def spins(self) -> bool:
        """Whether it waits for answers on the processor; else the thread that waits sleeps."""
        return self._spin

    @property
    def zero_copy(self) -> bool:
        """Whether the host's memory is bound in place."""
        return self._zero_copy

    @property
    def graphs(self) -> str:
        """`replayed`, `not yet recorded`, or `not used: …` and why."""
        return self._replay.state if self._replay is not None else "not yet recorded"

    @property
    def poisoned(self) -> GpuError | None:
        """The sticky error that makes every further frame fail, if there was one: the process has to be replaced."""
        return self._cuda.poison

    # ---------------------------------------------------------------- life

    def __enter__(self) -> CudaLane:
        """Allocate everything.

        Raises:
            GpuMemoryError: there is not enough memory; nothing is kept.
            GpuError: the driver or the execution refused; nothing is kept.
        """
        with ExitStack() as undo:
            arena = undo.enter_context(self._cuda.arena())
            undo.callback(self._forget)
            with self._current:
                self._build(arena)
                if self._warm_up:
                    self._run_empty()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the device and free everything."""
        arena = self._arena
        self._forget()
        if arena is not None:
            arena.close()

    def _forget(self) -> None:
        self._arena = None
        self._slots = []

    def _build(self, arena: Arena) -> None:
        layouts, usual = self._layouts(), self._usual_key()
        self._copy_in, self._copy_out = arena.stream(), arena.stream()
        contexts = [Context(execution, arena.stream()) for execution in self._executions]
        count = min(self._wanted_slots, len(contexts)) if self._dependent else self._wanted_slots
        self._streams = [self._copy_in, self._copy_out, *(context.compute for context in contexts)]
        self._clock = DeviceClock(arena, count) if self.timed else None
        self._replay = Replay(arena, self._no_graphs())
        if self._prepare is not None:
            self._prepare.load(arena, contexts[0].compute)
        slots = []
        for index in range(count):
            marks = Marks(arena, timed=self.timed, blocking=not self._spin)
            context = contexts[index % len(contexts)]
            slot = CudaSlot(index, arena, context, layouts, marks, usual, mapped=self._zero_copy)
            if self._prepare is not None:
                host, made, _ = slot.addresses()
                raw = {spec.name: host[spec.name] for spec in self._prepare.raw}
                slot.work = self._prepare.work(raw, made)
            slots.append(slot)
        self._arena, self._slots = arena, slots

    def _layouts(self) -> Layouts:
        """Places in blocks that have room for the greatest shapes."""
        made = {spec.name: spec for spec in self._prepare.makes} if self._prepare is not None else {}
        greatest = {spec.name: greatest_shape(spec, self._profiles) for spec in self._specs.inputs}
        rooms = greatest_outputs(self._executions[0], self._names, self._made_shapes())
        outputs = {spec.name: (spec.dtype, rooms[spec.name]) for spec in self._model.outputs if spec.name in rooms}
        self._dependent = tuple(spec for spec in self._model.outputs if spec.name not in outputs)
        return Layouts(
            host=Layout({spec.name: (spec.dtype, greatest[spec.name]) for spec in self._specs.inputs}),
            made=Layout({name: (spec.dtype, fixed_shape(spec)) for name, spec in made.items()}),
            outputs=Layout(outputs),
            varying=self._names,
            fixed={spec.name: fixed_shape(spec) for spec in self._specs.inputs if spec.name not in self._names},
        )

    def _made_shapes(self) -> dict[str, Shape]:
        """Of inputs that vary by the engine, and that kernels make in one size."""
        if self._prepare is None:
            return {}
        varying = {spec.name for spec in self._model.inputs if None in spec.shape}
        return {spec.name: fixed_shape(spec) for spec in self._prepare.makes if spec.name in varying}

    def _usual_key(self) -> Key:
        return tuple(self._profiles[name][1] for name in self._names)

    def _no_graphs(self) -> str:
        if not self._graphs:
            return "not wanted"
        if self._dependent:
            return f"the shape of output {self._dependent[0].name} depends on the data"
        return "" if self._executions[0].capturable else "the engine cannot be recorded"

    def _run_empty(self) -> None:
        """Twice each: the first time loads what is loaded lazily, the second records."""
        for _ in range(2):
            for slot in self._slots:
                self.start(slot.index)
                self.finish(slot.index)

    # ---------------------------------------------------------------- frames

    def inputs(self, slot: int, shapes: Shapes | None = None) -> Mapping[str, NDArray[Any]]:
        """See `Lane.inputs`: pinned memory. It must be contiguous in use: fill it, do not replace it."""
        mine = self._slots[slot]
        if shapes is None or not self._varying:
            return mine.shaped.inputs
        key = tuple(
            self._admitted(spec, tuple(shapes[spec.name]) if spec.name in shapes else now)
            for spec, now in zip(self._varying, mine.shaped.key, strict=True)
        )
        return (mine.shaped if key == mine.shaped.key else mine.choose(key)).inputs

    def _admitted(self, spec: TensorSpec, shape: Shape) -> Shape:
        least, _, greatest = self._profiles[spec.name]
        within = len(shape) == len(least) and all(
            low <= n <= high for low, n, high in zip(least, shape, greatest, strict=True)
        )
        if not within:
            raise InputError(
                f"Input {spec} cannot be {_text(shape)}: the engine takes {_text(least)} to {_text(greatest)}.",
                "Give such a shape, or build the engine for others.",
            )
        return shape

    def start(self, slot: int) -> None:
        """See `Lane.start`.

        Raises:
            GpuError: refused; sticky once one was (see `poisoned`).
            InputError: no single profile of the engine takes these shapes together.
        """
        mine = self._slots[slot]
        with self._current:
            try:
                if self._clock is not None:
                    mine.anchor = self._clock.anchor()
                self._set_shapes(mine)
                if self._zero_copy:
                    self._enqueue_mapped(mine)
                else:
                    self._enqueue_copied(mine)
            except BaseException:
                self._settle()
                raise

    def _set_shapes(self, mine: CudaSlot) -> None:
        context, shaped = mine.context, mine.shaped
        if context.key != shaped.key:
            context.key = None
            context.generation += 1
            context.execution.set_input_shapes(
                {**dict(zip(self._names, shaped.key, strict=True)), **self._made_shapes()}
            )
            context.key = shaped.key
        if not shaped.complete:
            mine.complete(context.execution)

    def _enqueue_copied(self, mine: CudaSlot) -> None:
        marks, shaped, compute = mine.marks, mine.shaped, mine.context.compute
        _mark(marks.begin_in, self._copy_in)
        for address, array in shaped.copies_in:
            self._copy_in.copy_in(address, array)
        marks.copied.record(self._copy_in)
        compute.wait(marks.copied)
        _mark(marks.begin_compute, compute)
        self._put(mine)
        marks.computed.record(compute)
        self._copy_out.wait(marks.computed)
        _mark(marks.begin_out, self._copy_out)
        for array, address in shaped.copies_out:
            self._copy_out.copy_out(array, address)
        marks.done.record(self._copy_out)

    def _enqueue_mapped(self, mine: CudaSlot) -> None:
        marks, compute = mine.marks, mine.context.compute
        _mark(marks.begin_compute, compute)
        self._put(mine)
        if self._clock is not None:
            marks.computed.record(compute)
        marks.done.record(compute)

    def _put(self, mine: CudaSlot) -> None:
        context = mine.context
        assert self._replay is not None
        self._replay.put(mine.recorded, context.generation, context.compute, partial(self._enqueue, mine))

    def _enqueue(self, mine: CudaSlot) -> None:
        context = mine.context
        if context.bound != mine.index:
            self._bind(mine)
        if mine.work is not None:
            mine.work(context.compute)
        context.execution.enqueue(context.compute.handle)

    def _bind(self, mine: CudaSlot) -> None:
        context = mine.context
        context.bound = -1
        host, made, outputs = mine.addresses()
        places = {**host, **made, **outputs}
        for spec in (*self._model.inputs, *self._model.outputs):
            if spec.name in places:
                context.execution.bind(spec.name, places[spec.name])
        context.bound = mine.index

    def finish(self, slot: int) -> Mapping[str, NDArray[Any]]:
        """See `Lane.finish`."""
        mine = self._slots[slot]
        with self._current:
            try:
                mine.marks.done.synchronize()
                mine.context.execution.check()
                outputs = mine.shaped.outputs
                if self._dependent:
                    outputs = {**outputs, **self._fetch_grown(mine)}
                if self._clock is not None:
                    mine.stages = self._place(mine)
            except Exception:  # on Ctrl-C the slot stays in flight, and is finished later
                self._settle()
                raise
        return outputs

    def _fetch_grown(self, mine: CudaSlot) -> dict[str, NDArray[Any]]:
        """Copy data-dependent outputs: where they are and how large is known only now."""
        assert self._arena is not None
        found = {}
        for spec in self._dependent:
            address, shape = mine.context.execution.grown(spec.name)
            nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
            block = mine.grow(self._arena, spec.name, nbytes)
            if nbytes:
                self._copy_out.copy_out(block, address)
            found[spec.name] = block.view(spec.dtype).reshape(shape)
            found[spec.name].flags.writeable = False
        mine.marks.done.record(self._copy_out)
        mine.marks.done.synchronize()
        return found

    def _place(self, mine: CudaSlot) -> Sequence[Stage]:
        marks, anchor = mine.marks, mine.anchor
        assert anchor is not None
        parts = [("compute", marks.begin_compute, marks.computed)]
        if not self._zero_copy:
            parts = [("copy-in", marks.begin_in, marks.copied), *parts, ("copy-out", marks.begin_out, marks.done)]
        return [(name, anchor.place(begin), anchor.place(end)) for name, begin, end in parts if begin is not None]

    def stages(self, slot: int) -> Sequence[Stage]:
        """See `Lane.stages`; how sure the times are says `device_clock`."""
        return self._slots[slot].stages

    def _settle(self) -> None:
        """After a failure: the device must have left the slot before it is used again."""
        for stream in self._streams:
            _quietly(stream.synchronize)


def _specs(model: RunnerSpecs, prepare: Prepare | None) -> RunnerSpecs:
    if prepare is None:
        return model
    made = {spec.name for spec in prepare.makes}
    return RunnerSpecs((*prepare.raw, *(spec for spec in model.inputs if spec.name not in made)), model.outputs)


def _mark(event: Event | None, stream: Stream) -> None:
    if event is not None:
        event.record(stream)


def _quietly(wait: Callable[[], None]) -> None:
    try:
        wait()
    except GpuError:  # the one that brought us here, or its consequence
        return


def _text(shape: Shape) -> str:
    return "×".join(map(str, shape))
