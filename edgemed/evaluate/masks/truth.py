"""What was drawn, on the pixels of its image: from a mask beside it, or from DICOM Segmentations that refer to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.labels.masks import read_mask
from edgemed.imaging.labels.segmentation import Segment, Segmentation
from edgemed.imaging.nifti import is_nifti, read_nifti
from edgemed.imaging.open import ImageFile, Series, open_image, volume_of
from edgemed.imaging.sources import Sample
from edgemed.recipe.image import Geometry

Bools = NDArray[np.bool_]

_SAME_GRID = 0.01  # mm: what float32 in a header leaves of a position within a body
_FRACTION = 0.5  # of FRACTIONAL segmentations: from here on a pixel belongs to the segment, as in `label_map`


class Truth(Protocol):
    """One image file or series, and what was drawn on it."""

    @property
    def sample(self) -> Sample:
        """The image; its path is a file, of a series the first one."""

    @property
    def image_files(self) -> tuple[Path, ...]:
        """What the image is read from."""

    @property
    def drawn_in(self) -> tuple[Path, ...]:
        """What was drawn is read from these."""

    def open(self) -> ImageFile | None:
        """The image; `None` for arrays."""

    def drawn(self, file: ImageFile | None, index: int, shape: tuple[int, ...]) -> Bools:
        """Masks of what the image makes.

        Args:
            file: the image, as `open` gave it.
            index: of the frame, from 0.
            shape: rows and columns, slices before them for a volume, of what the model's masks lie on.

        Returns:
            `(*shape, classes)`.

        Raises:
            InputError: it does not fit the image.
        """


@dataclass(frozen=True)
class MaskFile:
    """A gray image whose values are classes, or a NIfTI volume of such.

    Attributes:
        exclusive: the classes, so that a value below their number is one.
    """

    sample: Sample
    mask: Path
    classes: int

    @property
    def image_files(self) -> tuple[Path, ...]:
        """See `Truth`."""
        return (self.sample.path,)

    @property
    def drawn_in(self) -> tuple[Path, ...]:
        """See `Truth`."""
        return (self.mask,)

    def open(self) -> ImageFile | None:
        """See `Truth`."""
        return None if self.sample.holds_arrays else open_image(self.sample.path)

    def drawn(self, file: ImageFile | None, index: int, shape: tuple[int, ...]) -> Bools:
        """See `Truth`."""
        if index > 0:
            raise InputError(f"{self.sample.path} has several frames, and one mask.", "Give one mask for each image.")
        if len(shape) == 3:
            labels = self._volume(file, shape)
        else:
            labels = read_mask(self.mask, classes=self.classes + 1, shape=(shape[0], shape[1]))
        return np.asarray(labels[..., None] == np.arange(1, self.classes + 1))

    def _volume(self, file: ImageFile | None, shape: tuple[int, ...]) -> NDArray[Any]:
        if file is None or not is_nifti(self.mask):
            raise InputError(f"{self.mask} is no mask of a volume.", "Give NIfTI masks of volumes, or DICOM SEG.")
        mask, source = read_nifti(self.mask), volume_of(file, self.sample.path)
        if mask.pixels.shape != source.pixels.shape or not _same_grid(mask.geometry, source.geometry):
            raise InputError(f"{self.mask} lies on another grid than {self.sample.path}.", "Give masks on its grid.")
        wrong = [v for v in np.unique(mask.pixels).tolist() if v != int(v) or not 0 <= v <= self.classes]
        if wrong or mask.pixels.shape != shape:
            what = f"has the value {wrong[0]:g}" if wrong else "is of another size than its image"
            raise InputError(f"{self.mask} {what}; classes are 0 to {self.classes}.", "Store classes as 0, 1, 2, ...")
        return mask.pixels


@dataclass(frozen=True)
class Drawing:
    """A segmentation file, and the class that each of its segments is: an index, or `None` for the background."""

    file: Segmentation
    classes: tuple[int | None, ...]

    def onto(self, masks: Any, count: int) -> Bools:
        """`(..., segments)` as `(..., classes)`."""
        marked = masks if masks.dtype == np.bool_ else masks >= _FRACTION
        result = np.zeros((*marked.shape[:-1], count), np.bool_)
        for segment, index in enumerate(self.classes):
            if index is not None:
                result[..., index] |= marked[..., segment]
        return result


@dataclass(frozen=True)
class DrawnImage:
    """A DICOM image, of one frame or several, and the segmentations that refer to it."""

    sample: Sample
    uid: str
    drawings: tuple[Drawing, ...]
    classes: int

    @property
    def image_files(self) -> tuple[Path, ...]:
        """See `Truth`."""
        return (self.sample.path,)

    @property
    def drawn_in(self) -> tuple[Path, ...]:
        """See `Truth`."""
        return tuple(drawing.file.path for drawing in self.drawings)

    def open(self) -> ImageFile | None:
        """See `Truth`."""
        return open_image(self.sample.path)

    def drawn(self, file: ImageFile | None, index: int, shape: tuple[int, ...]) -> Bools:
        """See `Truth`."""
        assert file is not None
        masks = [drawing.onto(self._masks(drawing.file, file, index), self.classes) for drawing in self.drawings]
        return _fitting(np.logical_or.reduce(masks), shape, self.drawn_in[0])

    def _masks(self, drawing: Segmentation, file: ImageFile, index: int) -> NDArray[Any]:
        if file.frames > 1:
            return np.asarray(drawing.of_frames(self.uid, [index])[0])
        geometry = file.frame(0).geometry
        return np.asarray(drawing.of_instances([self.uid], None if geometry is None else [geometry])[0])


@dataclass(frozen=True)
class DrawnVolume:
    """The files of one series, and the segmentations that refer to them."""

    sample: Sample
    paths: tuple[Path, ...]
    drawings: tuple[Drawing, ...]
    classes: int

    @property
    def image_files(self) -> tuple[Path, ...]:
        """See `Truth`."""
        return self.paths

    @property
    def drawn_in(self) -> tuple[Path, ...]:
        """See `Truth`."""
        return tuple(drawing.file.path for drawing in self.drawings)

    def open(self) -> ImageFile | None:
        """See `Truth`."""
        return Series(self.paths) if len(self.paths) > 1 else open_image(self.paths[0])

    def drawn(self, file: ImageFile | None, index: int, shape: tuple[int, ...]) -> Bools:  # noqa: ARG002 - it is one
        """See `Truth`."""
        assert file is not None
        volume = volume_of(file, self.sample.path)
        if volume.geometry is None:
            raise InputError(f"{self.sample.name} has no geometry.", "Give the slices of a series.")
        slices, rows, columns = volume.pixels.shape[:3]
        found = np.zeros((slices, rows, columns, self.classes), np.bool_)
        for drawing in self.drawings:
            found |= drawing.onto(drawing.file.on_volume(volume.geometry, (slices, rows, columns)), self.classes)
        return _fitting(found, shape, self.drawn_in[0])


def class_of(segment: Segment, names: Sequence[str], codes: Sequence[tuple[str, str] | None]) -> int | None:
    """Index of the class that a segment is: by its label, without regard to case, or its code's scheme and value."""
    for index, (name, code) in enumerate(zip(names, codes, strict=True)):
        coded = segment.property_type is not None and code == (
            segment.property_type.scheme,
            segment.property_type.value,
        )
        if coded or segment.label.strip().casefold() == name.strip().casefold():
            return index
    return None


def _fitting(masks: Bools, shape: tuple[int, ...], path: Path) -> Bools:
    if masks.shape[:-1] != shape:
        have, want = ("x".join(map(str, size)) for size in (masks.shape[:-1], shape))
        raise InputError(f"{path} is {have}, and its image {want}.", "Give the images that it was drawn on.")
    return masks


def _same_grid(one: Geometry | None, other: Geometry | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.abs(one.affine - other.affine).max() < _SAME_GRID)
