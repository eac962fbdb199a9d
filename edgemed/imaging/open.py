"""One face for image files of every format: what the file says, its frames one by one, or all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from edgemed.base.errors import InputError
from edgemed.imaging.nifti import is_nifti, read_nifti
from edgemed.imaging.read import read_image, require_file
from edgemed.recipe.image import Facts, Image

_VOLUME_HINT = (
    "Give a DICOM series, a multi-frame file, or NIfTI. For the files of a folder to be slices of one volume, write "
    'kind = "volume" in the recipe.'
)


class ImageFile(Protocol):
    """An opened image file: nothing but its header needs to be in memory."""

    @property
    def facts(self) -> Facts:
        """What the file says of its image."""

    @property
    def frames(self) -> int:
        """Frames, or slices, in the file."""

    def frame(self, index: int) -> Image:
        """One of them."""

    def image(self) -> Image:
        """All of it; stacked where it has several frames."""


@dataclass(frozen=True)
class WholeFile:
    """A format that is read in one piece."""

    whole: Image

    @property
    def facts(self) -> Facts:
        """See `ImageFile`."""
        return self.whole.facts

    @property
    def frames(self) -> int:
        """See `ImageFile`."""
        return self.whole.facts.frames

    def frame(self, index: int) -> Image:
        """See `ImageFile`."""
        return self.whole.frame(index) if self.whole.stacked else self.whole

    def image(self) -> Image:
        """See `ImageFile`."""
        return self.whole


@dataclass(frozen=True)
class Series:
    """The files of one DICOM series, which are one volume."""

    paths: tuple[Path, ...]

    @cached_property
    def _read(self) -> tuple[Image, tuple[tuple[int, int], ...]]:
        from edgemed.imaging.series import read_volume

        return read_volume(self.paths)

    @property
    def planes(self) -> tuple[tuple[int, int], ...]:
        """For each slice, in order: the index of its file, and its frame there."""
        return self._read[1]

    @property
    def facts(self) -> Facts:
        """See `ImageFile`."""
        return self._read[0].facts

    @property
    def frames(self) -> int:
        """See `ImageFile`."""
        return self._read[0].facts.frames

    def frame(self, index: int) -> Image:
        """See `ImageFile`."""
        return self._read[0].frame(index)

    def image(self) -> Image:
        """See `ImageFile`."""
        return self._read[0]


def open_image(path: Path) -> ImageFile:
    """Open an image file, or the folder of a DICOM series.

    Raises:
        InputError: not an image of a format that is read, damaged, or beyond the limits; names the file.
        ResourceError: it cannot be opened.
    """
    from edgemed.imaging.dicom import is_dicom, open_dicom

    if path.is_dir():
        return Series(_series(path))
    require_file(path)  # a pipe would never say what it is
    if is_nifti(path):
        return WholeFile(read_nifti(path))
    if is_dicom(path):
        return open_dicom(path)
    return WholeFile(read_image(path))


def volume_of(file: ImageFile, path: Path) -> Image:
    """The volume that a file or folder holds: of a multi-frame DICOM file, its frames in the order of their places.

    Raises:
        InputError: it holds no volume.
    """
    if isinstance(file, WholeFile | Series):
        whole = file.image()
        if not whole.stacked:
            raise InputError(f"{path} is one image, not a volume.", _VOLUME_HINT)
        return whole
    if file.frames == 1:
        raise InputError(f"{path} is one slice, not a volume.", _VOLUME_HINT)
    from edgemed.imaging.series import read_series

    return read_series([path])


def _series(folder: Path) -> tuple[Path, ...]:
    from edgemed.imaging.series import series_files

    paths: Sequence[Path] = series_files(folder)
    if not paths:
        raise InputError(f"{folder} holds no DICOM files.", "Give the folder of one series.")
    return tuple(paths)
