"""The Image Pixel Module (PS3.3 C.7.6.3): what a header claims of the pixels, checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.header import Header, PixelElement
from edgemed.imaging.dicom.limits import MAX_PIXELS
from edgemed.imaging.dicom.values import integer, text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
PALETTE = "PALETTE COLOR"

_HINT = "Correct the header, or leave the file out."
_FLOAT_BITS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
_MAX_FRAMES = 1 << 31  # what IS can say


@dataclass(frozen=True)
class PixelModule:
    """What the header says of the pixels.

    Attributes:
        rows: of a frame.
        columns: of a frame.
        frames: in the file.
        samples: 1, or 3 for colour.
        photometric: Photometric Interpretation.
        planar: colour by plane instead of by pixel.
        allocated: bits of a sample in uncompressed data.
        stored: of these, the ones that count; `allocated` for float pixels.
        high: the most significant one.
        signed: two's complement.
        is_float: pixels are IEEE floats.
    """

    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    planar: bool
    allocated: int
    stored: int
    high: int
    signed: bool
    is_float: bool

    @property
    def pixels(self) -> int:
        """Of a frame."""
        return self.rows * self.columns

    @property
    def halved_chroma(self) -> bool:
        """Uncompressed, two neighbours share their chroma: Y Y Cb Cr."""
        return self.photometric == "YBR_FULL_422"

    @property
    def is_color(self) -> bool:
        """Three samples a pixel."""
        return self.samples == 3

    @property
    def stored_range(self) -> tuple[int, int]:
        """The smallest and the largest value of the stored bits."""
        if self.signed:
            return -(1 << (self.stored - 1)), (1 << (self.stored - 1)) - 1
        return 0, (1 << self.stored) - 1


def check_module(header: Header) -> PixelModule:
    """The module of a file, whole and within limits.

    Raises:
        InputError: no pixels, or a module that is incomplete, contradicts itself or exceeds the limits.
    """
    dataset = header.dataset
    element = _pixel_element(header)
    rows, columns = _side(dataset, "Rows"), _side(dataset, "Columns")
    if rows * columns > MAX_PIXELS:
        raise InputError(f"it claims {rows} x {columns} pixels, more than allowed.", f"At most {MAX_PIXELS:,} a frame.")
    samples, photometric = _color(dataset)
    planar = integer(dataset, "PlanarConfiguration") or 0
    if planar not in (0, 1):
        raise InputError(f"its Planar Configuration is {planar}.", _HINT)
    if element.keyword in _FLOAT_BITS:
        allocated = stored = _FLOAT_BITS[element.keyword]
        if photometric != "MONOCHROME2":
            raise InputError(f"its pixels are floats, and {photometric}.", "Float pixels are MONOCHROME2 (PS3.3).")
        high, signed = allocated - 1, True
    else:
        allocated, stored, high, signed = _bits(dataset, photometric)
    return PixelModule(
        rows=rows,
        columns=columns,
        frames=_frames(dataset),
        samples=samples,
        photometric=photometric,
        planar=bool(planar) and samples == 3,
        allocated=allocated,
        stored=stored,
        high=high,
        signed=signed,
        is_float=element.keyword in _FLOAT_BITS,
    )


def _pixel_element(header: Header) -> PixelElement:
    if header.pixels is not None:
        return header.pixels
    dataset = header.dataset
    kind = _sop_class_name(dataset)
    if "DirectoryRecordSequence" in dataset or kind.startswith("Media Storage Directory"):
        raise InputError("it is a DICOMDIR, a directory of other files.", "Give the files that it lists.")
    if "Rows" in dataset:
        raise InputError("it ends before its pixels.", "Fetch the file again; it is cut short.")
    raise InputError(
        f"it holds no pixels ({kind}).", "Give images; leave out reports, plans, structures and waveforms."
    )


def _sop_class_name(dataset: Dataset) -> str:
    from pydicom.uid import UID

    uid = text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID")
    return UID(uid).name if uid else "no SOP Class UID"


def _side(dataset: Dataset, keyword: str) -> int:
    side = integer(dataset, keyword)
    if side is None:
        raise InputError(f"it does not say its {keyword}.", _HINT)
    if not 1 <= side <= 0xFFFF:
        raise InputError(f"its {keyword} is {side}.", _HINT)
    return side


def _frames(dataset: Dataset) -> int:
    frames = integer(dataset, "NumberOfFrames")
    if frames is None:
        return 1
    if not 1 <= frames < _MAX_FRAMES:
        raise InputError(f"its Number of Frames is {frames}.", _HINT)
    return frames


def _color(dataset: Dataset) -> tuple[int, str]:
    photometric = text(dataset, "PhotometricInterpretation")
    if photometric is None:
        raise InputError("it does not say whether 0 is black or white (Photometric Interpretation).", _HINT)
    if photometric not in (*MONOCHROME, PALETTE, *COLOR):
        raise InputError(f"its Photometric Interpretation is {photometric:.40}, which is not supported.", "Convert it.")
    expected = 3 if photometric in COLOR else 1
    samples = integer(dataset, "SamplesPerPixel")
    if samples not in (None, expected):
        raise InputError(f"it is {photometric} with {samples} samples a pixel.", _HINT)
    return expected, photometric


def _bits(dataset: Dataset, photometric: str) -> tuple[int, int, int, bool]:
    allocated = integer(dataset, "BitsAllocated")
    if allocated not in (1, 8, 16, 32):
        raise InputError(f"its Bits Allocated is {allocated}; 1, 8, 16 and 32 are supported.", "Convert it.")
    stored = integer(dataset, "BitsStored")
    stored = allocated if stored is None else stored
    high = integer(dataset, "HighBit")
    high = stored - 1 if high is None else high
    if not (1 <= stored <= allocated and stored - 1 <= high < allocated):
        raise InputError(f"it has {allocated} bits allocated, {stored} stored, and {high} as the high bit.", _HINT)
    representation = integer(dataset, "PixelRepresentation")
    if representation not in (0, 1):
        raise InputError(f"its Pixel Representation is {representation}, not 0 or 1.", _HINT)
    signed = representation == 1
    if photometric in COLOR and signed:
        raise InputError(f"it is {photometric} with signed pixels.", _HINT)
    if photometric in COLOR and stored < 8:
        raise InputError(f"it is {photometric} with {stored} bits a sample.", "Convert it to 8 bits.")
    if allocated == 1 and (photometric not in MONOCHROME or signed):
        raise InputError(f"it is {photometric} with one bit a pixel.", _HINT)
    return allocated, stored, high, signed
