"""What the kernels do for a recipe: its steps put into tables and short lists of operations, once for a format.

The plan holds what the recipe holds: whatever could go wrong with a single frame on the CPU (values outside float16, a
negative value before a gamma) must be excluded beforehand, from the range of values that the format can make. A recipe
of which that cannot be shown, or with a step that no kernel does, is refused, and goes the CPU's way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.recipe.apply import Prepared, Preprocessor
from edgemed.recipe.geometry import Transform
from edgemed.recipe.operations.state import State
from edgemed.recipe.schema import Layout, Recipe
from edgemed.runtime.kernels.block import Block, pack
from edgemed.runtime.kernels.lower import Lowering, Refusal, Refused
from edgemed.runtime.kernels.raw import KNOWN, RawFormat

__all__ = ["KernelPlan", "Refusal", "plan_kernels"]

_OUTPUTS = ("float32", "float16", "uint8")
_CHANNELS_FIRST = ("NCHW", "NCDHW")


@dataclass(frozen=True)
class KernelPlan:
    """One launch that makes a model's input out of a raw frame.

    Attributes:
        input: name of the model's input.
        layout: of it.
        raw: what frames are.
        shape: of the sample, with a batch of 1.
        dtype: of the sample.
        steps: what the launch does, in the recipe's order.
        transform: from pixels of the frame to pixels of the sample.
        bounds: the least and the greatest value that a sample can have.
        block: the launch's orders and tables.
    """

    input: str
    layout: Layout
    raw: RawFormat
    shape: tuple[int, ...]
    dtype: str
    steps: tuple[str, ...]
    transform: Transform
    bounds: tuple[float, float]
    block: Block

    @property
    def way_back(self) -> Prepared:
        """The way from the sample back to the frame, the same for all frames; its own sample is empty of values."""
        empty: NDArray[Any] = np.broadcast_to(np.zeros((), self.dtype), self.shape)
        return Prepared(empty, self.transform, None, 2 if self.layout in _CHANNELS_FIRST else 1)

    @property
    def nbytes(self) -> int:
        """Bytes of the sample."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def plan_kernels(recipe: Recipe, spec: TensorSpec, layout: Layout, raw: RawFormat) -> KernelPlan | Refusal:
    """Tables and launch of a recipe for frames of one format.

    Args:
        recipe: the whole one.
        spec: the model's input.
        layout: of `spec`.
        raw: what the frames are; the contract of the recipe is held against it.

    Raises:
        InputError: no frame of this format would be taken on the CPU either.
    """
    own = Preprocessor(recipe, spec, layout)
    blank = raw.image(np.zeros(raw.shape, raw.dtype))
    try:
        _check_whole(recipe, spec, raw)
        made = Lowering(own, raw, State.of(blank)).run()
    except Refused as refused:
        return refused.refusal
    prepared = own.prepare(blank)  # contract and sizes: what the CPU refuses of every frame is refused here
    shape = prepared.sample.shape
    walked = (len(made.program.rows), len(made.program.columns), made.channels)
    if walked != _sides(shape, layout):  # a launch writes by our tables into memory of that shape
        raise RuntimeError(f"The walk through the recipe ended at {walked}, the recipe itself at {shape}.")
    block = pack(made.program, raw, shape, spec.dtype, channels_first=layout in _CHANNELS_FIRST)
    if isinstance(block, str):
        return Refusal("resize", block)
    return KernelPlan(
        input=spec.name,
        layout=layout,
        raw=raw,
        shape=shape,
        dtype=spec.dtype,
        steps=tuple(made.done),
        transform=prepared.transform,
        bounds=made.program.bounds,
        block=block,
    )


def _sides(shape: tuple[int, ...], layout: Layout) -> tuple[int, int, int]:
    """Rows, columns, channels of a sample."""
    first, second, third = (*shape[-2:], shape[1]) if layout in _CHANNELS_FIRST else shape[-3:]
    return first, second, third


def _check_whole(recipe: Recipe, spec: TensorSpec, raw: RawFormat) -> None:
    if recipe.raw:
        raise Refused("input", "samples are arrays that are fed as they are")
    if spec.dtype not in _OUTPUTS:
        raise Refused("input", f"the model takes {spec.dtype}, the kernels make {' and '.join(_OUTPUTS)}")
    if not raw.counted and (not raw.color or raw.dtype != "uint8"):
        raise Refused("input", f"frames are {raw.pixels} of {raw.dtype}, the kernels take {', '.join(KNOWN)}")
    if recipe.input.tiles is not None:
        raise Refused("tiles", "tiles are cut and blended on the CPU")
    if recipe.input.axes is not None:
        raise Refused("axes", "volumes are turned on the CPU")
    if spec.shape[0] not in (None, 1):
        raise Refused("input", f"the model takes {spec.shape[0]} samples at once, the kernels make one")
    if raw.frames is not None and len(spec.shape) == 4 and raw.frames != 1:
        raise InputError(f"A sample is one picture, not {raw.frames}.", "Tell the format of single frames.")
