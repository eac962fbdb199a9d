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
MAX_HELD_BYTES = 1 << 30
"""Of inflated data sets, which stay in memory while their series is open."""


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


Planes = tuple[tuple[int, int], ...]
"""Where each slice of a volume comes from: index of its file, and its frame there."""


def read_series(paths: Sequence[Path], done: Callable[[], None] | None = None) -> Image:
    """The volume that the files of one series make; see `read_volume`."""
    return read_volume(paths, done)[0]


def read_volume(paths: Sequence[Path], done: Callable[[], None] | None = None) -> tuple[Image, Planes]:
    """The volume that the files of one series make, and which frame of which file each of its slices is.

    In memory beside it: the headers, one slice, and what deflated files hold, 1 GiB in all and one file more.

    Args:
        paths: the files in any order: one slice each, or one enhanced multi-frame file.
        done: called after each slice was read.

    Returns:
        `(slices, rows, columns)`, ordered along the normal (row direction × column direction), with `geometry`; and the
        place of each slice.

    Raises:
        InputError: a file that cannot be read, files of several series, slices that differ in size or kind, or make no
            regular grid (see `geometry.stack`), or a volume or deflated files beyond the limits.
    """
    if not paths:
        raise InputError("There are no DICOM files.", "Give the files of one series.")
    if len(paths) > MAX_SLICES:
        raise InputError(f"{len(paths)} files are more than one series has.", f"At most {MAX_SLICES} are read.")
    slices = _opened(paths)
    grid = stack([item.plane for item in slices])
    ordered = [slices[i] for i in grid.order]
    pixels, valid, middle = _filled(ordered, done)
    facts = replace(middle.facts, frames=len(ordered), slice_spacing=grid.spacing, sop_instance=None)
    geometry = Geometry(grid.affine, _frame_of_reference(ordered[0].file))
    numbers = {path: index for index, path in enumerate(paths)}
    planes = tuple((numbers[item.file.path], item.frame) for item in ordered)
    return replace(middle, pixels=pixels, valid=valid, facts=facts, geometry=geometry, stacked=True), planes


def _opened(paths: Sequence[Path]) -> list[Slice]:
    """All slices; files are judged as they are opened, so that those beyond a limit never are."""
    from edgemed.imaging.dicom import open_dicom

    slices: list[Slice] = []
    held = 0
    for path in paths:
        file = open_dicom(path)
        first = slices[0].file if slices else file
        slices += _slices(file)
        held += file.held
        if file is not first:
            _require_alike(file, first)
        if len(slices) * first.module.pixels * 4 > MAX_ARRAY_BYTES:
            raise InputError(
                f"The series makes more than {MAX_ARRAY_BYTES / 4e9:.1f} billion voxels.",
                f"At most {MAX_ARRAY_BYTES >> 30} GiB are read.",
            )
        if held > MAX_HELD_BYTES:
            raise InputError(
                f"The deflated files of the series take more than {MAX_HELD_BYTES:,} bytes inflated.",
                "Store them without deflating.",
            )
    return slices


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


def _require_alike(file: DicomFile, first: DicomFile) -> None:
    """One series of one kind of image, of one patient: what differs is named."""
    if not _word(first, "SeriesInstanceUID"):
        raise InputError(
            f"{first.path.name} does not say what series it is of: whether the files belong together is not known.",
            "Give files with Series Instance UID.",
        )
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
