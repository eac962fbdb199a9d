"""One sample becomes the feeds of a model: the same code calibrates, evaluates, runs and serves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.base.spans import SpanLog
from edgemed.imaging.open import ImageFile, open_image
from edgemed.imaging.pieces import Pieces
from edgemed.imaging.read import read_arrays
from edgemed.imaging.sources import Sample, table_samples
from edgemed.recipe.apply import Prepared, Preprocessor
from edgemed.recipe.contract import check_contract
from edgemed.recipe.image import Image
from edgemed.recipe.schema import Kind, Layout, Recipe, TableInput
from edgemed.recipe.tiles import Stitcher

Feeds = dict[str, NDArray[Any]]

MOST_PER_SAMPLE = 8
"""Frames, clips or tiles of one file that calibration looks at, evenly spread: neighbours are much alike."""


@dataclass(frozen=True)
class Item:
    """One thing that a file makes: a frame, a clip, a volume, an array.

    Attributes:
        feeds: of each tile, or the one that is not tiled; tiles are cut as they are asked for, each time anew.
        prepared: the way back to the source; `None` for arrays.
    """

    feeds: Collection[Feeds]
    prepared: Prepared | None = None

    def answer(self, outputs: Iterable[Feeds]) -> Feeds:
        """The outputs for all feeds, in order, as one: maps of tiles are blended as they come.

        Raises:
            InputError: a tiled model does not answer with a map of the size of its input.
        """
        if self.prepared is None or self.prepared.tiling is None:
            return next(iter(outputs))
        maps: dict[str, Stitcher] = {}
        for output in outputs:
            for name, value in output.items():
                if name not in maps:
                    maps[name] = Stitcher(self.prepared.tiling, self.prepared.first_axis)
                maps[name].add(value)
        return {name: stitcher.finish() for name, stitcher in maps.items()}


@dataclass(frozen=True)
class _TileFeeds(Collection[Feeds]):
    """The feeds of what was prepared, one at a time."""

    name: str
    prepared: Prepared

    def __len__(self) -> int:
        return len(self.prepared)

    def __iter__(self) -> Iterator[Feeds]:
        return ({self.name: tile} for tile in self.prepared.tiles())

    def __contains__(self, feeds: object) -> bool:
        return any(feeds is each for each in self)


@dataclass(frozen=True)
class SampleReader:
    """Turns samples into feeds: images through the recipe, arrays as they are.

    A file of several frames is several images for a model of images, one volume for a model of volumes, and clips for a
    model of cines; a recipe with tiles makes several feeds of each image.

    Args:
        inputs: what the model takes.
        recipe: how pixels become its input.
        layouts: layout of each input by name.
    """

    inputs: Sequence[TensorSpec]
    recipe: Recipe
    layouts: dict[str, Layout]

    def read(self, sample: Sample | Path) -> Feeds:
        """Feeds from one sample; of one that makes several, those in the middle.

        Raises:
            InputError: unreadable, refused by the contract, or of a shape the model does not take; names the file.
        """
        return self.middle(sample)[0]

    def middle(self, sample: Sample | Path) -> tuple[Feeds, int]:
        """What `read` gives, and how many feeds the sample makes; of a row of a table, the most of its files."""
        (feeds,), made = self._chosen(sample, 1)
        return feeds, made

    def spread(self, sample: Sample | Path, most: int) -> list[Feeds]:
        """At most `most` of the feeds that a sample makes, evenly spread over them.

        Raises:
            InputError: as above.
        """
        return self._chosen(sample, most)[0]

    def _chosen(self, sample: Sample | Path, most: int) -> tuple[list[Feeds], int]:
        """Some feeds of a sample, and how many it makes."""
        sample = sample if isinstance(sample, Sample) else Sample.of(sample)
        if sample.holds_arrays:
            return [self._arrays(sample.path)], 1
        if sample.is_row:
            feeds, made = self._row(sample)
            return [feeds], made
        spec = self._only_input(sample.path)
        found: list[Feeds] = []
        made = 0
        with _named(sample.path):
            preprocessor = self._preprocessor(spec)
            pieces = _pieces(preprocessor, sample.path)
            chosen = _evenly(len(pieces), most)
            for position, index in enumerate(chosen):
                prepared = preprocessor.prepare(pieces.image(index))
                tiles, before = len(prepared), position * len(prepared)
                wanted = (i - before for i in _evenly(tiles * len(chosen), most) if before <= i < before + tiles)
                found += [{spec.name: tile} for tile in prepared.tiles(wanted)]
                made = tiles * len(pieces)
        return found, made

    @property
    def kind(self) -> Kind:
        """What one sample of a model with one input is made of.

        Raises:
            InputError: the input is no image.
        """
        return self._preprocessor(self.inputs[0]).kind

    def items(self, path: Path, file: ImageFile | None = None) -> Iterator[Item]:
        """Everything that a file makes, one after the other: frames, clips, rows of a table, or the one sample it is.

        Args:
            path: of the file.
            file: it, where it is open already.

        Raises:
            InputError: as above.
        """
        if Sample.of(path).holds_arrays:
            yield self.arrays(path)
            return
        if path.suffix.lower() == ".csv":
            for row in table_samples(path, self.recipe):
                yield Item((self._row(row)[0],))
            return
        pieces = self.pieces(path, file)
        for index in range(len(pieces)):
            yield self.item(pieces, index)

    def arrays(self, path: Path) -> Item:
        """An NPY or NPZ file, whatever its name.

        Raises:
            InputError: it is none, or holds what the model does not take.
        """
        return Item((self._arrays(path),))

    def pieces(self, path: Path, file: ImageFile | None = None) -> Pieces:
        """What an image file makes, unread: frames, clips, or one volume.

        Args:
            path: of the file.
            file: it, where it is open already; a `Series` of several files, too.

        Raises:
            InputError: the model is not for images, the file is none, or the contract refuses a cine.
        """
        preprocessor = self._preprocessor(self._only_input(path))
        with _named(path):
            pieces = _pieces(preprocessor, path, file)
            len(pieces)  # a cine may be too short
        return pieces

    def item(self, pieces: Pieces, index: int, spans: SpanLog | None = None) -> Item:
        """One of those, read and prepared.

        Args:
            pieces: from `pieces`.
            index: from 0.
            spans: is given the stages `decode` and `preprocess`.

        Raises:
            InputError: as above.
        """
        spec = self.inputs[0]
        log = SpanLog() if spans is None else spans
        with _named(pieces.path):
            with log.record("decode", index):
                image = pieces.image(index)
            with log.record("preprocess", index):
                prepared = self._preprocessor(spec).prepare(image)
        return Item(_TileFeeds(spec.name, prepared), prepared)

    def stream(self, samples: Sequence[Sample], done: Callable[[], None] | None = None) -> Iterator[Feeds]:
        """Feeds of each sample in turn, a few of those that make many; `done` is called after each sample was used."""
        for sample in samples:
            yield from self.spread(sample, MOST_PER_SAMPLE)
            if done is not None:
                done()

    def image(self, sample: Sample | Path) -> Image:
        """The image that a sample is prepared from; of a file of several frames, the one in the middle.

        Raises:
            InputError: as above.
        """
        path = sample.path if isinstance(sample, Sample) else sample
        file = open_image(path)
        return file.frame(file.frames // 2)

    # --- images

    def _only_input(self, path: Path) -> TensorSpec:
        if self.recipe.raw:
            raise InputError(f"{path} is an image, and the recipe takes arrays as they are.", "Give NPY or NPZ files.")
        if len(self.inputs) != 1:
            names = ", ".join(spec.name for spec in self.inputs)
            raise InputError(
                f"The model takes {len(self.inputs)} inputs ({names}); {path} is one image.",
                "Give NPZ files with one array per input, or a table: samples.csv with a file for each input.",
            )
        return self.inputs[0]

    def _preprocessor(self, spec: TensorSpec) -> Preprocessor:
        return Preprocessor(self.recipe.of(spec.name), spec, self.layouts[spec.name])

    # --- arrays and tables

    def _row(self, sample: Sample) -> tuple[Feeds, int]:
        """Feeds of one row of a table: a file for each image input, numbers for the others; see `middle`."""
        parts, values = dict(sample.parts), dict(sample.values)
        feeds: Feeds = {}
        most = 1
        for spec in self.inputs:
            given = self.recipe.inputs.get(spec.name)
            if isinstance(given, TableInput):
                feeds[spec.name] = _numbers(given, values, spec, sample)
            elif spec.name in parts:
                alone = replace(self, inputs=[spec], recipe=self.recipe.of(spec.name))
                part, made = alone.middle(parts[spec.name])
                feeds, most = feeds | part, max(most, made)
            else:
                raise InputError(
                    f"{sample.name} feeds {', '.join(parts) or 'no input'}; the model also takes {spec.name}.",
                    "Name every input of the model in the recipe: [inputs.NAME].",
                )
        return feeds, most

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


def _pieces(preprocessor: Preprocessor, path: Path, opened: ImageFile | None = None) -> Pieces:
    """What one file makes, unread; the contract judges a cine before its frames are counted."""
    file = open_image(path) if opened is None else opened
    given, kind = preprocessor.recipe.input, preprocessor.kind
    if kind == "cine":
        check_contract(given.contract, file.facts)
    return Pieces(file, path, kind, given.time)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Names the file in every refusal of what is done with it."""
    try:
        yield
    except InputError as error:
        if str(path) in error.what:
            raise
        raise InputError(f"{path}: {error.what}", error.hint) from error


def _evenly(items: int, most: int) -> list[int]:
    """At most `most` numbers below `items`, the middle of each of as many equal parts."""
    count = min(items, most)
    return [(2 * i + 1) * items // (2 * count) for i in range(count)]


def _numbers(given: TableInput, values: dict[str, float], spec: TensorSpec, sample: Sample) -> NDArray[Any]:
    row = np.array([values[column] for column in given.columns], np.float64)
    with np.errstate(all="ignore"):  # what overflows is refused by `_fit`
        scaled = (row - np.asarray(given.offset)) / np.asarray(given.divisor)
    return _fit(scaled[None], spec, Path(sample.name))


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
