"""From a data set to the bytes of a file: what libraries make up by clock or chance is set by rule (PS3.10)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from edgemed import __version__
from edgemed.imaging.results import words
from edgemed.imaging.results.clean import plain
from edgemed.imaging.results.content import Content, ResultFile
from edgemed.imaging.results.evidence import Source
from edgemed.imaging.results.uids import IMPLEMENTATION, uid_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NUMBERS: Final = {"sr": 9101, "seg": 9102, "sc": 9103, "gsps": 9104}
_TEXTS: Final = frozenset({"SH", "LO", "ST", "LT", "UC", "UT", "PN"})
_UTF8: Final = "ISO_IR 192"


def series(content: Content, kind: str, source: Source) -> dict[str, Any]:
    """Its series: one for each model and kind beside each series of images."""
    author = content.author
    return {
        "series_instance_uid": uid_of(source.study, source.series, author.model, author.digest, kind),
        "series_number": _NUMBERS[kind],
        "instance_number": source.dataset.InstanceNumber or 1,
    }


def equipment(content: Content) -> dict[str, Any]:
    """What made it."""
    author = content.author
    return {
        "manufacturer": words.MANUFACTURER,
        "manufacturer_model_name": plain(author.model),
        "software_versions": tuple(plain(part) for part in (author.software, author.version) if part),
        "device_serial_number": plain(author.station) or "1",
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


def finish(dataset: Dataset, content: Content, kind: str, sources: Sequence[Source], what: str) -> ResultFile:
    """Times, description, references, character set and meta header of an object; then its bytes.

    Args:
        dataset: the object.
        content: what it says.
        kind: of result.
        sources: which it refers to; it stands beside the first.
        what: for the list of series.
    """
    source = sources[0]
    when = local(content, source)
    day, clock = when.strftime("%Y%m%d"), when.strftime("%H%M%S.%f")
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = day, clock
    for keyword in ("ContentDate", "DateOfSecondaryCapture", "PresentationCreationDate"):
        if keyword in dataset:
            setattr(dataset, keyword, day)
            setattr(dataset, keyword.replace("Date", "Time"), clock)
    for item in dataset.get("ContributingEquipmentSequence") or ():  # highdicom itself, and when
        item.ContributionDateTime = when.strftime("%Y%m%d%H%M%S.%f%z")
    dataset.SeriesDescription = words.title(content, what)
    if source.dataset.get("TimezoneOffsetFromUTC"):
        dataset.TimezoneOffsetFromUTC = source.dataset.TimezoneOffsetFromUTC
    _describe_codes(dataset)
    _refer(dataset, {each.uid: each.sop_class for each in sources})
    from pydicom.uid import UID

    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION)
    dataset.file_meta.ImplementationVersionName = f"EDGEMED_{__version__}"[:16]
    data = encode(dataset, source)
    uid = str(dataset.SOPInstanceUID)
    return ResultFile(kind, f"{kind}-{uid}.dcm", data, str(dataset.SOPClassUID), uid)


def _refer(dataset: Dataset, classes: dict[str, str]) -> None:
    """Give references the class of their image, which stood for another one that highdicom knows."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _refer(item, classes)
    if dataset.get("ReferencedSOPInstanceUID") in classes:
        dataset.ReferencedSOPClassUID = classes[dataset.ReferencedSOPInstanceUID]


def copy_patient(dataset: Dataset, source: Source) -> None:
    """Patient, study and side of the body, as the source has them, put right."""
    from pydicom.dataelem import DataElement

    for element in source.dataset:
        if element.keyword in _REPEATED:
            # anew: a name that was written once keeps its bytes, whatever the character set of the next object
            dataset[element.tag] = DataElement(element.tag, element.VR, str(element.value or ""))


def copy_side(dataset: Dataset, source: Source) -> None:
    """Body part and side: that it is unknown is said of whatever is not known to be single (PS3.3 C.7.3.1)."""
    part, side = source.dataset.get("BodyPartExamined", ""), source.dataset.get("Laterality", "")
    if part:
        dataset.BodyPartExamined = part
    if part not in _SINGLE:
        dataset.Laterality = side


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

_REPEATED: Final = frozenset(
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


def encode(dataset: Dataset, source: Source) -> bytes:
    """All bytes of a file."""
    dataset.SpecificCharacterSet = _character_set(dataset, source)
    if not dataset.SpecificCharacterSet:
        del dataset.SpecificCharacterSet
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _character_set(dataset: Dataset, source: Source) -> Any:
    """That of the source where it holds all that is written: old readers know it. Else UTF-8."""
    texts = set(_written(dataset))
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


def _written(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """All texts with their VR."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _written(item)
        elif element.VR in _TEXTS and element.value is not None:
            several = element.value if element.VM > 1 else [element.value]
            yield from ((element.VR, str(value)) for value in several)


def _describe_codes(dataset: Dataset) -> None:
    """Say what our own scheme is, where its words are used."""
    if _uses(dataset):
        dataset.CodingSchemeIdentificationSequence = [words.scheme_item()]


def _uses(dataset: Dataset) -> bool:
    return any(
        (element.keyword == "CodingSchemeDesignator" and element.value == words.SCHEME)
        or (element.VR == "SQ" and any(_uses(item) for item in element.value))
        for element in dataset
    )
