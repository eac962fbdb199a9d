"""The operations of `[[input.steps]]`: what a recipe may do to the pixels, one after the other.

Pixels are counted in the image as it is at that step. Where a step works on a volume or a cine, it works on each slice
by itself, unless it is given three values: slices, rows, columns.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edgemed.recipe.base import Positive, Size, Strict, check_pixels
from edgemed.recipe.image import VoiFunction

Filter = Literal["antialias", "nearest", "bilinear", "bicubic", "lanczos", "area"]
PerChannel = float | tuple[float, ...]
Millimetres = Annotated[float, Field(gt=0, le=1000)]
Percentile = Annotated[float, Field(ge=0, le=100)]
OddSize = Annotated[int, Field(ge=1, le=63)]


class Window(Strict):
    """Values inside the window become 0-1, values outside are clipped (PS3.3 C.11.2.1.2). Gives float32.

    Exactly one of: `center` and `width`; `low` and `high` (`low` becomes 0, `high` 1); `file`; `percentiles`.
    """

    op: Literal["window"]
    center: float | None = None
    width: float | None = Field(None, gt=0, description="at least 1 for LINEAR")
    low: float | None = None
    high: float | None = None
    file: bool = Field(False, description="the file's own VOI LUT or window")
    index: int = Field(0, ge=0, le=255, description="which one of the file's: its VOI LUTs first, then its windows")
    otherwise: Literal["refuse", "range"] = Field(
        "refuse", description="a file without: 'range' scales the range of its stored bits"
    )
    percentiles: tuple[Percentile, Percentile] | None = Field(None, description="of the valid pixels, e.g. [1, 99]")
    function: VoiFunction | None = Field(None, description="with center and width; None is LINEAR, or the file's own")

    @model_validator(mode="after")
    def _one_way(self) -> Window:
        pairs = ((self.center, self.width, "center and width"), (self.low, self.high, "low and high"))
        for first, second, names in pairs:
            if (first is None) != (second is None):
                raise ValueError(f"{names} go together")
        ways = [self.center is not None, self.low is not None, self.file, self.percentiles is not None]
        if sum(ways) != 1:
            raise ValueError("give exactly one of: center and width, low and high, file, percentiles")
        if self.function is not None and self.center is None:
            raise ValueError("function goes with center and width")
        if not self.file and (self.index or self.otherwise != "refuse"):
            raise ValueError("index and otherwise go with file")
        self._check_numbers()
        return self

    def _check_numbers(self) -> None:
        if self.width is not None and self.width < 1 and self.function in (None, "LINEAR"):
            raise ValueError("the width of a LINEAR window is at least 1; LINEAR_EXACT takes less")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must be below high")
        if self.percentiles is not None and self.percentiles[0] >= self.percentiles[1]:
            raise ValueError("percentiles must rise")


class Scale(Strict):
    """`(pixel - offset) / divisor`, one value or one for each channel."""

    op: Literal["scale"]
    offset: PerChannel = 0.0
    divisor: PerChannel = 1.0

    @model_validator(mode="after")
    def _no_zero_divisor(self) -> Scale:
        check_divisor(self.divisor)
        return self


class Range(Strict):
    """The range of the image, of its stored bits or of its type becomes 0-1. An image of one value becomes 0."""

    op: Literal["range"]
    of: Literal["image", "stored-bits", "type"] = "image"


class ZScore(Strict):
    """`(pixel - mean) / standard deviation` (of the population). An image of one value becomes 0.

    The mean and deviation are those of the pixels in `over`, all channels together, or the ones given.
    """

    op: Literal["zscore"]
    over: Literal["image", "nonzero", "valid"] = Field(
        "valid", description="'valid' leaves the file's padding out; 'nonzero' leaves 0 out, which stays 0"
    )
    mean: PerChannel | None = None
    std: PerChannel | None = None

    @model_validator(mode="after")
    def _both(self) -> ZScore:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together")
        deviations = self.std if isinstance(self.std, tuple) else (self.std,)
        if any(value is not None and value <= 0 for value in deviations):
            raise ValueError("std must be above 0")
        return self


class Clip(Strict):
    """Values below `low` become `low`, values above `high` become `high`."""

    op: Literal["clip"]
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Clip:
        if self.low is None and self.high is None:
            raise ValueError("give low, high or both")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must be below high")
        return self


class Invert(Strict):
    """Dark and bright change places: `low + high - pixel`."""

    op: Literal["invert"]
    low: float = 0.0
    high: float = 1.0


class Gamma(Strict):
    """`pixel ** gamma`, for values that are not negative; above 1 darkens what lies in 0-1."""

    op: Literal["gamma"]
    gamma: float = Field(gt=0, le=100)


class Resize(Strict):
    """Another number of rows and columns over the same field of view; pixels are squares, their centres at 0.5.

    `antialias` is a triangle widened by the reduction, `area` the mean over the area of the new pixel; `bilinear` takes
    the nearest four pixels however great the reduction, as Keras and TensorFlow do; `bicubic` and `lanczos` are widened
    by the reduction.
    """

    op: Literal["resize"]
    size: Size | None = Field(None, description="None takes the model's, or keeps the image's where that is open")
    filter: Filter = "antialias"
    fit: Literal["stretch", "pad", "crop"] = Field(
        "stretch", description="'pad' and 'crop' keep the proportions and fill, or cut, evenly on both sides"
    )
    fill: float = Field(0.0, description="value of what 'pad' adds")

    @field_validator("size")
    @classmethod
    def _no_huge_size(cls, size: Size | None) -> Size | None:
        check_pixels(size)
        return size


class Spacing(Strict):
    """Resample to this distance between pixels, in mm: (rows, columns), or (slices, rows, columns).

    The field of view is kept, so the distance is met within half a pixel of it. A file that does not say its own is
    refused.
    """

    op: Literal["spacing"]
    mm: tuple[Millimetres, Millimetres] | tuple[Millimetres, Millimetres, Millimetres]
    filter: Filter = "antialias"


class Crop(Strict):
    """The middle of the image, or a box of it: (row, column, rows, columns)."""

    op: Literal["crop"]
    size: Size | None = None
    box: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Positive, Positive] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Crop:
        if (self.size is None) == (self.box is None):
            raise ValueError("give either size or box")
        return self


class Content(Strict):
    """The smallest box that holds every pixel above a value, and `margin` pixels around it."""

    op: Literal["content"]
    above: float = Field(description="in the unit that the pixels have at this step")
    margin: int = Field(0, ge=0, le=4096)


class Pad(Strict):
    """At least this many rows and columns; what is there already stays."""

    op: Literal["pad"]
    size: Size
    fill: float = 0.0
    where: Literal["around", "end"] = Field("around", description="evenly on both sides, or after the last only")

    @field_validator("size")
    @classmethod
    def _no_huge_size(cls, size: Size) -> Size:
        check_pixels(size)
        return size


class Flip(Strict):
    """The order of the rows, columns or slices is reversed."""

    op: Literal["flip"]
    axis: Literal["slices", "rows", "columns"]


class Rotate90(Strict):
    """Quarter turns against the clock."""

    op: Literal["rotate90"]
    turns: Literal[1, 2, 3] = 1


class Gray(Strict):
    """Colour becomes luma (ITU-R BT.601)."""

    op: Literal["gray"]


class Rgb(Strict):
    """Gray becomes colour by repetition."""

    op: Literal["rgb"]


class Clahe(Strict):
    """Contrast-limited adaptive histogram equalization of values in 0-1 (scikit-image's).

    It begins by stretching each slice to its full range.
    """

    op: Literal["clahe"]
    kernel: tuple[Positive, Positive] | None = Field(
        None, description="rows and columns of a region in pixels; None is an eighth of the image"
    )
    clip_limit: float = Field(0.01, gt=0, le=1, description="share of a region's pixels that one bin may hold")
    bins: int = Field(256, ge=2, le=65_536)


class Gaussian(Strict):
    """Gaussian smoothing; `sigma` in pixels, one for rows and columns or three for a volume."""

    op: Literal["gaussian"]
    sigma: Annotated[float, Field(gt=0, le=256)] | tuple[Annotated[float, Field(ge=0, le=256)], ...]

    @field_validator("sigma")
    @classmethod
    def _two_or_three(cls, sigma: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if isinstance(sigma, tuple) and len(sigma) not in (2, 3):
            raise ValueError("one value, two (rows, columns) or three (slices, rows, columns)")
        return sigma


class Median(Strict):
    """Median of a square of `size` pixels a side; at the border the nearest pixels are repeated."""

    op: Literal["median"]
    size: OddSize = 3

    @field_validator("size")
    @classmethod
    def _odd(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError("size must be odd")
        return size


class NlMeans(Strict):
    """Non-local means (scikit-image's fast one): `h` and `sigma` in the unit of the pixels, the others in pixels."""

    op: Literal["nlmeans"]
    h: float = Field(gt=0, description="strength: how different two patches may be")
    sigma: float = Field(0.0, ge=0, description="standard deviation of the noise, taken off the differences")
    patch: OddSize = 7
    distance: int = Field(11, ge=1, le=64, description="how far patches are looked for")


Step = Annotated[
    Window
    | Scale
    | Range
    | ZScore
    | Clip
    | Invert
    | Gamma
    | Resize
    | Spacing
    | Crop
    | Content
    | Pad
    | Flip
    | Rotate90
    | Gray
    | Rgb
    | Clahe
    | Gaussian
    | Median
    | NlMeans,
    Field(discriminator="op"),
]

_CHANGES_UNIT = (Window, Scale, Range, ZScore, Invert, Gamma, Clahe)


def check_order(steps: tuple[Step, ...]) -> None:
    """Raise `ValueError` where a step needs the unit of the file and an earlier one has left it."""
    left: str | None = None
    for number, step in enumerate(steps, start=1):
        needs = (isinstance(step, Window) and step.file) or (isinstance(step, Range) and step.of != "image")
        if needs and left is not None:
            raise ValueError(f"step {number} ({step.op}) needs the values of the file, which {left} has changed")
        if isinstance(step, _CHANGES_UNIT):
            left = f"step {number} ({step.op})"


def check_divisor(divisor: PerChannel) -> None:
    """Raise `ValueError` for a divisor of 0."""
    if any(value == 0 for value in (divisor if isinstance(divisor, tuple) else (divisor,))):
        raise ValueError("divisor must not be 0")
