"""Everything of a file but its pixels, parsed by pydicom within limits, and where the pixels are (PS3.10 section 7)."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from edgemed.base.errors import EdgemedError, InputError
from edgemed.base.lazy import require
from edgemed.imaging.dicom import sniff
from edgemed.imaging.dicom.identity import UIDS
from edgemed.imaging.dicom.limits import MAX_DEPTH
from edgemed.imaging.dicom.source import (
    Budget,
    DeflatedSource,
    FileSource,
    HeaderReader,
    InflatingReader,
    Inflation,
    Source,
    identify,
    open_regular,
    truncated,
)
from edgemed.imaging.dicom.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Syntax, find_syntax
from edgemed.imaging.dicom.values import text

if TYPE_CHECKING:
    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset

UNDEFINED = 0xFFFFFFFF
PIXEL_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}

_ITEM = {True: b"\xfe\xff\x00\xe0", False: b"\xff\xfe\xe0\x00"}  # (FFFE,E000), by byte order
_LARGE = 1 << 16


@dataclass(frozen=True)
class PixelElement:
    """Where the pixel data are: `length` bytes from `offset`, or fragments from there if `length` is `None`."""

    keyword: str
    vr: str | None
    offset: int
    length: int | None


@dataclass(frozen=True)
class Header:
    """What was parsed.

    Attributes:
        dataset: all elements before the pixel data, sequences converted.
        syntax: how the file is written.
        source: where offsets point into.
        pixels: `None` if the file has none.
    """

    dataset: Dataset
    syntax: Syntax
    source: Source
    pixels: PixelElement | None


def read_header(path: Path, *, last: int | None = None) -> Header:
    """Parse a file up to its pixel data.

    Args:
        path: of the file.
        last: tag after which nothing is wanted. What follows is not looked at: `pixels` may be `None` where there are.

    Raises:
        InputError: not DICOM, truncated, damaged, beyond the limits, or of a transfer syntax that is not read.
        OSError: it cannot be opened.
    """
    require("pydicom", extra="imaging", purpose="read DICOM files")
    with open_regular(path) as file:
        identity = identify(file)
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(sniff.PREAMBLE + len(sniff.MAGIC))
        sniff.refuse_others(head)
        if not sniff.has_magic(head):
            file.seek(0)
        try:
            return _parse(file, FileSource(path, size, identity), last)
        except (EdgemedError, OSError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno is None:  # pydicom's word for a sequence that breaks off
                if isinstance(error.__context__, EdgemedError):  # it swallows ours there
                    raise error.__context__ from None
                raise InputError(f"its header is damaged: {error}.", "Fetch the file again.") from error
            raise
        except RecursionError as error:
            raise _too_deep() from error
        except Exception as error:  # a damaged header may raise anything inside pydicom
            raise InputError(f"its header is damaged: {error}.", "Fetch the file again.") from error


def _parse(file: BinaryIO, source: FileSource, last: int | None) -> Header:
    def is_end(tag: int) -> bool:
        return tag in PIXEL_TAGS or (last is not None and tag > last)

    budget = Budget()
    reader = HeaderReader(file, source.size, budget)
    meta, _ = _read_elements(reader, EXPLICIT_LITTLE, lambda tag: tag >> 16 != 0x0002)
    uid = text(meta, "TransferSyntaxUID")
    syntax = find_syntax(uid) if uid else _guess(reader)
    whole: Source = source
    if syntax.deflated:
        whole = DeflatedSource(source, file.seek(reader.tell()))
        reader = InflatingReader(Inflation(file), budget)
    dataset, pixels = _read_elements(reader, syntax, is_end)
    if pixels is not None and pixels.length is None and uid is None:
        raise InputError(
            "it has compressed pixels, and no Transfer Syntax UID.", "Fetch the file with its meta header."
        )
    _expand(dataset, budget, depth=1)
    _attach(dataset, meta)
    return Header(dataset, syntax, whole, pixels)


def _read_elements(reader: HeaderReader, syntax: Syntax, is_end: Any) -> tuple[Dataset, PixelElement | None]:
    """Elements up to the first whose tag `is_end`; that one if it is pixel data."""
    from pydicom.filereader import read_dataset

    found: list[PixelElement] = []
    seen: set[int] = set()

    def stop_when(tag: int, vr: str | None, length: int) -> bool:
        if is_end(tag):
            defined = None if length == UNDEFINED else length
            if tag in PIXEL_TAGS:
                found.append(PixelElement(PIXEL_TAGS[tag], vr, reader.tell(), defined))
            return True
        if tag in UIDS:
            if tag in seen:  # pydicom takes the last, `identity.look` the first
                raise InputError("it says twice who it is.", "Write each element once, and send it again.")
            seen.add(tag)
        if length != UNDEFINED and not reader.has(length):
            raise truncated()
        return False

    dataset = read_dataset(cast(BinaryIO, reader), syntax.implicit, syntax.little, stop_when=stop_when)
    return dataset, found[-1] if found else None


def _guess(reader: HeaderReader) -> Syntax:
    """The transfer syntax of a file that does not name one, by its first element; compression cannot be seen there."""
    start = reader.tell()
    head = reader.read(6)
    reader.seek(start)
    if len(head) < 6:
        raise InputError("it ends after its meta header.", "Fetch the file again.")
    group, _, vr = struct.unpack("<HH2s", head)
    if not (vr.isalpha() and vr.isupper()):
        return IMPLICIT_LITTLE
    return EXPLICIT_BIG if group >= 0x0100 and group & 0xFF == 0 else EXPLICIT_LITTLE


def _expand(dataset: Dataset, budget: Budget, depth: int) -> None:
    """Convert all sequences within the limits: pydicom would convert those of defined length later, without any."""
    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.filereader import read_sequence

    if depth > MAX_DEPTH:
        raise _too_deep()
    for element in list(dataset.values()):
        if isinstance(element, RawDataElement):
            if not _is_sequence(element, dataset):
                continue
            data = element.value or b""
            reader = cast(BinaryIO, HeaderReader(io.BytesIO(data), len(data), budget))
            encoding = dataset.original_character_set
            implicit, little = element.is_implicit_VR, element.is_little_endian
            sequence = read_sequence(reader, implicit, little, len(data), encoding)
            dataset[element.tag] = DataElement(element.tag, "SQ", sequence)
        elif element.VR == "SQ":
            sequence = element.value
        else:
            continue
        for item in sequence:
            _expand(item, budget, depth + 1)


def _is_sequence(element: RawDataElement, dataset: Dataset) -> bool:
    if element.VR == "SQ":
        return True
    data = element.value
    if element.VR not in (None, "UN") or not data:
        return False
    if data[:4] != _ITEM[element.is_little_endian] and len(data) < _LARGE:  # a small odd one may convert when asked for
        return False
    from pydicom.hooks import raw_element_vr

    found: dict[str, Any] = {}
    raw_element_vr(element, found, ds=dataset)
    return bool(found["VR"] == "SQ")


def _attach(dataset: Dataset, meta: Dataset) -> None:
    """The file meta information goes with the data set, where pydicom's users expect it."""
    from pydicom.dataset import FileMetaDataset

    dataset.file_meta = FileMetaDataset(meta)


def _too_deep() -> InputError:
    return InputError(f"its sequences are nested more than {MAX_DEPTH} deep.", "Check the file.")
