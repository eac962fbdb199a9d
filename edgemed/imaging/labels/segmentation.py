"""DICOM Segmentation (PS3.3 A.51): what was drawn, for each image that it was drawn on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.lazy import require
from edgemed.imaging.deid.deidentify import silent_pydicom
from edgemed.imaging.dicom import DicomFile, open_dicom
from edgemed.imaging.limits import MAX_ARRAY_BYTES
from edgemed.recipe.image import Geometry

if TYPE_CHECKING:
    from highdicom.seg import Segmentation as HighdicomSegmentation

SegmentationKind = Literal["BINARY", "FRACTIONAL", "LABELMAP"]
Masks = NDArray[np.bool_] | NDArray[np.float32]

_STORAGE: Final = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # the second for label maps
_OFF_GRID: Final = 0.01  # of a voxel: positions are decimal strings, exact to 1e-6 mm and better
_HINT: Final = "Give the images that it was drawn on."


@dataclass(frozen=True)
class Code:
    """A coded word (PS3.3 8.8): Code Value, Coding Scheme Designator, Code Meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Segment:
    """One segment (PS3.3 C.8.20.4).

    Attributes:
        number: Segment Number.
        label: Segment Label.
        category: Segmented Property Category.
        property_type: Segmented Property Type, e.g. (10200004, SCT, Liver).
        algorithm: Segment Algorithm Type: `AUTOMATIC`, `SEMIAUTOMATIC` or `MANUAL`.
    """

    number: int
    label: str
    category: Code | None
    property_type: Code | None
    algorithm: str | None


@dataclass(eq=False)
class Segmentation:
    """A segmentation file, opened.

    Attributes:
        path: of the file.
        kind: Segmentation Type.
        segments: by number; background of a label map is none.
        sources: SOP Instance UIDs of the images that it refers to.
        rows: of a mask.
        columns: of a mask.
    """

    path: Path
    kind: SegmentationKind
    segments: tuple[Segment, ...]
    sources: frozenset[str]
    rows: int
    columns: int
    _file: HighdicomSegmentation = field(repr=False)
    _opened: DicomFile = field(repr=False)

    def of_instances(self, uids: Sequence[str], geometries: Sequence[Geometry] | None = None) -> Masks:
        """Masks of images of one frame each.

        Args:
            uids: their SOP Instance UIDs, which the file must refer to.
            geometries: of the images; where given, each mask must lie on its image, pixel on pixel. Without them only
                files are taken that say so themselves (Spatial Locations Preserved), which many do not.

        Returns:
            `(images, rows, columns, segments)`: bool, or 0-1 for FRACTIONAL. Where nothing was drawn all is empty.

        Raises:
            InputError: it does not refer to an image, does not lie on the pixels of the images, or is damaged.
        """
        for uid in uids:
            self._require(uid)
        self._check_size(len(uids))
        for uid, geometry in zip(uids, geometries or (), strict=geometries is not None):
            self._check_planes(uid, geometry)
        how = {**self._how, "ignore_spatial_locations": geometries is not None}
        return self._masks(lambda: self._file.get_pixels_by_source_instance(list(uids), **how))

    def of_frames(self, uid: str, frames: Sequence[int]) -> Masks:
        """Masks of frames of one image of several.

        Args:
            uid: its SOP Instance UID.
            frames: from 0.

        Returns:
            as `of_instances`.

        Raises:
            InputError: as `of_instances`.
        """
        self._require(uid)
        self._check_size(len(frames))
        numbers = [frame + 1 for frame in frames]
        return self._masks(lambda: self._file.get_pixels_by_source_frame(uid, numbers, **self._how))

    def on_volume(self, geometry: Geometry, shape: tuple[int, int, int]) -> Masks:
        """Masks on the grid of a volume.

        Args:
            geometry: of the volume.
            shape: `(slices, rows, columns)` of it.

        Returns:
            `(slices, rows, columns, segments)`: bool, or 0-1 for FRACTIONAL; empty where nothing was drawn.

        Raises:
            InputError: another frame of reference or another grid (nothing is resampled), or damaged.
        """
        reference = str(getattr(self._file, "FrameOfReferenceUID", "") or "")
        if geometry.frame_of_reference and reference and geometry.frame_of_reference != reference:
            raise InputError(f"{self.path} lies in another frame of reference.", _HINT)
        self._check_size(shape[0], shape[1:])
        with self._damage():
            volume = self._file.get_volume(combine_segments=False, rescale_fractional=True)
            drawn, affine = np.asarray(volume.array), np.asarray(volume.affine, dtype=np.float64)
        drawn = drawn if self.kind == "FRACTIONAL" else drawn.astype(bool)
        flip, offset = self._placed(np.linalg.inv(geometry.affine) @ affine, drawn.shape[:3], shape)
        masks = np.zeros((*shape, len(self.segments)), drawn.dtype)
        masks[tuple(slice(o, o + n) for o, n in zip(offset, drawn.shape[:3], strict=True))] = drawn[::flip]
        return masks

    def _placed(
        self, moved: NDArray[np.float64], drawn: Sequence[int], shape: Sequence[int]
    ) -> tuple[int, tuple[int, int, int]]:
        """Direction of slices and first voxel of our grid in the volume's; `moved` maps our indices to its."""
        flip = -1 if moved[0, 0] < 0 else 1
        last = moved @ np.array([drawn[0] - 1 if flip < 0 else 0, 0, 0, 1.0])
        first = np.rint(last[:3]).astype(int)
        straight = np.diag([flip, 1.0, 1.0])
        drift = np.abs(moved[:3, :3] - straight) * np.maximum(np.array(drawn) - 1, 1)
        aligned = drift.max() < _OFF_GRID and np.abs(last[:3] - first).max() < _OFF_GRID
        if not aligned:
            raise InputError(f"{self.path} lies on another grid than the volume.", _HINT)
        if (first < 0).any() or (first + np.array(drawn) > np.array(shape)).any():
            raise InputError(f"{self.path} reaches beyond the volume.", _HINT)
        return flip, (int(first[0]), int(first[1]), int(first[2]))

    def _check_planes(self, uid: str, geometry: Geometry) -> None:
        size = np.array([1, max(self.rows - 1, 1), max(self.columns - 1, 1), 1.0])
        for frame in self._drawn_on.get(uid, ()):
            plane = self._opened.attributes(frame).geometry(None)
            moved = None if plane is None else np.linalg.inv(geometry.affine) @ plane.affine
            if moved is None or (np.abs(moved - np.eye(4)) * size)[:, 1:].max() > _OFF_GRID:
                raise InputError(f"{self.path} does not lie on the pixels of the image {uid}.", _HINT)

    @cached_property
    def _drawn_on(self) -> dict[str, list[int]]:
        """Our frames by the image that each was drawn on."""
        found: dict[str, list[int]] = {}
        for index, item in enumerate(self._file.get("PerFrameFunctionalGroupsSequence") or ()):
            for derivation in item.get("DerivationImageSequence") or ():
                for source in derivation.get("SourceImageSequence") or ():
                    found.setdefault(str(source.get("ReferencedSOPInstanceUID")), []).append(index)
        return found

    @property
    def _how(self) -> dict[str, Any]:
        return {"combine_segments": False, "assert_missing_frames_are_empty": True, "rescale_fractional": True}

    def _masks(self, read: Callable[[], NDArray[Any]]) -> Masks:
        with self._damage():
            masks = read()
        return masks.astype(np.float32) if self.kind == "FRACTIONAL" else masks.astype(np.bool_)

    def _require(self, uid: str) -> None:
        if uid not in self.sources:
            raise InputError(f"{self.path} does not refer to the image {uid}.", _HINT)

    def _check_size(self, images: int, plane: Sequence[int] = ()) -> None:
        size = images * prod(plane or (self.rows, self.columns)) * len(self.segments)
        if size * (4 if self.kind == "FRACTIONAL" else 1) > MAX_ARRAY_BYTES:
            raise InputError(f"{self.path} makes {size:,} values of masks, more than are read at once.", "Take fewer.")

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            with silent_pydicom():
                yield
        except (InputError, MemoryError, OSError):
            raise
        except Exception as error:  # highdicom raises whatever a contradiction provokes
            text = str(error).split(". ")[0].rstrip(".")
            raise InputError(f"{self.path} gives no masks for these images: {text}.", _HINT) from error


def read_segmentation(path: Path) -> Segmentation:
    """Open a DICOM Segmentation.

    Raises:
        InputError: not one, damaged, contradictory, or beyond the limits of images.
        ResourceError: it cannot be read.
        MissingSoftwareError: highdicom is not installed.
    """
    opened = open_dicom(path)  # judges the header before anything is allocated by it
    if str(opened.dataset.get("SOPClassUID", "")) not in _STORAGE:
        raise InputError(f"{path} is no DICOM Segmentation.", "Give a file of the modality SEG.")
    seg = require("highdicom.seg", extra="imaging", purpose="read DICOM Segmentations")
    try:
        with silent_pydicom():
            file = seg.segread(path)
            segments = tuple(_segment(file, number) for number in file.segment_numbers if number > 0)
            sources = frozenset(str(instance) for _, _, instance in file.get_source_image_uids())
    except (MemoryError, OSError):
        raise
    except Exception as error:  # as above
        raise InputError(
            f"{path} is no Segmentation that can be read: {str(error).rstrip('.')}.", "Check the file."
        ) from error
    if not segments:
        raise InputError(f"{path} has no segments.", "Check the file.")
    kind: SegmentationKind = file.segmentation_type.value
    return Segmentation(path, kind, segments, sources, opened.module.rows, opened.module.columns, file, opened)


def label_map(masks: Masks, *, overlap: Literal["refuse", "last"] = "refuse", threshold: float = 0.5) -> NDArray[Any]:
    """One label a pixel: 0 where no segment is, 1 for the first, 2 for the second, and so on.

    Args:
        masks: `(..., segments)`; those between 0 and 1 belong from `threshold`.
        overlap: what to do where segments overlap: refuse, or let the last one win.
        threshold: for FRACTIONAL masks.

    Returns:
        `(...)`, uint8, or uint16 for more than 255 segments.

    Raises:
        InputError: segments overlap.
    """
    drawn = masks if masks.dtype == np.bool_ else masks >= threshold
    if overlap == "refuse" and (drawn.sum(axis=-1) > 1).any():
        raise InputError(
            "Segments overlap, and one label is asked for each pixel.", "Choose one segment for each task."
        )
    count = drawn.shape[-1]
    numbers = np.arange(1, count + 1, dtype=np.uint8 if count < 256 else np.uint16)
    labels: NDArray[Any] = np.max(drawn * numbers, axis=-1, initial=0)
    return labels


def _segment(file: HighdicomSegmentation, number: int) -> Segment:
    item = file.get_segment_description(number)
    return Segment(
        number=number,
        label=str(item.get("SegmentLabel", "")),
        category=_code(item, "SegmentedPropertyCategoryCodeSequence"),
        property_type=_code(item, "SegmentedPropertyTypeCodeSequence"),
        algorithm=item.get("SegmentAlgorithmType"),
    )


def _code(item: Any, keyword: str) -> Code | None:
    codes = item.get(keyword) or ()
    if not codes:
        return None
    texts = [str(codes[0].get(name, "")) for name in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")]
    return Code(*texts)
