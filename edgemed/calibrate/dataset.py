"""The calibration set: which samples, with the hash of each; read one at a time, never held in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_file, sha256_json
from edgemed.base.runner import TensorSpec
from edgemed.imaging.read import ARRAY_SUFFIXES, list_samples, read_arrays, read_image
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.schema import Layout, Recipe

SCHEMA: Final = "edgemed/calibration-set/1"
RECIPE_FILE = "recipe.toml"
ENOUGH_IMAGES = 100  # fewer give unstable ranges; NVIDIA's and Ultralytics' guides ask for about 500
MAX_IMAGES = 512

Feeds = dict[str, NDArray[Any]]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SampleEntry(BaseModel):
    """One file of the set, its path relative to the set's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    sha256: Digest


class CalibrationManifest(BaseModel):
    """`calibration.json`: the samples that the scales were taken from, in the order of use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["edgemed/calibration-set/1"] = Field(SCHEMA, alias="schema")
    samples: Annotated[tuple[SampleEntry, ...], Field(min_length=1)]
    found: Annotated[int, Field(ge=1, description="files in the folder; more than were used when it holds too many")]
    digest: Digest


@dataclass(frozen=True)
class CalibrationSet:
    """Samples of a folder, readable as feeds for a model."""

    folder: Path
    manifest: CalibrationManifest

    def __len__(self) -> int:
        return len(self.manifest.samples)

    @property
    def paths(self) -> list[Path]:
        return [self.folder / entry.file for entry in self.manifest.samples]


def open_calibration_set(folder: Path, *, max_images: int = MAX_IMAGES) -> CalibrationSet:
    """List and hash the samples of a folder; of too many, an evenly drawn, reproducible choice is used.

    Raises:
        InputError: no folder, or no samples in it.
    """
    paths = list_samples(folder)
    if not paths:
        raise InputError(
            f"{folder} holds no images or arrays.", "Put at least 100 typical images there (PNG, JPEG, TIFF or NPY)."
        )
    found = len(paths)
    if found > max_images:
        paths = sorted(random.Random(0).sample(paths, max_images))  # noqa: S311 - a reproducible choice, not a secret
    samples = tuple(SampleEntry(file=p.relative_to(folder).as_posix(), sha256=sha256_file(p)) for p in paths)
    digest = sha256_json(sorted(s.sha256 for s in samples))
    return CalibrationSet(folder, CalibrationManifest(samples=samples, found=found, digest=digest))


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
        image = read_image(path)
        try:
            return {spec.name: Preprocessor(self.recipe, spec, self.layouts[spec.name])(image.pixels)}
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
    fits = array.ndim == len(spec.shape) and all(
        want is None or want == have for want, have in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        have = "×".join(map(str, array.shape))
        raise InputError(f"{path} has the shape {have}; the model takes {spec}.", "Give arrays of that shape.")
    return array.astype(spec.dtype)
