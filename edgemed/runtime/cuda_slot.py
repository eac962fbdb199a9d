"""One slot of a CUDA lane: its memory on both sides, its events, and its views for the shapes of a frame."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.runtime.arena import Arena
from edgemed.runtime.device_clock import Anchor
from edgemed.runtime.execution import Execution, Shape
from edgemed.runtime.lane import Stage
from edgemed.runtime.layout import Layout
from edgemed.runtime.prepare import Work
from edgemed.runtime.replay import Recorded
from edgemed.runtime.streams import Event, Stream

_KEPT_SHAPES = 16  # sets of views that a slot keeps; making one takes some ten microseconds

Key = tuple[Shape, ...]
"""Shapes of the inputs that vary, in the model's order: empty where none does."""


@dataclass(slots=True)
class Context:
    """An execution context and its stream.

    Attributes:
        key: shapes that were set last; `None`: unknown.
        generation: rises with each change of shapes.
        bound: slot whose addresses were bound last.
    """

    execution: Execution
    compute: Stream
    key: Key | None = None
    generation: int = 0
    bound: int = -1


@dataclass(slots=True)
class Shaped:
    """Views and copies of a slot for one set of shapes."""

    key: Key
    inputs: dict[str, NDArray[Any]]
    copies_in: list[tuple[int, NDArray[Any]]]  # to the address, from the array
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    copies_out: list[tuple[NDArray[Any], int]] = field(default_factory=list)
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Layouts:
    """What all slots of a lane have in common.

    Attributes:
        host: tensors that the host fills.
        made: inputs that kernels make out of those.
        outputs: whose shapes are known before the execution.
        varying: names of the inputs whose shapes vary, in the order of a key.
        fixed: shapes of the others that the host fills.
    """

    host: Layout
    made: Layout
    outputs: Layout
    varying: tuple[str, ...]
    fixed: Mapping[str, Shape]


class Marks:
    """Events of one slot. With `timed`, also those at the beginning of each stage."""

    __slots__ = ("begin_compute", "begin_in", "begin_out", "computed", "copied", "done")

    def __init__(self, arena: Arena, *, timed: bool, blocking: bool) -> None:
        self.copied: Event = arena.event(timing=timed)
        self.computed: Event = arena.event(timing=timed)
        self.done: Event = arena.event(timing=timed, blocking=blocking)
        begin = [arena.event(timing=True) if timed else None for _ in range(3)]
        self.begin_in, self.begin_compute, self.begin_out = begin


class CudaSlot:
    """See the module.

    Args:
        arena: owns everything.
        mapped: kernels use the host's memory in place; else there is a device copy of it.
        key: shapes until a frame says others.
    """

    def __init__(
        self, index: int, arena: Arena, context: Context, layouts: Layouts, marks: Marks, key: Key, *, mapped: bool
    ) -> None:
        self.index = index
        self.context = context
        self.marks = marks
        self.recorded = Recorded()
        self.work: Work | None = None
        self.anchor: Anchor | None = None
        self.stages: Sequence[Stage] = ()
        self.grown: dict[str, NDArray[Any]] = {}
        self._layouts = layouts
        self._mapped = mapped
        self._host_in, self._device_in = _pair(arena, layouts.host.nbytes, mapped)
        self._host_out, self._device_out = _pair(arena, layouts.outputs.nbytes, mapped)
        self._made = arena.device(layouts.made.nbytes) if layouts.made.nbytes else 0
        self._kept: OrderedDict[Key, Shaped] = OrderedDict()
        self.shaped = self.choose(key)

    def addresses(self) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """Device addresses of what the host fills, of what kernels make of it, and of the outputs."""
        layouts = self._layouts
        return (
            {name: self._device_in + offset for name, offset in layouts.host.offsets.items()},
            {name: self._made + offset for name, offset in layouts.made.offsets.items()},
            {name: self._device_out + offset for name, offset in layouts.outputs.offsets.items()},
        )

    def choose(self, key: Key) -> Shaped:
        """Take the views for these shapes, which the profile takes."""
        shaped = self._kept.get(key)
        if shaped is None:
            shaped = self._inputs_for(key)
            self._kept[key] = shaped
            if len(self._kept) > _KEPT_SHAPES:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        self.shaped = shaped
        return shaped

    def _inputs_for(self, key: Key) -> Shaped:
        layout = self._layouts.host
        shapes = {**self._layouts.fixed, **dict(zip(self._layouts.varying, key, strict=True))}
        spans = [] if self._mapped else layout.spans(shapes)
        copies = [(self._device_in + offset, self._host_in[offset : offset + length]) for offset, length in spans]
        return Shaped(key, layout.views(self._host_in, shapes), copies)

    def complete(self, execution: Execution) -> None:
        """Add the outputs' views, as the execution tells their shapes for these inputs.

        Raises:
            InputError: an output would not fit: its greatest shape is not that of the greatest input.
        """
        shaped, layout = self.shaped, self._layouts.outputs
        shapes: dict[str, Shape] = {}
        for name, room in layout.room.items():
            shape = execution.output_shape(name)
            if shape is None or layout.nbytes_of(name, shape) > room:
                raise InputError(
                    f"Output {name} needs more memory for these shapes than for the greatest ones.",
                    "Build the engine with a profile whose greatest shape gives the greatest output.",
                )
            shapes[name] = shape
        outputs = layout.views(self._host_out, shapes)
        for view in outputs.values():
            view.flags.writeable = False
        shaped.outputs = MappingProxyType(outputs)  # every answer of the slot gets this same one
        if not self._mapped:
            shaped.copies_out = [
                (self._host_out[offset : offset + length], self._device_out + offset)
                for offset, length in layout.spans(shapes)
            ]
        shaped.complete = True

    def grow(self, arena: Arena, name: str, nbytes: int) -> NDArray[Any]:
        """Pinned memory for a data-dependent output; twice what is needed, where it has to be made anew."""
        block = self.grown.get(name)
        if block is None or block.nbytes < nbytes:
            block = self.grown[name] = arena.pinned(max(2 * nbytes, 256), "uint8")
        return block[:nbytes]


def _pair(arena: Arena, nbytes: int, mapped: bool) -> tuple[NDArray[Any], int]:
    """Host memory and its device address: the same memory if mapped, else its copy's place."""
    if mapped:
        return arena.mapped((nbytes,), "uint8")
    return arena.pinned((nbytes,), "uint8"), arena.device(nbytes)
