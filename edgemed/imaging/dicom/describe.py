"""What a router needs to know of a file: whose it is, what it shows, how many belong together. No pixel is touched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.fragments import walk
from edgemed.imaging.dicom.header import Header, read_header
from edgemed.imaging.dicom.identity import ROWS, Glance
from edgemed.imaging.dicom.source import truncated
from edgemed.imaging.dicom.values import integer, quiet, text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_LONGEST_UID: Final = 64
_LONGEST_TEXT: Final = 1024
_MOST_IMAGES: Final = 100_000  # in a series or study; a file that tells of more is not believed

_UIDS: Final = {"sop_class": 0x00080016, "sop_instance": 0x00080018, "study": 0x0020000D, "series": 0x0020000E}
_TEXTS: Final = {
    "modality": 0x00080060,
    "manufacturer": 0x00080070,
    "series_description": 0x0008103E,
    "body_part": 0x00180015,
}
_COUNTS: Final = {"series": 0x00201209, "acquisition": 0x00201002, "study": 0x00201208}

DERIVED: Final = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.481.2": "an RT dose",
    "1.2.840.10008.5.1.4.1.1.4.2": "a spectrum",
}
"""Storage classes with rows and columns that are not an image of a patient."""


@dataclass(frozen=True)
class Described:
    """What a file says of itself; '' and `None` where it does not, or in a way that cannot be read.

    Attributes:
        has_pixels: it has rows of them; a report, a plan or a presentation has none.
        in_series: images that the series has.
        in_study: images that the study has.
    """

    sop_class: str
    sop_instance: str
    study: str
    series: str
    syntax: str
    modality: str
    body_part: str
    series_description: str
    manufacturer: str
    has_pixels: bool
    in_series: int | None = None
    in_study: int | None = None


def describe(path: Path, *, whole: bool = False) -> Described:
    """Read the header of a DICOM file.

    Args:
        path: of the file.
        whole: see, too, that the pixels that it tells of are there, without decoding them.

    Raises:
        InputError: it is damaged, beyond the limits, or without the UIDs of an object. The text has no value of it.
        OSError: it cannot be read.
    """
    with quiet():
        try:
            header = read_header(path, last=None if whole else ROWS)  # what is wanted is not behind it
        except InputError as error:
            if error.__cause__ is not None:  # pydicom's words may quote the file
                raise InputError("its header is damaged.", error.hint) from error
            raise
        if whole:
            _check_whole(header)
        return _described(header.dataset, header.syntax.uid, ROWS in header.dataset)


def described_by(glance: Glance, syntax: str) -> Described | None:
    """The same from the first bytes of the data set, in a fraction of the time; `None` where the file must be parsed.

    Args:
        glance: `identity.look` at them.
        syntax: Transfer Syntax UID.
    """
    texts = glance.texts
    if texts is None:
        return None
    uids = {name: texts.get(tag, "") for name, tag in _UIDS.items()}
    if not (uids["sop_class"] and uids["sop_instance"]) or max(map(len, uids.values())) > _LONGEST_UID:
        return None
    try:
        counts = {name: _believed(int(texts[tag])) if texts.get(tag) else None for name, tag in _COUNTS.items()}
    except ValueError:
        return None
    return Described(
        **uids,
        syntax=syntax,
        **{name: texts.get(tag, "")[:_LONGEST_TEXT] for name, tag in _TEXTS.items()},
        has_pixels=True,
        in_series=counts["series"] or counts["acquisition"],
        in_study=counts["study"],
    )


def _check_whole(header: Header) -> None:
    pixels = header.pixels
    if pixels is None:
        return
    if pixels.length is None:
        _, fragments = walk(header.source, pixels.offset)
        if len(fragments) < (_count(header.dataset, "NumberOfFrames") or 1):
            raise truncated()
    elif pixels.offset + pixels.length > header.source.size:
        raise truncated()


def _described(dataset: Dataset, syntax: str, has_pixels: bool) -> Described:
    sop_class, sop_instance = (_uid(dataset, f"SOP{which}UID") for which in ("Class", "Instance"))
    if not (sop_class and sop_instance):
        raise InputError("it has no SOP Class and Instance UID.", "Correct the file.")
    return Described(
        sop_class=sop_class,
        sop_instance=sop_instance,
        study=_uid(dataset, "StudyInstanceUID"),
        series=_uid(dataset, "SeriesInstanceUID"),
        syntax=syntax,
        modality=_text(dataset, "Modality"),
        body_part=_text(dataset, "BodyPartExamined"),
        series_description=_text(dataset, "SeriesDescription"),
        manufacturer=_text(dataset, "Manufacturer"),
        has_pixels=has_pixels,
        in_series=_count(dataset, "NumberOfSeriesRelatedInstances") or _count(dataset, "ImagesInAcquisition"),
        in_study=_count(dataset, "NumberOfStudyRelatedInstances"),
    )


def sop_class_uid(name: str) -> str:
    """The UID of a storage class that is given by its keyword (`CTImageStorage`), or by its UID.

    Raises:
        InputError: no such keyword.
    """
    if name[:1].isdigit():
        return name
    from pydicom import uid

    found = getattr(uid, name, None)
    if not (isinstance(found, uid.UID) and name.endswith("Storage")):
        raise InputError(f"There is no SOP class {name}.", "Give a keyword of PS3.6, as CTImageStorage, or a UID.")
    return str(found)


def _uid(dataset: Dataset, keyword: str) -> str:
    found = _text(dataset, keyword)
    if len(found) > _LONGEST_UID or not found.isascii() or not found.isprintable():
        raise InputError(f"its {keyword} is no UID.", "Correct the file.")
    return found


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        return (text(dataset, keyword) or "")[:_LONGEST_TEXT]
    except InputError:
        return ""


def _count(dataset: Dataset, keyword: str) -> int | None:
    try:
        found = integer(dataset, keyword)
    except InputError:
        return None
    return _believed(found)


def _believed(count: int | None) -> int | None:
    return count if count is not None and 0 < count <= _MOST_IMAGES else None
