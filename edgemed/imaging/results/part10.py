"""From a data set to the bytes of a file: what libraries make up by clock or chance is set by rule (PS3.10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from edgemed.imaging.dicom.identity import IMPLEMENTATION, VERSION_NAME
from edgemed.imaging.results import clean, words
from edgemed.imaging.results.content import Author, Content, ResultFile
from edgemed.imaging.results.evidence import Source
from edgemed.imaging.results.items import Item, encoded, pieces, plain
from edgemed.imaging.results.uids import uid_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SERIES_NUMBERS: Final = {"sr": 9101, "seg": 9102, "sc": 9103, "gsps": 9104}
_TEXTS: Final = frozenset({"SH", "LO", "ST", "LT", "UC", "UT", "PN"})
_EXPLICIT: Final = "1.2.840.10008.1.2.1"
_UTF8: Final = "ISO_IR 192"


def series(content: Content, kind: str, source: Source) -> dict[str, Any]:
    """Its series: one for each model and kind beside each series of images."""
    author = content.author
    return {
        "series_instance_uid": uid_of(source.study, source.series, author.model, author.digest, kind),
        "series_number": SERIES_NUMBERS[kind],
        "instance_number": source.dataset.InstanceNumber or 1,
    }


def made_by(author: Author) -> dict[str, Any]:
    """What made it."""
    return {
        "manufacturer": words.MANUFACTURER,
        "manufacturer_model_name": clean.plain(author.model),
        "software_versions": tuple(clean.plain(part) for part in (author.software, author.version) if part),
        "device_serial_number": clean.plain(author.station) or "1",
    }


def local(content: Content, source: Source) -> datetime:
    """When it was analysed, in the time zone that the dates of the source are in: its own, else this machine's."""
    when = content.analysed
    when = when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)
    offset = source.dataset.get("TimezoneOffsetFromUTC")
    if not offset:
        return when.astimezone()
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    return when.astimezone(timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)))


def finish(made: Dataset | Item, content: Content, kind: str, sources: Sequence[Source], what: str) -> ResultFile:
    """Times, description, references, character set and meta header of an object; then its bytes.

    Args:
        made: the object.
        content: what it says.
        kind: of result.
        sources: which it refers to; it stands beside the first.
        what: for the list of series.
    """
    item, syntax = (made, _EXPLICIT) if isinstance(made, Item) else (plain(made), made.file_meta.TransferSyntaxUID)
    source = sources[0]
    when = local(content, source)
    day, clock = when.strftime("%Y%m%d"), when.strftime("%H%M%S.%f")
    item.put(InstanceCreationDate=day, InstanceCreationTime=clock)
    for keyword in ("ContentDate", "DateOfSecondaryCapture", "PresentationCreationDate"):
        if item.value(keyword) is not None:
            item.put(**{keyword: day, keyword.replace("Date", "Time"): clock})
    equipment = item.value("ContributingEquipmentSequence")  # highdicom itself, and when
    if equipment:
        moment = when.strftime("%Y%m%d%H%M%S.%f%z")
        item.put(ContributingEquipmentSequence=[each.but(ContributionDateTime=moment) for each in equipment])
    item.put(SeriesDescription=words.title(content, what))
    if source.dataset.get("TimezoneOffsetFromUTC"):
        item.put(TimezoneOffsetFromUTC=source.dataset.TimezoneOffsetFromUTC)
    if _names_our_scheme(item):
        item.put(CodingSchemeIdentificationSequence=[words.scheme_item()])
    _refer(item, {each.uid: each.sop_class for each in sources})
    uid, sop_class = str(item.value("SOPInstanceUID")), str(item.value("SOPClassUID"))
    return ResultFile(kind, f"{kind}-{uid}.dcm", _file(item, source, syntax), sop_class, uid)


def _refer(item: Item, classes: dict[str, str]) -> None:
    """Give references the class of their image, which stood for another one that highdicom knows."""
    for each in item.items_of():
        _refer(each, classes)
    sop_class = classes.get(item.value("ReferencedSOPInstanceUID"))
    if sop_class is not None:
        item.put(ReferencedSOPClassUID=sop_class)


def patient(source: Source) -> dict[str, str]:
    """Patient and study, as the source has them, put right; by keyword."""
    said = source.dataset
    # anew: a name that was written once keeps its bytes, whatever the character set of the next object
    return {element.keyword: str(element.value or "") for element in said if element.keyword in REPEATED}


def copy_patient(dataset: Dataset, source: Source) -> None:
    """Give an object the patient and the study of its source."""
    for keyword, value in patient(source).items():
        setattr(dataset, keyword, value)


def copy_part(dataset: Dataset, source: Source) -> str:
    """Body part, where it is known; returns it."""
    part: str = source.dataset.get("BodyPartExamined", "")
    if part:
        dataset.BodyPartExamined = part
    return part


def copy_side(dataset: Dataset, source: Source) -> None:
    """Body part and side: that it is unknown is said of whatever is not known to be single (PS3.3 C.7.3.1)."""
    if copy_part(dataset, source) not in _SINGLE:
        dataset.Laterality = source.dataset.get("Laterality", "")


_SINGLE: Final = frozenset(
    (
        *("ABDOMEN", "ABDOMENPELVIS", "AORTA", "BACK", "BLADDER", "BRAIN", "CEREBELLUM", "CERVIX", "CHEST"),
        *("CHESTABDOMEN", "CHESTABDPELVIS", "COCCYX", "COLON", "CORONARYARTERY", "CSPINE", "CTSPINE", "DUODENUM"),
        *("ESOPHAGUS", "FACE", "GALLBLADDER", "HEAD", "HEADNECK", "HEART", "ILEUM", "ILIUM", "JAW", "JEJUNUM"),
        *("LARYNX", "LIVER", "LSPINE", "LSSPINE", "MAXILLA", "MEDIASTINUM", "MOUTH", "NECK", "NECKCHEST", "NOSE"),
        *("PANCREAS", "PELVIS", "PENIS", "PHARYNX", "PROSTATE", "RECTUM", "SCALP", "SKULL", "SPINE", "SPLEEN"),
        *("SSPINE", "STERNUM", "STOMACH", "THYMUS", "THYROID", "TLSPINE", "TONGUE", "TRACHEA", "TSPINE", "URETER"),
        *("URETHRA", "UTERUS", "VAGINA", "VULVA", "WHOLEBODY"),
    )
)
"""Body parts without sides (PS3.16 Annex L), as dciodvfy has them."""

REPEATED: Final = frozenset(
    [
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "IssuerOfPatientID",
        "PatientAge",
        "PatientIdentityRemoved",
        "DeidentificationMethod",
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "ReferringPhysicianName",
        "StudyID",
        "AccessionNumber",
        "StudyDescription",
    ]
)


def _file(item: Item, source: Source, syntax: str) -> bytes:
    """All bytes of an object, in a character set that holds its words."""
    declared = _character_set(item, source)
    if declared:
        item.put(SpecificCharacterSet=declared)
    return whole_file(item, syntax)


def whole_file(item: Item, syntax: str = _EXPLICIT) -> bytes:
    """Preamble, meta header and data set (PS3.10 7.1)."""
    from pydicom.charset import convert_encodings

    meta = Item(
        FileMetaInformationVersion=b"\0\1",
        MediaStorageSOPClassUID=item.value("SOPClassUID"),
        MediaStorageSOPInstanceUID=item.value("SOPInstanceUID"),
        TransferSyntaxUID=syntax,
        ImplementationClassUID=IMPLEMENTATION,
        ImplementationVersionName=VERSION_NAME,
    )
    header = encoded(meta, [])
    length = encoded(Item(FileMetaInformationGroupLength=len(header)), [])
    encodings = convert_encodings(item.value("SpecificCharacterSet"))
    return b"".join((bytes(128), b"DICM", length, header, *pieces(item, encodings)))


def _character_set(item: Item, source: Source) -> Any:
    """That of the source where it holds all that is written: old readers know it. Else UTF-8."""
    texts = set(_texts(item))
    declared = source.header.get("SpecificCharacterSet")
    if all(text.isascii() for _, text in texts):
        return declared if _known(declared) else None
    return declared if _known(declared) and all(_fits(text, declared, vr) for vr, text in texts) else _UTF8


def _known(declared: Any) -> bool:
    """Whether it is one of the standard's names (PS3.3 C.12.1.1.2); readers of ours guess at others."""
    from pydicom.charset import python_encoding
    from pydicom.multival import MultiValue

    names = list(declared) if isinstance(declared, MultiValue | list) else [declared]
    several = len(names) > 1
    return all(
        (not name and several and place == 0) or (bool(name) and name in python_encoding)
        for place, name in enumerate(names)
    )


def _fits(text: str, declared: Any, vr: str) -> bool:
    """Whether a text survives: encoded as pydicom does it and read again it is the same."""
    from pydicom.charset import convert_encodings, decode_bytes, encode_string
    from pydicom.valuerep import PersonName

    encodings = convert_encodings(declared)
    try:
        if vr == "PN":
            return str(PersonName(PersonName(text).encode(encodings), encodings)) == text
        data = encode_string(text, encodings)
        return decode_bytes(data, encodings, {ord("\\"), ord("^"), ord("=")}) == text
    except (UnicodeError, LookupError, ValueError):
        return False


def _texts(item: Item) -> Iterator[tuple[str, str]]:
    """All texts with their VR."""
    for vr, value in item.values():
        if vr in _TEXTS and value is not None:
            yield from ((vr, str(each)) for each in (value if isinstance(value, list) else [value]))
    for each in item.items_of():
        yield from _texts(each)


def _names_our_scheme(item: Item) -> bool:
    return item.value("CodingSchemeDesignator") == words.SCHEME or any(map(_names_our_scheme, item.items_of()))
