"""What a reader hands to a recipe: pixels whose numbers mean something, and what the file says of them.

Readers of every format give the same thing, so a recipe never asks where an image came from. The words are DICOM's
(PS3.3); a PNG simply leaves most of them empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

VoiFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True)
class Facts:
    """What the file says of an image; `None` where it says nothing. A contract is checked against these.

    Attributes:
        rows: of one frame.
        columns: of one frame.
        frames: in the file, or slices of a volume.
        photometric: Photometric Interpretation as the file has it, e.g. `MONOCHROME1`; pixels are already turned:
            greater is brighter, and colour is RGB.
        bits: Bits Stored; significant bits of integer pixels in other formats.
        modality: Modality, e.g. `CR`.
        sop_class: SOP Class UID.
        body_part: Body Part Examined.
        laterality: Image Laterality, else Laterality: `L`, `R`, `B` or `U`.
        view: View Position, e.g. `PA`, `MLO`.
        spacing: mm between rows and between columns.
        slice_spacing: mm between slices.
        frame_time_ms: between frames of a cine.
        manufacturer: Manufacturer.
        model_name: Manufacturer's Model Name.
        burned_in: Burned In Annotation.
        sop_instance: SOP Instance UID.
        series: Series Instance UID.
        patient: Patient ID; for keeping parts of a data set disjoint, never stored or shown.
    """

    rows: int
    columns: int
    frames: int = 1
    photometric: str | None = None
    bits: int | None = None
    modality: str | None = None
    sop_class: str | None = None
    body_part: str | None = None
    laterality: str | None = None
    view: str | None = None
    spacing: tuple[float, float] | None = None
    slice_spacing: float | None = None
    frame_time_ms: float | None = None
    manufacturer: str | None = None
    model_name: str | None = None
    burned_in: bool | None = None
    sop_instance: str | None = None
    series: str | None = None
    patient: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Window:
    """A VOI window of the file (PS3.3 C.11.2.1.2): centre and width in the unit of the pixels, width > 0."""

    center: float
    width: float
    function: VoiFunction = "LINEAR"
    explanation: str = ""


@dataclass(frozen=True)
class LookupTable:
    """A VOI LUT of the file: pixel value `first + i` is shown as `data[i]`; values outside take the nearest entry.

    Attributes:
        first: value of the first entry, in the unit of the pixels.
        data: `(entries,)`, unsigned integers.
        bits: of the entries; `2 ** bits - 1` is white.
        explanation: the file's own words.
    """

    first: int
    data: NDArray[Any]
    bits: int
    explanation: str = ""


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a volume, or the pixels of a slice, lie in the patient (LPS, mm).

    Attributes:
        affine: `(4, 4)`; maps `(slice, row, column, 1)` to `(x, y, z, 1)`: x grows to the patient's Left, y to
            Posterior, z to Superior (PS3.3 C.7.6.2.1.1), at the centre of the voxel.
        frame_of_reference: Frame of Reference UID.
    """

    affine: NDArray[np.float64]
    frame_of_reference: str | None = None


@dataclass(frozen=True)
class Image:
    """One image, one cine, or one volume.

    Greater is brighter, whatever the file's Photometric Interpretation: MONOCHROME1 is turned over within the range of
    its stored bits, windows and tables with it. Gray pixels are values after the Modality LUT (Hounsfield units for
    CT), in an integer type where they are whole numbers, else float32. Colour is RGB, uint8.

    Attributes:
        pixels: `(rows, columns)`, `(rows, columns, 3)`; with `frames` before these for a cine or a volume.
        facts: what the file says.
        windows: VOI windows, in the file's order.
        tables: VOI LUTs, in the file's order.
        stored_range: the smallest and the largest value that the stored bits can make; `None` for float pixels.
        valid: bool, the shape of `pixels` without colour; `False` at Pixel Padding Values, which hold the smallest
            valid value. `None` where nothing is padding.
        geometry: of the patient, where the file gives it.
        stacked: the first axis of `pixels` is frames or slices.
    """

    pixels: NDArray[Any]
    facts: Facts
    windows: tuple[Window, ...] = ()
    tables: tuple[LookupTable, ...] = ()
    stored_range: tuple[float, float] | None = None
    valid: NDArray[np.bool_] | None = None
    geometry: Geometry | None = None
    stacked: bool = False

    @property
    def is_color(self) -> bool:
        """Whether the last axis is red, green, blue."""
        return self.pixels.ndim == 3 + self.stacked

    def frame(self, index: int) -> Image:
        """One frame of a stacked image."""
        valid = None if self.valid is None else self.valid[index]
        return replace(self, pixels=self.pixels[index], valid=valid, stacked=False)


def plain(pixels: NDArray[Any]) -> Image:
    """An image of which nothing but its pixels is known: `(rows, columns)` or `(rows, columns, 3)`."""
    rows, columns = pixels.shape[:2]
    unsigned = pixels.dtype.kind == "u"
    bits = pixels.dtype.itemsize * 8 if unsigned else None
    span = (0.0, float(np.iinfo(pixels.dtype).max)) if unsigned else None
    return Image(pixels, Facts(rows=rows, columns=columns, bits=bits), stored_range=span)
