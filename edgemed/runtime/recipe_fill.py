"""Frames of a source through a bundle's recipe into a slot: the same code that calibration and evaluation ran."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.bundle.model import specs_of
from edgemed.bundle.read import Bundle
from edgemed.recipe.apply import Prepared, Preprocessor
from edgemed.recipe.image import plain
from edgemed.recipe.parts import Time
from edgemed.recipe.schema import Layout, Recipe, load_recipe
from edgemed.runtime.fill import Memory
from edgemed.runtime.frames import Drop, Frame
from edgemed.runtime.sources.base import PIXELS

_FILES = "Run it on files."


class RecipeFill:
    """A ring's fill for frames of pixels.

    Args:
        spec: the model's one input.
        recipe: how pixels become it; a raw one takes them as they are.
        layout: of the input.
        keep: keep the way back to the frame's pixels until `prepared` asks for it, or the frame was dropped.

    Attributes:
        recipe: that of the input.
        keeps: as `keep` says.

    Raises:
        InputError: the recipe makes several samples of one frame, or a sample of a whole volume.
    """

    def __init__(self, spec: TensorSpec, recipe: Recipe, layout: Layout = "NHWC", *, keep: bool = False) -> None:
        self.spec = spec
        self.recipe = recipe if recipe.raw else recipe.of(spec.name)
        self.layout: Layout = layout
        self.keeps = keep
        self._preprocessor: Preprocessor | None = None
        self._prepared: dict[int, Prepared] = {}
        self._varies = None in spec.shape
        if recipe.raw:
            return
        if recipe.input.tiles is not None:
            raise InputError("The recipe cuts each picture into tiles, and a stream makes one answer of each.", _FILES)
        self._preprocessor = Preprocessor(self.recipe, spec, layout)
        if self._preprocessor.kind == "volume":
            raise InputError("The model takes volumes, and a stream has none.", _FILES)
        if self._preprocessor.kind == "cine" and self.time is None:
            raise InputError(
                "The model takes cines, and the recipe does not say how long a clip is.", "Add [input.time]."
            )

    @classmethod
    def of(cls, bundle: Bundle) -> RecipeFill:
        """For a bundle of one input.

        Raises:
            InputError: it has several; or as above.
        """
        specs = specs_of(bundle)
        if len(specs.inputs) != 1:
            names = ", ".join(spec.name for spec in specs.inputs)
            raise InputError(f"The model takes {len(specs.inputs)} inputs ({names}), and a stream is one.", _FILES)
        named = bundle.manifest.inputs[0].layout
        layout: Layout = "NCHW" if named == "NCHW" else "NCDHW" if named == "NCDHW" else "NHWC"
        keep = any(output.geometry == "source" for output in bundle.manifest.outputs)
        return cls(specs.inputs[0], load_recipe(bundle.file(bundle.manifest.recipe.path)), layout, keep=keep)

    @property
    def time(self) -> Time | None:
        """Clips that the recipe makes; the source must give them (`sources.clips`)."""
        return None if self._preprocessor is None else self._preprocessor.recipe.input.time

    def __call__(self, frame: Frame, memory: Memory) -> None:
        """Write a frame into its slot.

        Raises:
            InputError: the contract refuses the frame, a step cannot be done on it, or the result does not fit.
        """
        sample = self._sample(frame)
        slot = memory({self.spec.name: sample.shape} if self._varies else None)[self.spec.name]
        np.copyto(slot, sample, casting="no")

    def _sample(self, frame: Frame) -> NDArray[Any]:
        if self._preprocessor is None:
            return self._as_it_is(frame.data[PIXELS])
        image = frame.image if frame.image is not None else plain(frame.data[PIXELS])
        prepared = self._preprocessor.prepare(image)
        if self.keeps:
            self._prepared[frame.id] = prepared
        return prepared.sample

    def _as_it_is(self, array: NDArray[Any]) -> NDArray[Any]:
        if array.ndim == len(self.spec.shape) - 1:
            array = array[None]
        if not self.spec.admits(str(array.dtype), array.shape):
            have = "×".join(map(str, array.shape))
            raise InputError(f"The frame is {array.dtype} {have}; the model takes {self.spec}.", "Give what it takes.")
        return array

    def prepared(self, frame: int) -> Prepared | None:
        """The way back of a frame that was computed; once."""
        return self._prepared.pop(frame, None)

    def dropped(self, drop: Drop) -> None:
        """A frame needs no way back any more; for the ring's `on_drop`."""
        self._prepared.pop(drop.frame, None)
