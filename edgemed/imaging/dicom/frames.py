"""What holds for one frame: of the file, of the shared functional groups, or of the frame's own (PS3.3 C.7.6.16)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.modality import Modality, read_modality
from edgemed.imaging.dicom.module import PixelModule
from edgemed.imaging.dicom.values import items, number, numbers
from edgemed.imaging.dicom.voi import read_tables, read_windows
from edgemed.recipe.image import Geometry, LookupTable, Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Triple = tuple[float, float, float]

_SQUARE = 1e-3  # how far direction cosines may be from unit length and a right angle: 6 decimals are usual, 3 occur


@dataclass(frozen=True)
class FrameAttributes:
    """What the file says of one frame; `None` where it says nothing.

    Attributes:
        position: Image Position (Patient): centre of the first pixel, mm, LPS.
        orientation: Image Orientation (Patient): direction along a row, then along a column.
        spacing: mm between rows and between columns.
        thickness: Slice Thickness, mm.
        slice_spacing: Spacing Between Slices, mm.
        modality: how stored values become values.
        windows: VOI windows, as in the file: not turned over for MONOCHROME1.
        tables: VOI LUTs, as in the file.
    """

    position: Triple | None
    orientation: tuple[Triple, Triple] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    slice_spacing: float | None
    modality: Modality
    windows: tuple[Window, ...]
    tables: tuple[LookupTable, ...]

    @property
    def normal(self) -> Triple | None:
        """Unit vector across the slice: row direction x column direction."""
        if self.orientation is None:
            return None
        x, y, z = np.cross(*self.orientation)
        return float(x), float(y), float(z)

    def geometry(self, frame_of_reference: str | None) -> Geometry | None:
        """Of this frame as a volume of one slice; as thick as the file says, else 1 mm."""
        if self.position is None or self.orientation is None or self.spacing is None:
            return None
        along_row, along_column = (np.array(direction) for direction in self.orientation)
        affine: NDArray[np.float64] = np.eye(4)
        affine[:3, 0] = np.cross(along_row, along_column) * (self.slice_spacing or self.thickness or 1.0)
        affine[:3, 1] = along_column * self.spacing[0]
        affine[:3, 2] = along_row * self.spacing[1]
        affine[:3, 3] = self.position
        return Geometry(affine, frame_of_reference)


class FrameGroups:
    """The functional groups of an enhanced object, or their absence."""

    def __init__(self, dataset: Dataset, frames: int) -> None:
        self._dataset = dataset
        self._shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
        self._own = items(dataset, "PerFrameFunctionalGroupsSequence")
        if self._own and len(self._own) != frames:
            raise InputError(
                f"it describes {len(self._own)} frames and holds {frames}.",
                "Correct its Number of Frames, or leave it.",
            )

    @property
    def differ(self) -> bool:
        """Frames may differ in what is said of them."""
        return bool(self._own)

    def macro(self, keyword: str, index: int) -> Dataset:
        """Where to look for what a functional group holds: in the frame's, in the shared, else in the file itself."""
        for group in (*self._own[index : index + 1], *self._shared):
            found = items(group, keyword)
            if found:
                return found[0]
        return self._dataset


def read_attributes(
    dataset: Dataset, groups: FrameGroups, module: PixelModule, index: int, notes: list[str]
) -> FrameAttributes:
    """The attributes of frame `index`.

    Raises:
        InputError: an invalid Modality LUT; other attributes that cannot be meant are left out, and `notes` says so.
    """
    modality = read_modality(groups.macro("PixelValueTransformationSequence", index), module)
    voi = groups.macro("FrameVOILUTSequence", index)
    measures = groups.macro("PixelMeasuresSequence", index)
    position = _some(groups.macro("PlanePositionSequence", index), "ImagePositionPatient", 3, notes)
    signed = modality.span(module.stored_range)[0] < 0 if not module.is_float else True
    return FrameAttributes(
        position=_shifted(position, dataset, index, notes),
        orientation=_orientation(groups.macro("PlaneOrientationSequence", index), notes),
        spacing=read_spacing(measures, notes),
        thickness=_length(measures, "SliceThickness", notes),
        slice_spacing=_length(measures, "SpacingBetweenSlices", notes),
        modality=modality,
        windows=read_windows(voi, notes),
        tables=read_tables(voi, notes, signed=signed),
    )


def read_spacing(dataset: Dataset, notes: list[str]) -> tuple[float, float] | None:
    """Pixel Spacing, else that of the detector: mm between rows and between columns."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = _some(dataset, keyword, 2, notes)
        if found is not None:
            if min(found) > 0:
                return found[0], found[1]
            notes.append(f"{keyword} was left out: it is not above 0.")
    return None


def _some(dataset: Dataset, keyword: str, count: int, notes: list[str]) -> tuple[float, ...] | None:
    try:
        found = numbers(dataset, keyword)
    except InputError as error:
        notes.append(f"{keyword} was left out: {error.what}")
        return None
    if found and len(found) != count:
        notes.append(f"{keyword} was left out: it has {len(found)} values instead of {count}.")
        return None
    return found or None


def _length(dataset: Dataset, keyword: str, notes: list[str]) -> float | None:
    try:
        found = number(dataset, keyword)
    except InputError as error:
        notes.append(f"{keyword} was left out: {error.what}")
        return None
    return abs(found) if found else None  # some writers give Spacing Between Slices a sign


def _orientation(dataset: Dataset, notes: list[str]) -> tuple[Triple, Triple] | None:
    found = _some(dataset, "ImageOrientationPatient", 6, notes)
    if found is None:
        return None
    row, column = np.array(found[:3]), np.array(found[3:])
    products = (row @ row - 1, column @ column - 1, row @ column)
    if max(map(abs, products)) > _SQUARE:
        notes.append("ImageOrientationPatient was left out: its directions are no unit vectors at a right angle.")
        return None
    return (found[0], found[1], found[2]), (found[3], found[4], found[5])


def _shifted(position: tuple[float, ...] | None, dataset: Dataset, index: int, notes: list[str]) -> Triple | None:
    """Frames of a dose grid lie at offsets across the first (PS3.3 C.8.8.3.2)."""
    if position is None:
        return None
    x, y, z = position
    if "GridFrameOffsetVector" in dataset:
        try:
            offsets = numbers(dataset, "GridFrameOffsetVector")
        except InputError as error:
            notes.append(f"Positions left out: {error.what}")
            return None
        orientation = _orientation(dataset, [])
        if orientation is None or index >= len(offsets) or offsets[0] != 0:
            notes.append("Positions left out: the Grid Frame Offset Vector does not give them.")
            return None
        dx, dy, dz = np.cross(*orientation) * offsets[index]
        return x + float(dx), y + float(dy), z + float(dz)
    return x, y, z
