"""The slots' shared memory: one area for inputs, which the worker can only read, and one for outputs.

Both are anonymous files whose size is sealed: a worker cannot shrink one under the parent's feet. The inputs are
sealed against new writable mappings too, so whatever a worker does, the frame it was given stays what it was, and can
be given to the next one. Outputs are made anew for each worker: a lost one has no way to write into its successor's.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError, os_errors_as_resource
from edgemed.base.runner import TensorSpec
from edgemed.runtime.contained.protocol import ProtocolError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

HEADER: Final = mmap.PAGESIZE
"""First bytes of the outputs: the worker's count of its steps (uint64), and room."""

_F_SEAL_FUTURE_WRITE: Final = 0x10  # linux/fcntl.h, since 5.1; the fcntl module does not name it
_ALIGN: Final = 256  # what CUDA gives its own allocations
_MAX_BYTES: Final = 64 << 30
_DTYPES: Final = frozenset(
    ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]
)


@dataclass(frozen=True)
class Area:
    """One tensor's place in each slot, large enough for its greatest shape."""

    spec: TensorSpec
    greatest: Shape
    offset: int
    dtype: np.dtype[Any]

    def admits(self, shape: Shape) -> bool:
        """Whether an array of that shape fits the spec and the area."""
        return self.spec.admits(self.spec.dtype, shape) and all(
            0 <= have <= most for have, most in zip(shape, self.greatest, strict=True)
        )


@dataclass(frozen=True)
class Layout:
    """Where the tensors of every slot lie. Parent and worker compute it alike, from the same specs."""

    areas: tuple[Area, ...]
    slots: int
    stride: int
    header: int

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.header + self.slots * self.stride

    @cached_property
    def fixed(self) -> bool:
        """Whether every shape is known beforehand."""
        return all(None not in area.spec.shape for area in self.areas)

    @staticmethod
    def of(specs: tuple[TensorSpec, ...], greatest: Shapes, slots: int, header: int = 0) -> Layout:
        """Lay out tensors one after the other; slots begin on pages.

        Args:
            specs: the tensors.
            greatest: shape of those that vary, at their greatest.
            slots: how many times.
            header: bytes before the first slot.

        Raises:
            InputError: the greatest shape of one is not known, or not of its spec, or all of it would be too large.
        """
        areas, offset = [], 0
        for spec in specs:
            area = Area(spec, _greatest(spec, greatest), offset, _dtype(spec))
            areas.append(area)
            size = int(np.prod(area.greatest, dtype=object)) * area.dtype.itemsize
            offset += -(-size // _ALIGN) * _ALIGN
        stride = max(-(-offset // mmap.PAGESIZE) * mmap.PAGESIZE, mmap.PAGESIZE)
        layout = Layout(tuple(areas), slots, stride, header)
        if layout.size > _MAX_BYTES:
            raise InputError(
                f"{slots} slots of this model take {layout.size >> 30} GiB.", "Use a smaller batch, or fewer slots."
            )
        return layout


def _greatest(spec: TensorSpec, greatest: Shapes) -> Shape:
    if None not in spec.shape:
        return tuple(d for d in spec.shape if d is not None)
    shape = greatest.get(spec.name)
    if shape is None:
        raise InputError(f"The greatest shape of {spec} is not known.", "Say it, as `greatest`.")
    if not spec.admits(spec.dtype, tuple(shape)):
        raise InputError(f"{spec} can never have the shape {shape}.", "Correct `greatest`.")
    return tuple(shape)


def _dtype(spec: TensorSpec) -> np.dtype[Any]:
    if spec.dtype not in _DTYPES:
        raise InputError(f"{spec} is of a type that cannot be shared.", "Use a model with numbers as inputs.")
    return np.dtype(spec.dtype)


def create(name: str, size: int) -> int:
    """A descriptor of fresh shared memory whose size nobody can change.

    Raises:
        ResourceError: memory or descriptors ran out.
    """
    with os_errors_as_resource():
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor


def forbid_writing(descriptor: int) -> bool:
    """Seal against writers other than those that have mapped it already; `False` where the kernel is too old."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
    except OSError:
        return False
    return True


class Slots:
    """A mapping of the memory, seen as arrays.

    Args:
        descriptor: of the memory; it may be closed afterwards.
        layout: what lies where.
        write: map it for writing.

    Raises:
        ResourceError: it cannot be mapped, or its size is not the layout's.
    """

    def __init__(self, descriptor: int, layout: Layout, *, write: bool) -> None:
        self.layout = layout
        with os_errors_as_resource():
            if os.fstat(descriptor).st_size != layout.size:
                raise ProtocolError("shared memory of another size")
            self._map = mmap.mmap(descriptor, layout.size, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
        whole: Shapes = {area.spec.name: area.greatest for area in layout.areas}
        self._last = [(whole, self._views(slot, whole)) for slot in range(layout.slots)]

    @property
    def steps(self) -> NDArray[np.uint64]:
        """The header's count, shape `(1,)`."""
        return np.ndarray((1,), np.uint64, self._map)

    def arrays(self, slot: int, shapes: Shapes | None = None) -> dict[str, NDArray[Any]]:
        """Views of a slot's tensors.

        Args:
            slot: index from 0.
            shapes: of those that vary; the others need not be named. `None`: as the last time.

        Raises:
            InputError: a shape that does not fit.
        """
        last, views = self._last[slot]
        if shapes is None or self.layout.fixed or shapes == last:
            return dict(views)
        wanted = {**last, **shapes}
        for area in self.layout.areas:
            if not area.admits(wanted[area.spec.name]):
                raise InputError(
                    f"{area.spec} cannot have the shape {wanted[area.spec.name]}: its greatest is {area.greatest}.",
                    "Give smaller or fewer frames at a time.",
                )
        if wanted.keys() != last.keys():
            raise InputError(f"There is no tensor {next(iter(wanted.keys() - last.keys()))}.", "Check the names.")
        views = self._views(slot, wanted)
        self._last[slot] = (wanted, views)
        return dict(views)

    def takes(self, feeds: Mapping[str, NDArray[Any]]) -> bool:
        """Whether feeds fit a slot: names, types and shapes."""
        if len(feeds) != len(self.layout.areas):
            return False
        for area in self.layout.areas:
            feed = feeds.get(area.spec.name)
            if feed is None or feed.dtype != area.dtype:
                return False
            if feed.shape != area.spec.shape and not area.admits(feed.shape):
                return False
        return True

    def _views(self, slot: int, shapes: Shapes) -> dict[str, NDArray[Any]]:
        start = self.layout.header + slot * self.layout.stride
        return {
            area.spec.name: np.ndarray(shapes[area.spec.name], area.dtype, self._map, offset=start + area.offset)
            for area in self.layout.areas
        }


def pack_shapes(layout: Layout, shapes: Shapes) -> bytes:
    """Dimensions of all tensors, four bytes each; nothing where all are fixed."""
    if layout.fixed:
        return b""
    dims = [d for area in layout.areas for d in shapes[area.spec.name]]
    return np.array(dims, "<u4").tobytes()


def unpack_shapes(layout: Layout, body: bytes) -> tuple[Shapes | None, bytes]:
    """Read what `pack_shapes` wrote; gives the shapes and the bytes behind them.

    Raises:
        ProtocolError: too short, or a shape that does not fit its area.
    """
    if layout.fixed:
        return None, body
    size = 4 * sum(len(area.greatest) for area in layout.areas)
    if len(body) < size:
        raise ProtocolError("shapes that cannot be read")
    dims = iter(np.frombuffer(body, "<u4", size // 4).tolist())
    shapes = {area.spec.name: tuple(next(dims) for _ in area.greatest) for area in layout.areas}
    if not all(area.admits(shapes[area.spec.name]) for area in layout.areas):
        raise ProtocolError("a shape that does not fit its slot")
    return shapes, body[size:]
