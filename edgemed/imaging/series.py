"""A DICOM series becomes a volume: slices in order, on one regular grid, in the file's own directions (LPS)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.geometry import Plane, stack
from edgemed.imaging.limits import MAX_ARRAY_BYTES
from edgemed.recipe.image import Geometry, Image

if TYPE_CHECKING:
    from edgemed.imaging.dicom import DicomFile

MAX_SLICES = 16_384


@dataclass(frozen=True)
class Slice:
    """One frame of a file, and its place."""

    file: DicomFile
    frame: int
    plane: Plane


def series_files(folder: Path) -> list[Path]:
    """DICOM files directly in `folder`, by name; other files and links are passed over."""
    from edgemed.imaging.dicom import is_dicom

    found = (path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    return sorted(path for path in found if not path.name.startswith(".") and is_dicom(path))


def read_series(paths: Sequence[Path], done: Callable[[], None] | None = None) -> Image:
    """The volume that the files of one series make, one slice in memory beside it.

    Args:
        paths: the files in any order: one slice each, or one enhanced multi-frame file.
        done: called after each slice was read.

    Returns:
        `(slices, rows, columns)`, ordered along the normal (row direction × column direction), with `geometry`.

    Raises:
        InputError: a file that cannot be read, files of several series, slices that differ in size or kind, or make no
            regular grid (see `geometry.stack`), or a volume beyond the size limit.
    """
    from edgemed.imaging.dicom import open_dicom

    if not paths:
        raise InputError("There are no DICOM files.", "Give the files of one series.")
    if len(paths) > MAX_SLICES:
        raise InputError(f"{len(paths)} files are more than one series has.", f"At most {MAX_SLICES} are read.")
    slices = [item for path in paths for item in _slices(open_dicom(path))]
    _require_alike(slices)
    grid = stack([item.plane for item in slices])
    ordered = [slices[i] for i in grid.order]
    pixels, valid, middle = _filled(ordered, done)
    facts = replace(middle.facts, frames=len(ordered), slice_spacing=grid.spacing, sop_instance=None)
    geometry = Geometry(grid.affine, _frame_of_reference(ordered[0].file))
    return replace(middle, pixels=pixels, valid=valid, facts=facts, geometry=geometry, stacked=True)


def _slices(file: DicomFile) -> Iterator[Slice]:
    if file.frames > MAX_SLICES:
        raise InputError(f"{file.path} has {file.frames} frames.", f"At most {MAX_SLICES} slices are read.")
    for frame in range(file.frames):
        yield Slice(file, frame, _plane(file, frame))


def _plane(file: DicomFile, frame: int) -> Plane:
    label = file.path.name if file.frames == 1 else f"frame {frame + 1} of {file.path.name}"
    found = file.attributes(frame)
    if found.position is None or found.orientation is None or found.spacing is None:
        absent = "position" if found.position is None else "orientation" if found.orientation is None else "spacing"
        raise InputError(f"{label} does not say its {absent}: it is no slice of a volume.", "Give slices of a series.")
    return Plane(found.position, *found.orientation, found.spacing, label)


def _frame_of_reference(file: DicomFile) -> str | None:
    return _word(file, "FrameOfReferenceUID")


def _word(file: DicomFile, keyword: str) -> str | None:
    value = file.dataset.get(keyword)
    return None if value is None else str(value)


def _require_alike(slices: Sequence[Slice]) -> None:
    """One series of one kind of image: what differs is named, with the first file that differs."""
    first = slices[0].file
    several = any(item.file is not first for item in slices)
    if several and not _word(first, "SeriesInstanceUID"):
        raise InputError(
            f"{first.path.name} does not say what series it is of: whether the files belong together is not known.",
            "Give files with Series Instance UID.",
        )
    for file in {id(item.file): item.file for item in slices}.values():
        for what, one, other in (
            ("series", _word(file, "SeriesInstanceUID"), _word(first, "SeriesInstanceUID")),
            ("study", _word(file, "StudyInstanceUID"), _word(first, "StudyInstanceUID")),
            ("patient", _word(file, "PatientID"), _word(first, "PatientID")),
            ("frame of reference", _frame_of_reference(file), _frame_of_reference(first)),
            ("SOP class", _word(file, "SOPClassUID"), _word(first, "SOPClassUID")),
            ("size", (file.module.rows, file.module.columns), (first.module.rows, first.module.columns)),
            ("photometric interpretation", file.module.photometric, first.module.photometric),
        ):
            if one != other:
                raise InputError(
                    f"{file.path.name} is of another {what} than {first.path.name}.", "Keep one series in a folder."
                )
    count = len(slices) * first.module.pixels
    if count * 4 > MAX_ARRAY_BYTES:
        raise InputError(
            f"The series makes {count / 1e9:.1f} billion voxels.", f"At most {MAX_ARRAY_BYTES >> 30} GiB are read."
        )


def _filled(
    slices: Sequence[Slice], done: Callable[[], None] | None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None, Image]:
    """Pixels, where they are valid, and the image of the middle slice, with what of it holds for all.

    Windows and tables stand for the volume where every slice has the same ones; the range is that of all slices.
    """
    volume: NDArray[Any] | None = None
    valid: NDArray[np.bool_] | None = None
    for index, item in enumerate(slices):
        pixels, where = item.file.pixels(item.frame)
        if pixels.ndim != 2:
            raise InputError(f"{item.plane.label} is a colour image.", "Give slices of gray values.")
        if volume is None:
            volume = np.empty((len(slices), *pixels.shape), pixels.dtype)
        elif not np.can_cast(pixels.dtype, volume.dtype, "safe"):  # rescaling may differ from slice to slice
            volume = volume.astype(_common(volume.dtype, pixels.dtype))
        volume[index] = pixels
        if where is not None:
            valid = np.ones(volume.shape, bool) if valid is None else valid
            valid[index] = where
        if done is not None:
            done()
    assert volume is not None
    if valid is not None:
        volume[~valid] = volume[valid].min() if valid.any() else 0
    middle = slices[len(slices) // 2]
    image = middle.file.frame(middle.frame)
    return volume, valid, replace(image, **_shared(slices, image))


def _shared(slices: Sequence[Slice], middle: Image) -> dict[str, Any]:
    found = [item.file.attributes(item.frame) for item in slices]
    spans = [item.file.stored_range(item.frame) for item in slices]
    known = [span for span in spans if span is not None]
    return {
        "windows": middle.windows if all(other.windows == found[0].windows for other in found) else (),
        "tables": middle.tables if len(slices) == 1 or not any(other.tables for other in found) else (),
        "stored_range": (min(low for low, _ in known), max(high for _, high in known)) if known else None,
    }


def _common(one: np.dtype[Any], other: np.dtype[Any]) -> np.dtype[Any]:
    """A type for both; what no 32-bit integer holds becomes float32, as everywhere."""
    both = np.result_type(one, other)
    return both if both.kind in "ui" and both.itemsize <= 4 else np.dtype(np.float32)
