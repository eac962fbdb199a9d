"""Several tensors in one block of memory, so that one copy moves them all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.runtime.execution import Execution, Shape

ALIGNMENT = 256  # TensorRT takes it for granted of every address

Span = tuple[int, int]  # offset and length in bytes


class Layout:
    """Where each tensor begins in a block that has room for the greatest shapes.

    Args:
        tensors: name, dtype and greatest shape of each.
    """

    def __init__(self, tensors: Mapping[str, tuple[str, Shape]]) -> None:
        self.offsets: dict[str, int] = {}
        self.room: dict[str, int] = {}
        self._dtypes = {name: np.dtype(dtype) for name, (dtype, _) in tensors.items()}
        end = 0
        for name, (_, shape) in tensors.items():
            self.offsets[name] = end
            self.room[name] = self.nbytes_of(name, shape)
            end = _aligned(end + self.room[name])
        self.nbytes = end

    def nbytes_of(self, name: str, shape: Shape) -> int:
        """Bytes of a tensor of that shape."""
        return math.prod(shape) * self._dtypes[name].itemsize

    def views(self, block: NDArray[Any], shapes: Mapping[str, Shape]) -> dict[str, NDArray[Any]]:
        """The tensors, as views of a block of bytes."""
        found = {}
        for name, offset in self.offsets.items():
            raw = block[offset : offset + self.nbytes_of(name, shapes[name])]
            found[name] = raw.view(self._dtypes[name]).reshape(shapes[name])
        return found

    def spans(self, shapes: Mapping[str, Shape]) -> list[Span]:
        """What to copy for these shapes: neighbours with only padding between them go together."""
        spans: list[Span] = []
        for name, offset in self.offsets.items():
            nbytes = self.nbytes_of(name, shapes[name])
            if not nbytes:
                continue
            if spans and _aligned(sum(spans[-1])) == offset:
                spans[-1] = (spans[-1][0], offset + nbytes - spans[-1][0])
            else:
                spans.append((offset, nbytes))
        return spans


def greatest_shape(spec: TensorSpec, profiles: Mapping[str, tuple[Shape, Shape, Shape]]) -> Shape:
    """Of an input: its profile's, or its only one."""
    if spec.name in profiles:
        return profiles[spec.name][2]
    return fixed_shape(spec)


def greatest_outputs(execution: Execution, names: Sequence[str], others: Mapping[str, Shape]) -> dict[str, Shape]:
    """Of each output, the largest of its shapes for the greatest inputs of each profile; not of data-dependent ones.

    Args:
        execution: is asked; its input shapes are others afterwards.
        names: inputs that may have any shape of a profile.
        others: the only shapes of other inputs that vary by the engine.

    Raises:
        InputError: no profile takes `others`.
    """
    found: dict[str, list[Shape | None]] = {spec.name: [] for spec in execution.specs.outputs}
    refused: InputError | None = None
    for greatest in execution.greatest:
        try:
            execution.set_input_shapes({**{name: greatest[name] for name in names}, **others})
        except InputError as error:  # this profile does not take `others`
            refused = error
            continue
        for name, shapes in found.items():
            shapes.append(execution.output_shape(name))
    if refused is not None and not all(found.values()):
        raise refused
    known = {name: [shape for shape in shapes if shape is not None] for name, shapes in found.items()}
    return {name: max(shapes, key=math.prod) for name, shapes in known.items() if len(shapes) == len(found[name])}


def fixed_shape(spec: TensorSpec) -> Shape:
    """The shape of a tensor none of whose dimensions varies."""
    assert None not in spec.shape, f"{spec} varies, and has no profile"
    return tuple(n or 0 for n in spec.shape)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
