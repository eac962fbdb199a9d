"""What a source's raw frames are, and how the CPU reads them: the recipe's image of a frame is the reference."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.recipe.image import Facts, Image, LookupTable, Window

PixelFormat = Literal["gray", "rgb", "bgr", "yuyv", "uyvy", "nv12"]
Matrix = Literal["bt601", "bt709"]

KNOWN = ("uint8", "uint16", "int16")
_PER_PIXEL = {"gray": 1, "rgb": 3, "bgr": 3, "yuyv": 2, "uyvy": 2, "nv12": 1}
CAMERA = ("yuyv", "uyvy", "nv12")
_PRIMARIES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # Kr and Kb of ITU-R BT.601 and BT.709


@dataclass(frozen=True)
class Yuv:
    """YUV to RGB in 16-bit fixed point, so that GPU and CPU agree to the last bit.

    `red = (luma_gain * (Y - luma_offset) + v_to_red * (V - 128) + 2**15) >> 16`, held to 0-255; the others likewise.
    """

    luma_offset: int
    luma_gain: int
    v_to_red: int
    u_to_green: int
    v_to_green: int
    u_to_blue: int

    @staticmethod
    def of(matrix: Matrix, *, full_range: bool) -> Yuv:
        """The matrix of a standard; `full_range`: 0-255 (JPEG), else 16-235 and 16-240 (video)."""
        red, blue = _PRIMARIES[matrix]
        green = 1 - red - blue
        luma, chroma = (1.0, 1.0) if full_range else (255 / 219, 255 / 224)
        v, u = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
        fixed = [round(value * 65_536) for value in (luma, v, u * blue / green, v * red / green, u)]
        return Yuv(0 if full_range else 16, *fixed)


@dataclass(frozen=True)
class RawFormat:
    """What every frame of a source is, before anything was done to it.

    Attributes:
        rows: of the picture.
        columns: of the picture.
        dtype: of a stored sample; kernels take uint8, uint16 and int16, and colour of uint8.
        pixels: how samples make pixels: `yuyv` and `uyvy` share chroma between two columns, `nv12` between two rows
            and two columns, with its second plane below the first.
        frames: of a cine or volume that is prepared at once; `None` for single pictures.
        facts: what a contract asks for; `None`: rows, columns and bits alone.
        windows: VOI windows of the file or stream, in the unit of the values.
        tables: VOI LUTs, likewise.
        stored_range: the smallest and greatest value that the stored bits can make; `None`: all of the type's, for
            gray.
        values: `(2 ** bits of dtype,)`: what each stored number stands for, from the type's smallest on: rescale and
            MONOCHROME1 (see `stored`). `None`: for itself.
        matrix: of YUV.
        full_range: YUV that uses 0-255.
    """

    rows: int
    columns: int
    dtype: str = "uint8"
    pixels: PixelFormat = "gray"
    frames: int | None = None
    facts: Facts | None = None
    windows: tuple[Window, ...] = ()
    tables: tuple[LookupTable, ...] = ()
    stored_range: tuple[float, float] | None = None
    values: NDArray[Any] | None = field(default=None, repr=False, compare=False)
    matrix: Matrix = "bt601"
    full_range: bool = False

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1 or (self.frames is not None and self.frames < 1):
            raise InputError(f"Frames of {self.rows}x{self.columns} pixels hold nothing.", "Correct the format.")
        if self.pixels != "gray" and self._type.kind not in "ui":
            raise InputError(f"Raw {self.pixels} frames of {self.dtype} are not known.", "Colour is uint8.")
        odd = self.columns % 2 or (self.pixels == "nv12" and self.rows % 2)
        if self.pixels in CAMERA and odd:
            raise InputError(
                f"{self.pixels} pictures of {self.rows}x{self.columns} share chroma evenly.", "Give even sizes."
            )
        if self.values is not None and (not self.counted or self.values.shape != (1 << 8 * self._type.itemsize,)):
            raise InputError(
                "values has one entry for each number that a gray sample can store.", "See RawFormat.stored."
            )

    @property
    def _type(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the raw array of `dtype`: `(rows, columns)`, with 2 or 3 samples behind, or `(rows * 3 / 2, columns)`."""
        rows = self.rows * 3 // 2 if self.pixels == "nv12" else self.rows
        samples = _PER_PIXEL[self.pixels]
        plane = (rows, self.columns) if samples == 1 else (rows, self.columns, samples)
        return plane if self.frames is None else (self.frames, *plane)

    @property
    def first(self) -> int:
        """The smallest number that a sample can store."""
        return int(np.iinfo(self._type).min)

    @property
    def counted(self) -> bool:
        """Gray, of so few numbers that a table holds something for each."""
        return self.pixels == "gray" and self.dtype in KNOWN

    @property
    def color(self) -> bool:
        """Whether a pixel is red, green and blue."""
        return self.pixels != "gray"

    @property
    def yuv(self) -> Yuv:
        """Numbers of the conversion to RGB."""
        return Yuv.of(self.matrix, full_range=self.full_range)

    @staticmethod
    def of(image: Image) -> RawFormat:
        """The format of frames like the pixels of this image, as a reader or a decoder gives them.

        A reader has put the smallest valid value in the place of padding; stored frames with padding differ from it.
        """
        rows, columns = image.pixels.shape[image.stacked : image.stacked + 2]
        return RawFormat(
            rows=rows,
            columns=columns,
            dtype=str(image.pixels.dtype),
            pixels="rgb" if image.is_color else "gray",
            frames=len(image.pixels) if image.stacked else None,
            facts=image.facts,
            windows=image.windows,
            tables=image.tables,
            stored_range=image.stored_range,
        )

    def stored(
        self,
        *,
        bits: int,
        slope: float = 1.0,
        intercept: float = 0.0,
        inverted: bool = False,
        signed: bool | None = None,
    ) -> RawFormat:
        """The same for samples whose lowest `bits` are stored values, as a DICOM file or a detector has them.

        Args:
            bits: Bits Stored; what stands above them is not looked at.
            slope: Rescale Slope.
            intercept: Rescale Intercept.
            inverted: MONOCHROME1: turned over within the range of the stored bits.
            signed: Pixel Representation 1; `None`: as `dtype` is.
        """
        width = 8 * self._type.itemsize
        if not self.counted or not 1 <= bits <= width or not (np.isfinite([slope, intercept]).all() and slope):
            raise InputError(
                f"{bits} stored bits of {self.pixels} {self.dtype} with slope {slope:g} and intercept {intercept:g} "
                "mean nothing.",
                "Correct the format of the source.",
            )
        has_sign = self._type.kind == "i" if signed is None else signed
        numbers = np.arange(1 << width, dtype=np.int64) + self.first & (1 << bits) - 1
        if has_sign:
            numbers = np.where(numbers >> bits - 1, numbers - (1 << bits), numbers)
        ends = (-(1 << bits - 1), (1 << bits - 1) - 1) if has_sign else (0, (1 << bits) - 1)
        low, high = sorted(slope * end + intercept for end in ends)
        values = _rescaled(numbers, slope, intercept, low, high, inverted=inverted)
        facts = self.facts or Facts(self.rows, self.columns, self.frames or 1)
        return replace(self, values=values, stored_range=(low, high), facts=replace(facts, bits=bits))

    def image(self, frame: NDArray[Any]) -> Image:
        """A raw frame as the recipe takes it on the CPU.

        Args:
            frame: of `shape` and `dtype`.

        Raises:
            InputError: another shape or type.
        """
        if frame.shape != self.shape or frame.dtype != self._type:
            raise InputError(
                f"A frame is {frame.dtype} {frame.shape}, and the source said {self.dtype} {self.shape}.",
                "Tell the format that the source gives.",
            )
        pixels = self._decoded(frame)
        bits = 8 * self._type.itemsize
        facts = self.facts or Facts(self.rows, self.columns, self.frames or 1, bits=bits)
        span = self.stored_range
        if span is None and not self.color and self.values is None:
            span = (float(self.first), float(np.iinfo(self._type).max))
        return Image(pixels, facts, self.windows, self.tables, span, stacked=self.frames is not None)

    def _decoded(self, frame: NDArray[Any]) -> NDArray[Any]:
        if self.values is not None:
            return np.asarray(self.values[frame.astype(np.int32) - self.first])
        if self.pixels == "bgr":
            return np.ascontiguousarray(frame[..., ::-1])
        return _to_rgb(frame, self) if self.pixels in CAMERA else frame


def _rescaled(
    numbers: NDArray[np.int64], slope: float, intercept: float, low: float, high: float, *, inverted: bool
) -> NDArray[Any]:
    """Values of stored numbers: whole ones in the smallest integer type, as the readers give them, others float32."""
    if float(slope).is_integer() and float(intercept).is_integer():
        whole = numbers * int(slope) + int(intercept)
        if inverted:
            whole = int(low + high) - whole
        for name in ("u1", "i1", "u2", "i2", "u4", "i4", "i8"):
            if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
                return whole.astype(name)
    scaled = numbers.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return np.float32(low + high) - scaled if inverted else scaled


def _to_rgb(frame: NDArray[Any], raw: RawFormat) -> NDArray[np.uint8]:
    """Camera frames to RGB; chroma is repeated, not interpolated."""
    yuv = raw.yuv
    if raw.pixels == "nv12":
        luma, chroma = frame[..., : raw.rows, :], frame[..., raw.rows :, :]
        u, v = (chroma[..., i::2].repeat(2, axis=-1).repeat(2, axis=-2) for i in (0, 1))
    else:
        first = raw.pixels == "uyvy"
        luma = frame[..., int(first)]
        u, v = (frame[..., i::2, int(not first)].repeat(2, axis=-1) for i in (0, 1))
    base = (luma.astype(np.int32) - yuv.luma_offset) * yuv.luma_gain + 32_768
    u, v = u.astype(np.int32) - 128, v.astype(np.int32) - 128
    red = base + v * yuv.v_to_red
    green = base - u * yuv.u_to_green - v * yuv.v_to_green
    blue = base + u * yuv.u_to_blue
    rgb: NDArray[np.uint8] = np.clip(np.stack([red, green, blue], axis=-1) >> 16, 0, 255).astype(np.uint8)
    return rgb
