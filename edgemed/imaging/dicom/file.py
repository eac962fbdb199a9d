"""A DICOM file, opened: its header is read and judged once, its frames are decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError, ResourceError, from_os_error
from edgemed.imaging.dicom.color import Palette, read_palette
from edgemed.imaging.dicom.decode import Samples
from edgemed.imaging.dicom.facts import read_facts
from edgemed.imaging.dicom.frames import FrameAttributes, FrameGroups, read_attributes
from edgemed.imaging.dicom.header import Header, read_header
from edgemed.imaging.dicom.limits import MAX_IMAGE_BYTES
from edgemed.imaging.dicom.module import PALETTE, PixelModule, check_module
from edgemed.imaging.dicom.pixels import Padding, color_pixels, find_padding, gray_pixels, palette_pixels, total
from edgemed.imaging.dicom.storage import Frames, locate_frames
from edgemed.imaging.dicom.values import quiet, text
from edgemed.imaging.dicom.voi import mirror_tables, mirror_windows
from edgemed.recipe.image import Facts, Image, LookupTable, Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A file whose header is whole, within limits, and says how to read its pixels.

    Attributes:
        path: of the file.
        dataset: its elements but the pixel data, sequences converted, `file_meta` attached.
        transfer_syntax: UID.
        module: how pixels are stored.
    """

    path: Path
    dataset: Dataset = field(repr=False)
    transfer_syntax: str
    module: PixelModule
    _notes: tuple[str, ...] = field(repr=False)
    _frames: Frames = field(repr=False)
    _groups: FrameGroups = field(repr=False)
    _first: FrameAttributes = field(repr=False)
    _padding: Padding | None = field(repr=False)
    _palette: Palette | None = field(repr=False)

    @property
    def held(self) -> int:
        """Bytes that stay in memory of what was deflated: of the header, and of the frames where there are several."""
        return self._frames.held

    @property
    def facts(self) -> Facts:
        """What it says of the image; spacing is that of the first frame."""
        return self._described[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the file says and cannot mean, and was left out, in sentences."""
        return (*self._notes, *self._described[1])

    @cached_property
    def _described(self) -> tuple[Facts, tuple[str, ...]]:
        """Read when asked for: a series asks for those of one slice."""
        notes: list[str] = []
        with refusals(self.path), quiet():
            return read_facts(self.dataset, self.module, self._first, notes), tuple(notes)

    @property
    def frames(self) -> int:
        """How many images it holds."""
        return self.module.frames

    def attributes(self, index: int) -> FrameAttributes:
        """What the file says of one frame: in its own functional groups, the shared ones, or at the top.

        Raises:
            InputError: an invalid Modality LUT.
            IndexError: there is no such frame.
        """
        self._check(index)
        with refusals(self.path):
            return self._attributes(index)

    def frame(self, index: int) -> Image:
        """Decode one frame.

        Raises:
            InputError: its pixels are damaged, or the file has changed.
            ResourceError: the file cannot be read, or memory is short.
            IndexError: there is no such frame.
        """
        self._check(index)
        with refusals(self.path):
            return self._frame(index, self._attributes(index))

    def samples(self, index: int) -> Samples:
        """Decode one frame and leave its samples as they are stored; raises what `frame` raises."""
        self._check(index)
        with refusals(self.path):
            return self._frames.read(index)

    def stored_range(self, index: int) -> tuple[float, float] | None:
        """Smallest and largest value that the stored bits of a frame can make; raises what `attributes` raises."""
        return self._stored_range(self.attributes(index))

    def pixels(self, index: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Pixels of one frame and where they are valid, as in its `Image`; raises what `frame` raises."""
        self._check(index)
        with refusals(self.path):
            return self._pixels(index, self._attributes(index))

    def image(self, limit: int = MAX_IMAGE_BYTES) -> Image:
        """All frames: one image, or a stack of them.

        Frames of a stack share windows and tables, or have none here (`frame` gives them).

        Args:
            limit: bytes that the pixels may take.

        Raises:
            InputError: as `frame`; or more than `limit`.
            ResourceError: as `frame`.
        """
        if self.frames == 1:
            return self.frame(0)
        with refusals(self.path):
            return self._stack(limit)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.frames:
            raise IndexError(f"{self.path} has frames 0 to {self.frames - 1}, not {index}.")

    def _attributes(self, index: int) -> FrameAttributes:
        if index == 0:
            return self._first
        with quiet():
            return read_attributes(self.dataset, self._groups, self.module, index, [])

    def _frame(self, index: int, attributes: FrameAttributes) -> Image:
        pixels, valid = self._pixels(index, attributes)
        windows, tables = self._voi(attributes)
        return Image(
            pixels,
            self.facts,
            windows=windows,
            tables=tables,
            stored_range=self._stored_range(attributes),
            valid=valid,
            geometry=attributes.geometry(self._frame_of_reference),
        )

    def _pixels(self, index: int, attributes: FrameAttributes) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        samples = self._frames.read(index)
        if self.module.is_color:
            return color_pixels(samples, self.module), None
        if self._palette is not None:
            return palette_pixels(samples, self.module, self._palette), None
        return gray_pixels(samples, self.module, attributes.modality, self._padding)

    @property
    def is_color(self) -> bool:
        """Whether frames are red, green and blue."""
        return self.module.is_color or self._palette is not None

    @property
    def _frame_of_reference(self) -> str | None:
        return text(self.dataset, "FrameOfReferenceUID")

    def _stored_range(self, attributes: FrameAttributes) -> tuple[float, float] | None:
        if self.is_color:
            return 0.0, 255.0
        return None if self.module.is_float else attributes.modality.span(self.module.stored_range)

    def _voi(self, attributes: FrameAttributes) -> tuple[tuple[Window, ...], tuple[LookupTable, ...]]:
        if self.is_color:  # they are for gray values (PS3.3 C.11.2)
            return (), ()
        if self.module.photometric != "MONOCHROME1":
            return attributes.windows, attributes.tables
        whole = total(attributes.modality, self.module)
        return mirror_windows(attributes.windows, whole), mirror_tables(attributes.tables, whole, [])

    def _stack(self, limit: int) -> Image:
        module, frames = self.module, self.frames
        every = [self._attributes(i) for i in range(frames)] if self._groups.differ else [self._first]
        dtype = np.dtype(np.float32 if module.is_float else np.uint8)
        if not (self.is_color or module.is_float):
            dtype = np.result_type(*{a.modality.dtype(module.stored_range) for a in every})
        shape = (frames, module.rows, module.columns) + ((3,) if self.is_color else ())
        size = frames * module.pixels * dtype.itemsize * (3 if self.is_color else 1)
        if size > limit:
            raise InputError(f"its {frames} frames take {size:,} bytes.", f"At most {limit:,} are read at once.")
        pixels, valid = np.empty(shape, dtype), None
        for index in range(frames):
            pixels[index], where = self._pixels(index, every[index % len(every)])
            if where is not None:
                valid = np.ones(shape, np.bool_) if valid is None else valid
                valid[index] = where
        windows, tables = self._shared_voi(every)
        spans = [span for span in map(self._stored_range, every) if span is not None]
        span = (min(low for low, _ in spans), max(high for _, high in spans)) if spans else None
        return Image(pixels, self.facts, windows, tables, span, valid, stacked=True)

    def _shared_voi(self, every: list[FrameAttributes]) -> tuple[tuple[Window, ...], tuple[LookupTable, ...]]:
        first_windows, first_tables = self._voi(every[0])
        others = [self._voi(attributes) for attributes in every[1:]]
        windows = first_windows if all(first_windows == theirs for theirs, _ in others) else ()
        tables = first_tables if not any(theirs for _, theirs in others) else ()
        return windows, tables


def open_dicom(path: Path) -> DicomFile:
    """Read and judge the header of a file; no pixel is touched.

    Raises:
        InputError: not DICOM, no pixels, damaged, truncated, contradictory, not supported, or beyond the limits; names
            the file and the reason.
        ResourceError: the file cannot be read, or memory is short.
        MissingSoftwareError: pydicom is not installed.
    """
    with refusals(path), quiet():
        return _judge(path, read_header(path))


def _judge(path: Path, header: Header) -> DicomFile:
    module = check_module(header)
    notes: list[str] = []
    frames = locate_frames(header, module, notes)
    groups = FrameGroups(header.dataset, module.frames)
    first = read_attributes(header.dataset, groups, module, 0, notes)
    palette = None
    if module.photometric == PALETTE:
        palette = read_palette(header.dataset, signed=module.signed)
        first = replace(first, windows=(), tables=())
    if module.photometric == "MONOCHROME1":
        mirror_tables(first.tables, total(first.modality, module), notes)
    return DicomFile(
        path=path,
        dataset=header.dataset,
        transfer_syntax=header.syntax.uid,
        module=module,
        _notes=tuple(notes),
        _frames=frames,
        _groups=groups,
        _first=first,
        _padding=find_padding(header.dataset, module),
        _palette=palette,
    )


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Errors of a file name it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path} is not read: {error.what}", error.hint) from error
    except OSError as error:
        raise from_os_error(error, path) from error
    except MemoryError as error:
        raise ResourceError(f"{path} needs more memory than there is.", "Close other programs or add swap.") from error
