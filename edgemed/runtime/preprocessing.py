"""Where frames of a stream become the model's input: by kernels on the GPU where the recipe allows it, else on the CPU.

It is decided once, when the engine is loaded, by the format of the source: what a camera was set to, or what the first
frame is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgemed.base.errors import InputError
from edgemed.recipe.apply import Prepared
from edgemed.recipe.image import plain
from edgemed.recipe.parts import Time
from edgemed.runtime.fill import Memory
from edgemed.runtime.frames import Drop, Frame
from edgemed.runtime.kernels.device import KernelPrepare, unfit
from edgemed.runtime.kernels.fill import RawFill
from edgemed.runtime.kernels.plan import KernelPlan, Refusal, plan_kernels
from edgemed.runtime.kernels.raw import RawFormat
from edgemed.runtime.recipe_fill import RecipeFill
from edgemed.runtime.sources.base import PIXELS
from edgemed.runtime.sources.peek import PeekedSource
from edgemed.runtime.sources.v4l2 import V4l2Source

if TYPE_CHECKING:
    from edgemed.runtime.cuda import Facts

Wanted = Literal["auto", "gpu", "cpu"]


@dataclass(frozen=True)
class Way:
    """Where frames are prepared.

    Attributes:
        gpu: by the kernels; else on the CPU.
        why: on the CPU although there is a GPU, in half a sentence.
    """

    gpu: bool
    why: str | None = None

    def __str__(self) -> str:
        if self.gpu:
            return "GPU kernels"
        return "CPU" if self.why is None else f"CPU ({self.why})"


class Preprocessing:
    """The fill of a ring, and the choice of kernels for its lane: both go the same way.

    A lane with kernels asks for them by `kernels` when it is entered. One that never asks gets the model's own input.
    A frame that is not what the kernels were planned for fails alone; no frame is prepared for another's format.

    Args:
        cpu: the bundle's fill.
        source: of the frames; one that makes clips stands behind it.
        wanted: `cpu` and `gpu` leave no choice.
        mixed: frames may differ from one to the next: then they go to the CPU, unless the GPU is wanted.

    Attributes:
        way: how frames are prepared.
    """

    def __init__(self, cpu: RecipeFill, source: PeekedSource, wanted: Wanted = "auto", *, mixed: bool = False) -> None:
        self._cpu = cpu
        self._gpu: RawFill | None = None
        self._source = source
        self._wanted = wanted
        self._mixed = mixed
        self.way = Way(gpu=False)

    def kernels(self, facts: Facts) -> KernelPrepare | None:
        """The kernels, or none; a `prepare.Choice`. May open the source and wait for its first frame.

        Raises:
            InputError: `gpu` is wanted, and the kernels do not take over the recipe.
            EdgemedError: the source cannot be opened, or has failed.
        """
        found = self._ruled_out(facts) or self._plan()
        if isinstance(found, str):
            if self._wanted == "gpu":
                raise InputError(f"The GPU cannot prepare these frames: {found}.", "Leave out --preprocess gpu.")
            self.way = Way(False, found)
            return None
        self._gpu = RawFill(found, self._cpu.recipe, PIXELS)
        self.way = Way(True)
        return KernelPrepare(found, PIXELS)

    def _ruled_out(self, facts: Facts) -> str | None:
        """Why it is the CPU, whatever the frames are."""
        if self._wanted == "cpu":
            return "as was asked for"
        if self._mixed and self._wanted == "auto":
            return "files may differ from one to the next"
        if self._cpu.recipe.raw:
            return "samples are arrays that are fed as they are"
        return unfit(facts)

    def _plan(self) -> KernelPlan | str:
        camera = self._source.source
        if isinstance(camera, V4l2Source) and self.time is None:  # clips are made of decoded frames
            camera.open()
            if camera.raw_format is not None:
                found = self._plan_of(camera.raw_format)
                camera.raw = isinstance(found, KernelPlan)
                return found
        first = self._source.first()
        if first is None:
            return "there is no frame"
        raw = _format(first, self.time)
        return "frames are no pictures that kernels know" if raw is None else self._plan_of(raw)

    def _plan_of(self, raw: RawFormat) -> KernelPlan | str:
        try:
            found = plan_kernels(self._cpu.recipe, self._cpu.spec, self._cpu.layout, raw)
        except InputError as error:  # the CPU says so of each frame, or of the first alone
            return f"the first frame would be refused: {error.what.rstrip('.')}"
        if isinstance(found, Refusal):
            return found.reason if found.step == "input" else f"step {found.step}: {found.reason}"
        return found

    @property
    def time(self) -> Time | None:
        """Clips that the recipe makes; the source must give them (`sources.clips`)."""
        return self._cpu.time

    def __call__(self, frame: Frame, memory: Memory) -> None:
        """Write a frame into its slot.

        Raises:
            InputError: as of `RecipeFill` or `RawFill`.
        """
        (self._gpu or self._cpu)(frame, memory)

    def prepared(self, frame: int) -> Prepared | None:
        """The way back of a frame that was computed, where some output needs it; once."""
        if self._gpu is None:
            return self._cpu.prepared(frame)
        return self._gpu.prepared(frame) if self._cpu.keeps else None

    def dropped(self, drop: Drop) -> None:
        """A frame needs no way back any more; for the ring's `on_drop`."""
        self._cpu.dropped(drop)


def _format(first: Frame, time: Time | None) -> RawFormat | None:
    """Of frames like this one, or of clips of such frames; `None` for what is neither gray nor colour of integers."""
    pixels = first.data[PIXELS]
    if pixels.dtype.kind not in "ui" or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        return None
    image = first.image if first.image is not None else plain(pixels)
    if time is not None:
        shape = (time.frames, *image.pixels.shape)
        image = replace(image, pixels=np.broadcast_to(image.pixels, shape), valid=None, stacked=True)
    return RawFormat.of(image)
