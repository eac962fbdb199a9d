"""Apply a recipe: pixels in, one sample of the model's input out. The same code calibrates, evaluates and serves."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.recipe.clips import clip_frames, clip_of
from edgemed.recipe.contract import check_contract
from edgemed.recipe.geometry import Transform
from edgemed.recipe.image import Image, plain
from edgemed.recipe.operations import run_step
from edgemed.recipe.operations.intensity import gray, rgb, scaled
from edgemed.recipe.operations.spatial import resized
from edgemed.recipe.operations.state import State
from edgemed.recipe.orient import oriented, turn_to
from edgemed.recipe.schema import Kind, Layout, Recipe
from edgemed.recipe.steps import Resize, Step
from edgemed.recipe.tiles import Tiling, plan_tiles

_AS_ARRAYS = "Give samples as NPY files that hold the model's input as it is."
_CHANNELS_FIRST = ("NCHW", "NCDHW")


@dataclass(frozen=True)
class Prepared:
    """One sample, and the way back to the image it was made of.

    Attributes:
        sample: with a batch of 1, in the input's layout and dtype.
        transform: from pixels of the image to pixels of the sample.
        tiling: where the recipe asks for tiles; `sample` is then the whole image.
        first_axis: of `sample` that is not batch or channels.
    """

    sample: NDArray[Any]
    transform: Transform
    tiling: Tiling | None = None
    first_axis: int = 1

    def __len__(self) -> int:
        """Feeds that it makes: tiles, or 1."""
        return 1 if self.tiling is None else len(self.tiling)

    def tiles(self, wanted: Iterable[int] | None = None) -> Iterator[NDArray[Any]]:
        """What the model is fed, one after the other: each tile, or the one sample.

        Args:
            wanted: numbers of the tiles, from 0; default all.
        """
        if self.tiling is None:
            yield self.sample
        else:
            yield from self.tiling.cut(self.sample, self.first_axis, wanted)

    def to_source(
        self, answer: NDArray[Any], *, how: Literal["nearest", "linear"] = "linear", fill: float = 0
    ) -> NDArray[Any]:
        """A map that the model answered with, on the pixels of the image.

        Args:
            answer: with its batch of 1: rows and columns, slices before them for a volume, and classes where the sample
                has its channels, or none. It may be coarser than the sample.
            how: linear is for probabilities, nearest keeps labels whole.
            fill: where the recipe cut the image off.

        Returns:
            `(rows, columns)` or `(slices, rows, columns)`, and classes behind them.
        """
        spatial = self.sample.ndim - 2
        if answer.ndim not in (spatial + 1, spatial + 2) or len(answer) != 1:
            raise InputError(f"An answer of the shape {answer.shape} is no map.", "Bring back maps of one sample.")
        one = answer[0]
        if self.first_axis == 2 and one.ndim == spatial + 1:
            one = np.moveaxis(one, 0, -1)
        back = self.transform.map_to_source(one if spatial == 3 else one[None], how=how, fill=fill)
        return back if spatial == 3 else back[0]


@dataclass(frozen=True)
class Traced:
    """What one step made.

    Attributes:
        name: of the step.
        note: its settings.
        pixels: `(slices, rows, columns)`, or with channels behind them.
        elapsed_ns: of this step alone.
    """

    name: str
    note: str
    pixels: NDArray[Any]
    elapsed_ns: int


@dataclass(frozen=True)
class Preprocessor:
    """Turns images into samples for one input of a model.

    Args:
        recipe: what to do.
        spec: the model's input; a varying dimension is `None`.
        layout: where the channels stand in `spec`: last, or second for `"NCHW"` and `"NCDHW"`.
    """

    recipe: Recipe
    spec: TensorSpec
    layout: Layout = "NHWC"

    def __post_init__(self) -> None:
        rank, kind = len(self.spec.shape), self.recipe.input.kind
        if rank not in (4, 5):
            raise InputError(f"Input {self.spec} is not an image (batch, rows, columns, channels).", _AS_ARRAYS)
        if (rank == 4 and self.recipe.input.time is not None) or kind not in (
            (None, "image") if rank == 4 else (None, "volume", "cine")
        ):
            made = kind or "cine"
            raise InputError(
                f"The recipe makes one sample of a whole {made}, and input {self.spec} has {rank} dimensions.",
                "Images go into 4 dimensions, volumes and cines into 5; correct the kind in the recipe.",
            )
        if self.channels not in (1, 3):
            raise InputError(f"Input {self.spec} takes {self.channels} channels; images have 1 or 3.", _AS_ARRAYS)
        self._check_size()

    def _check_size(self) -> None:
        given = self.recipe.input
        if given.tiles is not None:
            wanted: tuple[int, ...] = given.tiles.size
            what = "cuts tiles of"
        elif given.size is not None:
            wanted, what = given.size, "resizes images to"
        else:
            return
        fixed = self._spatial[-len(wanted) :]
        if any(want not in (None, side) for side, want in zip(wanted, fixed, strict=True)):
            raise InputError(
                f"The recipe {what} {'x'.join(map(str, wanted))}, and the model takes {self.spec}.",
                "Correct the size in the recipe, or leave it out.",
            )
        if given.tiles is not None and len(wanted) != len(self._spatial):
            raise InputError(
                f"The recipe cuts tiles of {len(wanted)} axes, and the model takes {self.spec}.",
                "Give one side for each: rows and columns, or slices, rows and columns.",
            )

    @property
    def kind(self) -> Kind:
        """What one sample is made of."""
        if self.recipe.input.kind is not None:
            return self.recipe.input.kind
        if len(self.spec.shape) == 4:
            return "image"
        return "volume" if self.recipe.input.time is None else "cine"

    @property
    def channels(self) -> int | None:
        """Channels the model takes."""
        return self.spec.shape[1 if self.layout in _CHANNELS_FIRST else -1]

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns of the sample; `None` keeps the image's own."""
        if self.recipe.input.size is not None:
            return self.recipe.input.size
        rows, columns = self._spatial[-2:]
        open_ = rows is None or columns is None or self.recipe.input.tiles is not None
        return None if open_ or rows is None or columns is None else (rows, columns)

    @property
    def _first_axis(self) -> int:
        return 2 if self.layout in _CHANNELS_FIRST else 1

    @property
    def _spatial(self) -> tuple[int | None, ...]:
        """What the model takes, slices or frames before rows and columns; `None` where it may vary."""
        return self.spec.shape[self._first_axis :][: len(self.spec.shape) - 2]

    def __call__(self, image: Image | NDArray[Any]) -> NDArray[Any]:
        """One sample with a batch dimension of 1, in the input's dtype.

        Args:
            image: or its bare pixels, `(rows, columns)` or `(rows, columns, 3)`.

        Raises:
            InputError: the contract refuses the image, a step cannot be done on it, or the result does not fit.
        """
        return self.prepare(image).sample

    def prepare(self, image: Image | NDArray[Any]) -> Prepared:
        """One sample, with the way back to its source.

        Raises:
            InputError: as above.
        """
        for _, _, state in self._stages(image):
            last = state
        return self._prepared(last)

    def clips(self, image: Image) -> Iterator[Prepared]:
        """One sample for each clip of a cine, as `[input.time]` says; without it, one sample of all frames.

        Each clip is prepared by itself, so a live stream gives what the stored cine gives.

        Raises:
            InputError: as above, or a cine that is too short.
        """
        if self.recipe.input.time is None:
            yield self.prepare(image)
            return
        check_contract(self.recipe.input.contract, image.facts)
        for clip in clip_frames(len(image.pixels) if image.stacked else 1, self.recipe.input.time):
            yield self.prepare(clip_of(image, clip))

    def trace(self, image: Image | NDArray[Any]) -> list[Traced]:
        """Everything that the recipe makes of what `prepare` takes; the last is the sample."""
        traced = []
        before = time.perf_counter_ns()
        for name, note, state in self._stages(image):
            traced.append(Traced(name, note, state.pixels, time.perf_counter_ns() - before))
            before = time.perf_counter_ns()
        sample = self._prepared(state).sample[0]
        elapsed_ns = time.perf_counter_ns() - before
        if self.layout in _CHANNELS_FIRST:
            sample = np.moveaxis(sample, 0, -1)
        note = f"{self.layout} {self.spec.dtype}"
        return [*traced, Traced("sample", note, sample if sample.ndim == 4 else sample[None], elapsed_ns)]

    def _stages(self, given: Image | NDArray[Any]) -> Iterator[tuple[str, str, State]]:
        image = self._accepted(given if isinstance(given, Image) else plain(given))
        state = State.of(image)
        if self.recipe.input.axes is not None:
            turn = turn_to(image, self.recipe.input.axes)
            back = state.transform.turned(turn.source, turn.flipped)
            state = replace(State.of(oriented(image, self.recipe.input.axes)), transform=back)
        yield "image", str(image.pixels.dtype), state
        color = self.recipe.input.color
        if color == "rgb" and not state.is_color:
            raise InputError(
                "The image is gray; the recipe asks for colour.", 'Give colour images, or drop color = "rgb".'
            )
        if color == "gray" and state.is_color:
            state = gray(state)
            yield "color", "gray", state
        for step in self.recipe.input.steps:
            step = self._resolved(step)
            state = run_step(step, state)
            yield step.op, _note(step), state
        yield from self._finished(state)

    def _finished(self, state: State) -> Iterator[tuple[str, str, State]]:
        """What the flat keys say, and what the model needs."""
        if self.channels == 1 and state.is_color:
            state = gray(state)
            yield "channels", "1", state
        size = self.size
        if size is not None and state.shape[1:] != size:
            state = self._resized(state, size)
            yield "resize", f"{size[0]}x{size[1]}, {self.recipe.input.resize}", state
        if self.channels == 3 and not state.is_color:
            state = rgb(state)
            yield "channels", "3", state
        scaling = self.recipe.input.scaling
        if scaling.offset != 0 or scaling.divisor != 1:
            pixels = scaled(state.pixels, scaling.offset, scaling.divisor, state.channels)
            state = state.with_pixels(pixels)
            yield "scaling", f"offset {_text(scaling.offset)}, divisor {_text(scaling.divisor)}", state

    def _accepted(self, image: Image) -> Image:
        """The image, if the contract takes it and the model can."""
        check_contract(self.recipe.input.contract, image.facts)
        if self.recipe.assumed and image.pixels.dtype != np.uint8:
            raise InputError(
                f"The image has {image.pixels.dtype} pixels; without a recipe only 8-bit ones have a known range.",
                "Write a recipe with the scaling, see docs/recipes.md.",
            )
        if image.pixels.dtype.kind == "f" and not np.isfinite(image.pixels).all():
            raise InputError("The image holds NaN or infinity.", "Replace or remove it.")
        if self.kind == "image" and image.stacked:
            if len(image.pixels) != 1:
                raise InputError(
                    f"The file holds {len(image.pixels)} frames, and the model takes one image.",
                    "Give single frames, or a model of volumes or cines.",
                )
            return image.frame(0)
        return image

    def _resolved(self, step: Step) -> Step:
        """A resize without a size takes the model's."""
        return step.model_copy(update={"size": self.size}) if isinstance(step, Resize) and step.size is None else step

    def _resized(self, state: State, size: tuple[int, int]) -> State:
        how = self.recipe.input.resize
        if how == "none":
            raise InputError(f"The image is {state.shape[1]}x{state.shape[2]}, not {size[0]}x{size[1]}.", "Resize it.")
        return resized(state, (state.shape[0], *size), "pillow-nearest" if how == "nearest" else how)

    def _prepared(self, state: State) -> Prepared:
        wanted = np.dtype(self.spec.dtype)
        if self.recipe.input.folded and wanted.kind != "f" and state.pixels.dtype != wanted:
            raise InputError(
                f"The image comes as {state.pixels.dtype}; the graph prepares images of {wanted} itself.",
                "Give images like those that it was built with, or build it without --fold-preprocessing.",
            )
        pixels = state.floats()
        pixels = pixels if state.is_color else pixels[..., None]
        tiles = self.recipe.input.tiles
        if len(self.spec.shape) == 4:
            pixels = pixels[0]
        elif tiles is None and self._spatial[0] not in (None, len(pixels)):
            what = "frames" if self.kind == "cine" else "slices"
            raise InputError(
                f"The {self.kind} has {len(pixels)} {what}; the model takes {self.spec}.",
                f"Choose {what} in the recipe, by [input.time] or by a step with three sizes.",
            )
        sample = np.moveaxis(pixels, -1, 0)[None] if self.layout in _CHANNELS_FIRST else pixels[None]
        tiling = None if tiles is None else plan_tiles(pixels.shape[:-1], tiles)
        cast = np.ascontiguousarray(self._cast(sample))
        if np.may_share_memory(cast, state.image.pixels):  # the sample is the caller's to change, the image is not
            cast = cast.copy()
        return Prepared(cast, state.transform, tiling, self._first_axis)

    def _cast(self, sample: NDArray[np.float32]) -> NDArray[Any]:
        dtype = np.dtype(self.spec.dtype)
        with np.errstate(all="ignore"):
            cast = sample.astype(dtype, copy=False) if dtype.kind == "f" else _rounded(sample, dtype)
        if not (np.isfinite(sample).all() and np.isfinite(cast).all()):
            raise InputError("The recipe makes NaN or infinity of the image.", "Correct the scaling in the recipe.")
        return cast


def _rounded(sample: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Integers, saturated; a bool is what is not 0."""
    if dtype.kind == "b":
        return sample.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(sample), limits.min, limits.max).astype(dtype)


def _note(step: Step) -> str:
    """The settings of a step that differ from its defaults."""
    settings = step.model_dump(exclude={"op"}, exclude_defaults=True)
    return ", ".join(key if value is True else f"{key} {_text(value)}" for key, value in settings.items())


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return " ".join(_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
