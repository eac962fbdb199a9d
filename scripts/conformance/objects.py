"""What is made of an answer, read off real objects: classes, templates, copied attributes, character sets, HL7."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from typing import Any, Final

from pydicom import dcmread
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from edgemed.imaging.dicom.part10 import FileMeta, read_meta
from edgemed.imaging.results.capture import MAX_FRAMES, MAX_RAW_BYTES
from edgemed.imaging.results.content import ResultFile
from edgemed.imaging.results.hl7 import oru
from edgemed.imaging.results.report import MAX_GROUPS
from edgemed.imaging.results.words import SCHEME
from scripts.conformance.samples import HEADER, Made, moving, still
from scripts.conformance.tables import name_of, size, table

_KINDS: Final = {"sr": "report", "seg": "masks", "sc": "the image with the findings drawn in", "gsps": "overlay"}
_FIELDS: Final = {
    "MSH": {
        1: "Field Separator",
        2: "Encoding Characters",
        3: "Sending Application",
        4: "Sending Facility",
        5: "Receiving Application",
        6: "Receiving Facility",
        7: "Date/Time of Message",
        9: "Message Type",
        10: "Message Control ID",
        11: "Processing ID",
        12: "Version ID",
        18: "Character Set",
    },
    "PID": {1: "Set ID", 3: "Patient Identifier List", 5: "Patient Name", 7: "Date/Time of Birth", 8: "Sex"},
    "ORC": {1: "Order Control", 2: "Placer Order Number", 3: "Filler Order Number"},
    "OBR": {
        1: "Set ID",
        2: "Placer Order Number",
        3: "Filler Order Number",
        4: "Universal Service Identifier",
        7: "Observation Date/Time",
        16: "Ordering Provider",
        18: "Placer Field 1",
        22: "Results Rpt/Status Chng - Date/Time",
        25: "Result Status",
    },
    "OBX": {
        1: "Set ID",
        2: "Value Type",
        3: "Observation Identifier",
        4: "Observation Sub-ID",
        5: "Observation Value",
        6: "Units",
        11: "Observation Result Status",
        14: "Date/Time of the Observation",
        18: "Equipment Instance Identifier",
    },
}
"""Names of fields in HL7 version 2.5.1."""


@cache
def results() -> tuple[ResultFile, ...]:
    """One DICOM object of each SOP class that is made."""
    every = {file.sop_class: file for made in (still(), moving()) for file in made.files if file.sop_class}
    return tuple(sorted(every.values(), key=lambda file: list(_KINDS).index(file.kind)))


def meta_of(result: ResultFile) -> FileMeta:
    """What its file meta information tells."""
    return read_meta(BytesIO(result.data))


def classes() -> str:
    """The objects."""
    rows = []
    for result in results():
        ds = _read(result)
        rows.append(
            (
                f"`{result.kind}`: {_KINDS[result.kind]}",
                name_of(result.sop_class),
                result.sop_class,
                ds.Modality,
                ds.SeriesNumber,
                name_of(meta_of(result).syntax),
            )
        )
    return table(("result", "SOP class", "UID", "Modality", "Series Number", "transfer syntax"), rows)


def templates() -> str:
    """Template IDs that a report names, the root's first."""
    found = dict.fromkeys(
        f"TID {item.TemplateIdentifier} ({item.MappingResource})"
        for content in _walked(_report())
        for item in content.get("ContentTemplateSequence") or ()
    )
    return ", ".join(found)


def concepts() -> str:
    """Names of content items of a report, without those of the model's own classes."""
    rows: dict[tuple[str, str, str], set[str]] = {}
    for content in _walked(_report()):
        for name in content.get("ConceptNameCodeSequence") or ():
            row = name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning
            rows.setdefault(row, set()).add(str(content.get("ValueType", "")))
    ours = {("lesion", SCHEME), ("normal", SCHEME), ("233604007", "SCT"), ("size", SCHEME)}
    return table(
        ("concept name", "code", "scheme", "value type"),
        [
            (meaning, value, scheme, ", ".join(sorted(kinds)))
            for (value, scheme, meaning), kinds in sorted(rows.items(), key=lambda row: row[0][2].lower())
            if (value, scheme) not in ours
        ],
    )


def copied() -> str:
    """Attributes of the source that stand in what is made of it."""
    made = {kind: [_read(m.of(kind)) for m in _having(kind)] for kind in _KINDS}
    rows = []
    for keyword in sorted(HEADER, key=lambda keyword: tag_for_keyword(keyword) or 0):
        value = str(HEADER[keyword])
        if keyword == "SpecificCharacterSet" or not value:
            continue
        kept = {kind: all(str(ds.get(keyword, "")) == value for ds in several) for kind, several in made.items()}
        if any(kept.values()):
            tag = Tag(keyword)
            rows.append((dictionary_description(tag), str(tag), *("yes" if kept[kind] else "" for kind in _KINDS)))
    return table(("attribute", "tag", *(f"`{kind}`" for kind in _KINDS)), rows)


def private() -> str:
    """Private attributes of all that is made."""
    found = {str(element.tag) for result in results() for element in _read(result).iterall() if element.tag.is_private}
    return ", ".join(sorted(found)) or "none"


def charsets() -> str:
    """Defined terms of Specific Character Set that are read."""
    known = sorted(name for name in python_encoding if name.startswith(("ISO", "GB")))
    extended = [name for name in known if name.startswith("ISO 2022")]
    rows = (("no", [name for name in known if name not in extended]), ("yes", extended))
    return table(("code extensions", "defined terms"), [(which, ", ".join(names)) for which, names in rows])


def segments() -> str:
    """Fields of a message that have a value."""
    found: dict[tuple[str, int], str] = {}
    for line in _message():
        name, *fields = line.replace("MSH|", "MSH||", 1).split("|")
        for place, value in enumerate(fields, 1):
            if value or (name, place) == ("MSH", 1):
                found.setdefault((name, place), value or "|")
    rows = sorted(found.items(), key=lambda item: (list(_FIELDS).index(item[0][0]), item[0][1]))
    return table(
        ("field", "name", "example"),
        [(f"{name}-{place}", _FIELDS[name][place], f"`{value}`") for (name, place), value in rows],
    )


def observations() -> str:
    """What OBX segments say."""
    rows = []
    for line in _message():
        fields = [*line.split("|"), *[""] * 7]
        if fields[0] == "OBX":
            rows.append((fields[2], f"`{fields[3]}`", f"`{fields[5]}`", f"`{fields[6]}`" if fields[6] else ""))
    return table(("OBX-2", "OBX-3", "OBX-5, example", "OBX-6"), dict.fromkeys(rows))


def _message() -> list[str]:
    document: Any = json.loads(still().of("json").data)
    return oru(document, receiving="RIS^HOSPITAL").decode("utf-8").split("\r")[:-1]


def _having(kind: str) -> Iterator[Made]:
    return (made for made in (still(), moving()) if any(file.kind == kind for file in made.files))


def _report() -> Dataset:
    return _read(still().of("sr"))


def _walked(item: Dataset) -> Iterator[Dataset]:
    yield item
    for content in item.get("ContentSequence") or ():
        yield from _walked(content)


@cache
def _read(result: ResultFile) -> Dataset:
    return dcmread(BytesIO(result.data))


FILLS: Final[dict[str, Callable[[], str]]] = {
    "objects": classes,
    "templates": templates,
    "concepts": concepts,
    "copied": copied,
    "private": private,
    "charsets": charsets,
    "scheme": lambda: SCHEME,
    "most_groups": lambda: str(MAX_GROUPS),
    "most_raw": lambda: size(MAX_RAW_BYTES),
    "most_frames": lambda: str(MAX_FRAMES),
    "segments": segments,
    "observations": observations,
}
