"""What a source's raw frames are, and how the CPU reads them: the recipe's image of a frame is the reference."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.recipe.image import Facts, Image, LookupTable, Window
from edgemed.runtime.sources.pixels import Matrix, nv12_to_rgb, packed_to_rgb, tables

PixelFormat = Literal["gray", "rgb", "bgr", "yuyv", "uyvy", "nv12", "nv21"]

KNOWN = ("uint8", "uint16", "int16")
CAMERA = ("yuyv", "uyvy", "nv12", "nv21")
_PLANAR = ("nv12", "nv21")
_PER_PIXEL = {"gray": 1, "rgb": 3, "bgr": 3, "yuyv": 2, "uyvy": 2, "nv12": 1, "nv21": 1}


@dataclass(frozen=True)
class RawFormat:
    """What every frame of a source is, before anything was done to it.

    Attributes:
        rows: of the picture.
        columns: of the picture.
        dtype: of a stored sample; kernels take uint8, uint16 and int16, and colour of uint8.
        pixels: how samples make pixels: `yuyv` and `uyvy` share chroma between two columns, `nv12` and `nv21` between
            two rows and two columns, with their second plane below the first.
        stride: samples from one row to the next, where a driver adds some behind each; `None`: none are added.
        frames: of a cine or volume that is prepared at once; `None` for single pictures.
        facts: what a contract asks for; `None`: rows, columns and bits alone.
        windows: VOI windows of the file or stream, in the unit of the values.
        tables: VOI LUTs, likewise.
        stored_range: the smallest and greatest value that the stored bits can make; `None`: all of an unsigned type,
            unknown of a signed one.
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
    stride: int | None = None
    facts: Facts | None = None
    windows: tuple[Window, ...] = ()
    tables: tuple[LookupTable, ...] = ()
    stored_range: tuple[float, float] | None = None
    values: NDArray[Any] | None = field(default=None, repr=False, compare=False)
    matrix: Matrix = "601"
    full_range: bool = False

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1 or (self.frames is not None and self.frames < 1):
            raise InputError(f"Frames of {self.rows}x{self.columns} pixels hold nothing.", "Correct the format.")
        if self.pixels != "gray" and self._type.kind not in "ui":
            raise InputError(f"Raw {self.pixels} frames of {self.dtype} are not known.", "Colour is uint8.")
        odd = self.columns % 2 or (self.pixels in _PLANAR and self.rows % 2)
        if self.pixels in CAMERA and odd:
            raise InputError(
                f"{self.pixels} pictures of {self.rows}x{self.columns} share chroma evenly.", "Give even sizes."
            )
        if self.stride is not None and self.stride < self.columns * self.pixel_samples:
            raise InputError(
                f"Rows of {self.columns} {self.pixels} pixels do not fit into {self.stride} samples.",
                "Correct the stride.",
            )
        if self.values is not None and (not self.counted or self.values.shape != (1 << 8 * self._type.itemsize,)):
            raise InputError(
                "values has one entry for each number that a gray sample can store.", "See RawFormat.stored."
            )

    @property
    def _type(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    @property
    def pixel_samples(self) -> int:
        """Samples from one pixel to the next in a row."""
        return _PER_PIXEL[self.pixels]

    @property
    def row_samples(self) -> int:
        """Samples from one row to the next."""
        return self.columns * self.pixel_samples if self.stride is None else self.stride

    @property
    def frame_samples(self) -> int:
        """Samples from one frame to the next."""
        return self._lines * self.row_samples

    @property
    def _lines(self) -> int:
        return self.rows * 3 // 2 if self.pixels in _PLANAR else self.rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the raw array of `dtype`: `(rows, columns)`, with 2 or 3 samples behind, or `(rows * 3 / 2, columns)`.

        With a stride it is `(lines, stride)` whatever the format; frames stand before all that.
        """
        if self.stride is not None:
            plane: tuple[int, ...] = (self._lines, self.stride)
        elif self.pixel_samples == 1:
            plane = (self._lines, self.columns)
        else:
            plane = (self._lines, self.columns, self.pixel_samples)
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
    def yuv(self) -> tuple[NDArray[np.int32], ...]:
        """Five tables of 256: what luma adds to all, V to red, U and V to green, and U to blue, times 2**16."""
        by = tables(self.matrix, full=self.full_range)
        return by.y, by.red_v, by.green_u, by.green_v, by.blue_u

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
        pixels, span = self._decoded(frame), self.stored_range
        unsigned = self._type.kind == "u" and self.values is None
        bits = 8 * self._type.itemsize if unsigned else None
        facts = self.facts or Facts(self.rows, self.columns, self.frames or 1, bits=bits)
        if span is None and unsigned:
            span = (0.0, float(np.iinfo(self._type).max))
        return Image(pixels, facts, self.windows, self.tables, span, stacked=self.frames is not None)

    def _decoded(self, frame: NDArray[Any]) -> NDArray[Any]:
        if self.stride is not None:
            frame = frame[..., : self.columns * self.pixel_samples]
            if self.pixel_samples > 1:
                frame = frame.reshape(*frame.shape[:-1], self.columns, self.pixel_samples)
        if self.values is not None:
            return np.asarray(self.values[frame.astype(np.int32) - self.first])
        if self.pixels == "bgr":
            return np.ascontiguousarray(frame[..., ::-1])
        if self.pixels not in CAMERA:
            return np.ascontiguousarray(frame)
        if self.frames is None:
            return self._to_rgb(frame)
        return np.stack([self._to_rgb(one) for one in frame])

    def _to_rgb(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One frame of a camera, as its source turns it into RGB."""
        by = tables(self.matrix, full=self.full_range)
        if self.pixels in _PLANAR:
            return nv12_to_rgb(frame[: self.rows], frame[self.rows :], by, swapped=self.pixels == "nv21")
        packed = frame.reshape(self.rows, 2 * self.columns)
        return packed_to_rgb(packed, "YUYV" if self.pixels == "yuyv" else "UYVY", by)


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
