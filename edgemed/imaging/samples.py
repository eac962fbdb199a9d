"""One file becomes the feeds of a model: the same code calibrates, evaluates, runs and serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.imaging.read import ARRAY_SUFFIXES, read_arrays, read_image
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.schema import Layout, Recipe

Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class SampleReader:
    """Turns files into feeds: images through the recipe, arrays as they are (or through it, when it says how).

    Args:
        inputs: what the model takes.
        recipe: how pixels become its input.
        layouts: layout of each input by name.
    """

    inputs: Sequence[TensorSpec]
    recipe: Recipe
    layouts: dict[str, Layout]

    def read(self, path: Path) -> Feeds:
        """Feeds from one file.

        Raises:
            InputError: unreadable, or of a shape the model does not take; names the file.
        """
        return self._arrays(path) if path.suffix.lower() in ARRAY_SUFFIXES else self._image(path)

    def stream(self, paths: Sequence[Path], done: Callable[[], None] | None = None) -> Iterator[Feeds]:
        """Feeds of each file in turn; `done` is called after each was used."""
        for path in paths:
            yield self.read(path)
            if done is not None:
                done()

    def _image(self, path: Path) -> Feeds:
        if self.recipe.raw:
            raise InputError(f"{path} is an image, and the recipe takes arrays as they are.", "Give NPY or NPZ files.")
        if len(self.inputs) != 1:
            names = ", ".join(spec.name for spec in self.inputs)
            raise InputError(
                f"The model takes {len(self.inputs)} inputs ({names}); {path} is one image.",
                "Give NPZ files with one array per input.",
            )
        spec = self.inputs[0]
        preprocessor = Preprocessor(self.recipe, spec, self.layouts[spec.name])  # may refuse, before a byte is read
        image = read_image(path)
        try:
            return {spec.name: preprocessor(image.pixels)}
        except InputError as error:
            raise InputError(f"{path}: {error.what}", error.hint) from error

    def _arrays(self, path: Path) -> Feeds:
        arrays = read_arrays(path)
        if len(self.inputs) == 1 and len(arrays) == 1:
            arrays = {self.inputs[0].name: next(iter(arrays.values()))}
        names = sorted(spec.name for spec in self.inputs)
        if sorted(arrays) != names:
            have = ", ".join(name or "one array" for name in arrays)
            raise InputError(
                f"{path} holds {have}; the model takes {', '.join(names)}.",
                "Store one array per input, named like the input.",
            )
        return {spec.name: _fit(arrays[spec.name], spec, path) for spec in self.inputs}


def _fit(array: NDArray[Any], spec: TensorSpec, path: Path) -> NDArray[Any]:
    """Add the batch dimension if it is missing; otherwise the shape must be the model's."""
    if array.ndim == len(spec.shape) - 1:
        array = array[None]
    if not spec.admits(spec.dtype, array.shape):
        have = f"has the shape {'×'.join(map(str, array.shape))}" if array.ndim else "holds a single number"
        raise InputError(f"{path} {have}; the model takes {spec}.", "Give arrays of that shape.")
    if not _holds(np.dtype(spec.dtype), array):
        raise InputError(f"{path} holds numbers that {spec.dtype} cannot.", "Store what the model takes.")
    return array.astype(spec.dtype)


def _holds(dtype: np.dtype[Any], array: NDArray[Any]) -> bool:
    """Whether the finite values of `array` stay finite, and within bounds, as `dtype`."""
    if dtype.kind == "b" or not array.size:
        return True
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return bool(array.min() >= limits.min and array.max() <= limits.max)
