"""Fold a recipe into the graph: what it does after its last step that only Python can do becomes ONNX nodes.

The folded graph takes the pixels of the source image and gives what the model gives for the prepared sample. Resampling
is two products with the very weights that the recipe uses, so the filter is the same by construction; what differs is
the order of FP32 sums. The build measures the difference on real samples, see `stages.check_parity`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.graph.prefix import Prefix
from edgemed.recipe import image, steps
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.image import Image
from edgemed.recipe.operations.intensity import LUMA, limits_of
from edgemed.recipe.operations.resample import Method, resample
from edgemed.recipe.operations.spatial import centred, in_proportion
from edgemed.recipe.schema import Layout, Recipe, Scaling

if TYPE_CHECKING:
    import onnx_ir as ir

_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Folding:
    """A recipe, cut in two.

    Attributes:
        rest: the recipe of what is left to do in Python; the bundle keeps this one.
        spec: what the folded graph takes.
        steps: what the graph does, in order.
        layout: of the model's own input.
    """

    rest: Recipe
    spec: TensorSpec
    steps: tuple[steps.Step, ...]
    layout: Layout

    @property
    def described(self) -> str:
        """For people, e.g. `window, resize, scale`."""
        return ", ".join(step.op for step in self.steps) or "layout"


def plan(recipe: Recipe, spec: TensorSpec, layout: Layout, images: Sequence[Image]) -> Folding:
    """Cut a recipe behind its last step that a graph cannot do.

    Args:
        recipe: the whole one.
        spec: the model's input, `(batch, rows, columns, channels)` or `(batch, channels, rows, columns)`.
        layout: of `spec`.
        images: of the calibration set: their size and type become those of the graph's input.

    Raises:
        InputError: the model takes no image, nothing can be folded, or the images differ in size at the cut.
    """
    given = recipe.input
    _require_image(recipe, spec)
    channels = spec.shape[1] if layout == "NCHW" else spec.shape[3]
    assert channels in (1, 3)
    gray = channels == 1 or given.color == "gray"
    if channels == 1 and given.color != "gray" and given.steps:
        raise InputError(
            "The recipe takes colour images and makes them gray after its steps, which cannot be folded.",
            'Say color = "gray" in [input]: they become gray first.',
        )
    first = next((i + 1 for i in reversed(range(len(given.steps))) if not _foldable(given.steps[i])), 0)
    # a graph makes colour gray without rounding; in Python it would come out as whole levels of a uint8 input
    colored = gray and first == 0 and any(image.is_color for image in images)
    less: dict[str, Any] = {
        "steps": given.steps[:first],
        "size": None,
        "resize": "none",
        "scaling": Scaling(),
        "folded": True,
    }
    if colored:
        less["color"] = None
    rest = recipe.model_copy(update={"input": given.model_copy(update=less)})
    open_spec = TensorSpec(spec.name, "float32", (spec.shape[0], None, None, 1 if gray and not colored else 3))
    found = [Preprocessor(rest, open_spec)(image).shape[1:] for image in images]
    if len(set(found)) != 1:
        raise InputError(
            f"The images differ in size ({_sizes(found)}), and a folded graph takes one.",
            "Fold a recipe for images of one size, or leave --fold-preprocessing out.",
        )
    whole = first == 0 and all(image.pixels.dtype == np.uint8 for image in images)
    fed = replace(open_spec, dtype="uint8" if whole else "float32", shape=(spec.shape[0], *found[0]))
    tail = _remaining(recipe, spec, layout, first, 1 if gray else 3)
    return Folding(rest, fed, (steps.Gray(op="gray"), *tail) if colored else tail, layout)


def require_way_back(folding: Folding, outputs: Sequence[ir.Value]) -> None:
    """Maps must lie on the image that the folded graph is fed: nothing else remembers what the graph did to it.

    A map is taken to cover the whole image, so stretching does no harm; turning, cutting off and adding do.

    Raises:
        InputError: an output is a map, and the graph would move it.
    """
    moving: list[str] = [step.op for step in folding.steps if _moves(step)]
    if folding.layout != "NHWC":
        moving.append(f"the layout {folding.layout}")
    for output in outputs:
        if moving and output.shape is not None and len(output.shape) >= len(folding.spec.shape):
            raise InputError(
                f"The output {output.name} is a map, and {', '.join(moving)} in the graph would move it.",
                "Leave --fold-preprocessing out: outside the graph the way back to the image is known.",
            )


def _moves(step: steps.Step) -> bool:
    if isinstance(step, steps.Resize):
        return step.fit != "stretch"
    return isinstance(step, steps.Crop | steps.Pad | steps.Flip | steps.Rotate90)


def _require_image(recipe: Recipe, spec: TensorSpec) -> None:
    if recipe.raw or len(spec.shape) != 4 or np.dtype(spec.dtype).kind != "f":
        raise InputError(
            f"Only what makes an image can be folded; the input is {spec}.", "Leave --fold-preprocessing out."
        )
    if recipe.input.tiles is not None or recipe.assumed:
        what = "tiles are cut before the model" if recipe.input.tiles is not None else "the recipe is assumed"
        raise InputError(f"Nothing can be folded: {what}.", "Write a recipe without tiles for --fold-preprocessing.")


def _sizes(shapes: Sequence[tuple[int, ...]]) -> str:
    different = list(dict.fromkeys("×".join(map(str, shape[:2])) for shape in shapes))
    return ", ".join(different[:3]) + (", …" if len(different) > 3 else "")


def _foldable(step: steps.Step) -> bool:
    """Whether a graph of fixed sizes can do it with constants alone."""
    if isinstance(step, steps.Window):
        return not step.file and step.percentiles is None
    if isinstance(step, steps.ZScore):
        return step.mean is not None
    if isinstance(step, steps.Resize | steps.Crop | steps.Pad):
        return step.size is None or len(step.size) == 2
    if isinstance(step, steps.Flip):
        return step.axis != "slices"
    kinds = steps.Scale | steps.Clip | steps.Invert | steps.Gamma | steps.Rotate90 | steps.Gray | steps.Rgb
    return isinstance(step, kinds)


def _remaining(recipe: Recipe, spec: TensorSpec, layout: Layout, first: int, channels: int) -> tuple[steps.Step, ...]:
    """The recipe's tail as plain steps: those that its flat keys and the model ask for stand at the end."""
    given = recipe.input
    own = Preprocessor(recipe, spec, layout)
    size = own.size
    tail = [
        step.model_copy(update={"size": size}) if isinstance(step, steps.Resize) and step.size is None else step
        for step in given.steps[first:]
    ]
    if size is not None and not _ends_at(tail, size):
        how: Any = (
            "pillow-nearest" if given.resize == "nearest" else "antialias"
        )  # as `Preprocessor` reads the flat key
        tail.append(steps.Resize.model_construct(op="resize", size=size, filter=how))
    if own.channels == 3 and channels == 1:
        tail.append(steps.Rgb(op="rgb"))
    if given.scaling != Scaling():
        tail.append(steps.Scale(op="scale", offset=given.scaling.offset, divisor=given.scaling.divisor))
    return tuple(tail)


def _ends_at(tail: Sequence[steps.Step], size: tuple[int, int]) -> bool:
    """Whether the last step that changes places already makes the model's size."""
    moving = steps.Resize | steps.Crop | steps.Pad | steps.Rotate90
    last = next((step for step in reversed(tail) if isinstance(step, moving)), None)
    return isinstance(last, steps.Resize | steps.Crop) and last.size == size


def fold(model: ir.Model, folding: Folding) -> ir.Model:
    """Put a recipe's tail in front of a graph, in place.

    Raises:
        InputError: a step that the size of the images does not allow.
    """
    rows, columns, channels = (int(side) for side in folding.spec.shape[1:] if side is not None)
    prefix = Prefix(model, folding.spec.name, folding.spec.dtype, (rows, columns, channels))
    writer = _Writer(prefix, rows, columns, channels)
    for step in folding.steps:
        writer.write(step)
    if folding.layout != "NCHW":
        prefix.add("Transpose", perm=[0, 2, 3, 1])
    return prefix.close()


class _Writer:
    """Writes steps as nodes on `(batch, channels, rows, columns)` in FP32."""

    def __init__(self, prefix: Prefix, rows: int, columns: int, channels: int) -> None:
        self._prefix = prefix
        self._sides = [rows, columns]
        self._channels = channels
        prefix.add("Cast", to=1)
        prefix.add("Transpose", perm=[0, 3, 1, 2])

    def write(self, step: steps.Step) -> None:
        """One step."""
        writers: dict[str, Callable[[Any], None]] = {
            "window": self._window,
            "scale": lambda s: self._scale(s.offset, s.divisor),
            "zscore": lambda s: self._scale(s.mean, s.std),
            "clip": lambda s: self._clip(s.low, s.high),
            "invert": lambda s: self._prefix.add("Sub", np.float32(s.low + s.high), front=True),
            "gamma": self._gamma,
            "resize": self._resize,
            "crop": self._crop,
            "pad": self._pad,
            "flip": lambda s: self._flip(("rows", "columns").index(s.axis)),
            "rotate90": self._rotate90,
            "gray": self._gray,
            "rgb": self._rgb,
        }
        writers[step.op](step)

    # --- values

    def _window(self, step: steps.Window) -> None:
        if step.low is not None and step.high is not None:
            self._ramp(step.low, step.high)
            return
        assert step.center is not None
        assert step.width is not None
        window = image.Window(step.center, step.width, step.function or "LINEAR")
        low, high = limits_of(window)
        if window.function == "SIGMOID":
            self._scale(window.center, window.width / 4)
            self._prefix.add("Sigmoid")
        elif low < high:
            self._ramp(low, high)
        else:  # 1 above, 0 elsewhere
            self._prefix.add("Greater", np.float32(low))
            self._prefix.add("Cast", to=1)

    def _ramp(self, low: float, high: float) -> None:
        self._scale(low, np.float32(high - low))
        self._clip(0.0, 1.0)

    def _scale(self, offset: Any, divisor: Any) -> None:
        first, second = (self._per_channel(values) for values in (offset, divisor))
        if first.any():
            self._prefix.add("Sub", first)
        if (second != 1).any():
            self._prefix.add("Div", second)

    def _per_channel(self, values: Any) -> NDArray[np.float32]:
        array = np.asarray(values, np.float32)
        return array.reshape(()) if array.size == 1 else array.reshape(1, -1, 1, 1)

    def _clip(self, low: float | None, high: float | None) -> None:
        if low is not None:
            self._prefix.add("Max", np.float32(low))
        if high is not None:
            self._prefix.add("Min", np.float32(high))

    def _gamma(self, step: steps.Gamma) -> None:
        self._prefix.add("Max", np.float32(0))  # Python refuses negative values; a graph cannot, and must not make NaN
        self._prefix.add("Pow", np.float32(step.gamma))

    # --- colour

    def _gray(self, _: steps.Gray) -> None:
        if self._channels == 3:
            self._prefix.add("Conv", LUMA.reshape(1, 3, 1, 1))
            self._channels = 1

    def _rgb(self, _: steps.Rgb) -> None:
        if self._channels == 1:
            self._prefix.add("Expand", np.array([1, 3, 1, 1], np.int64))
            self._channels = 3

    # --- places

    def _resize(self, step: steps.Resize) -> None:
        assert step.size is not None
        target = [int(side) for side in step.size]
        if step.fit == "stretch":
            self._resample(target, step.filter)
            return
        inner = in_proportion(self._sides, target, step.fit)
        self._resample(inner, step.filter)
        if step.fit == "pad":
            self._surround(target, step.fill, centred=True)
        else:
            self._cut(centred(inner, target), target)

    def _resample(self, target: list[int], how: Method) -> None:
        for axis, (old, new) in enumerate(zip(list(self._sides), target, strict=True)):
            if old == new:
                continue
            if how in ("nearest", "pillow-nearest"):
                indices = resample(np.arange(old, dtype=np.float32)[None, :, None], (1, new, 1), how)
                self._prefix.add("Gather", indices.reshape(-1).astype(np.int64), axis=axis + 2)
            else:
                weights = _weights(old, new, how)
                self._prefix.add("MatMul", weights if axis == 0 else weights.T, front=axis == 0)
            self._sides[axis] = new

    def _crop(self, step: steps.Crop) -> None:
        if step.box is not None:
            row, column, rows, columns = step.box
            self._cut((row, column), [rows, columns])
            return
        assert step.size is not None
        target = [int(side) for side in step.size]
        self._cut(centred(self._sides, target), target)

    def _cut(self, start: Sequence[int], shape: list[int]) -> None:
        ends = [first + count for first, count in zip(start, shape, strict=True)]
        if min(start) < 0 or any(end > have for end, have in zip(ends, self._sides, strict=True)):
            have = "×".join(map(str, self._sides))
            raise InputError(f"The recipe crops more than the {have} image has.", "Pad before cropping.")
        self._slice([0, 1], list(start), ends, 1)
        self._sides = list(shape)

    def _slice(self, sides: list[int], start: list[int], end: list[int], step: int) -> None:
        axes = np.array([side + 2 for side in sides], np.int64)
        bounds = (np.array(start, np.int64), np.array(end, np.int64))
        self._prefix.add("Slice", *bounds, axes, np.full(len(axes), step, np.int64))

    def _pad(self, step: steps.Pad) -> None:
        target = [max(have, int(want)) for have, want in zip(self._sides, step.size, strict=True)]
        self._surround(target, step.fill, centred=step.where == "around")

    def _surround(self, target: list[int], fill: float, *, centred: bool) -> None:
        more = [new - old for new, old in zip(target, self._sides, strict=True)]
        before = [extra // 2 if centred else 0 for extra in more]
        after = [extra - first for extra, first in zip(more, before, strict=True)]
        if any(more):
            self._prefix.add("Pad", np.array([0, 0, *before, 0, 0, *after], np.int64), np.float32(fill))
        self._sides = list(target)

    def _flip(self, side: int) -> None:
        self._slice([side], [-1], [-_LAST], -1)

    def _rotate90(self, step: steps.Rotate90) -> None:
        for _ in range(step.turns):
            self._prefix.add("Transpose", perm=[0, 1, 3, 2])
            self._sides.reverse()
            self._flip(0)


def _weights(old: int, new: int, how: Method) -> NDArray[np.float32]:
    """`(new, old)`: what the recipe's own filter makes of each single pixel of a column."""
    made: NDArray[np.float32] = resample(np.eye(old, dtype=np.float32)[None], (1, new, old), how)[0]
    return np.ascontiguousarray(made, dtype=np.float32)
