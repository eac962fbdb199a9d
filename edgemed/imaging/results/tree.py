"""Content items of a report (PS3.3 C.17.3) and its measurement groups (PS3.16 TID 1501, 1410, 1411), as plain items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.imaging.results import words
from edgemed.imaging.results.content import Concept
from edgemed.imaging.results.items import Item

CONTAINS: Final = "CONTAINS"
_CONTEXT: Final = "HAS OBS CONTEXT"
_MODIFIER: Final = "HAS CONCEPT MOD"
_ACQUISITION: Final = "HAS ACQ CONTEXT"

_TRACKING_NAME: Final = Concept("112039", "DCM", "Tracking Identifier")
_TRACKING_UID: Final = Concept("112040", "DCM", "Tracking Unique Identifier")
_ALGORITHM: Final = Concept("111001", "DCM", "Algorithm Name")
_VERSION: Final = Concept("111003", "DCM", "Algorithm Version")
_PARAMETERS: Final = Concept("111002", "DCM", "Algorithm Parameters")
_FINDING: Final = Concept("121071", "DCM", "Finding")
_MEASUREMENTS: Final = Concept("126010", "DCM", "Imaging Measurements")
_GROUP: Final = Concept("125007", "DCM", "Measurement Group")
_REGION: Final = Concept("111030", "DCM", "Image Region")
_SEGMENT: Final = Concept("121191", "DCM", "Referenced Segment")
_LIBRARY: Final = Concept("111028", "DCM", "Image Library")
_LIBRARY_GROUP: Final = Concept("126200", "DCM", "Image Library Group")
_ROWS: Final = Concept("110910", "DCM", "Pixel Data Rows")
_COLUMNS: Final = Concept("110911", "DCM", "Pixel Data Columns")
SOURCE: Final = Concept("260753009", "SCT", "Source")
MEASURED: Final = Concept("121112", "DCM", "Source of Measurement")
SEGMENTED: Final = Concept("121233", "DCM", "Source Image for Segmentation")

Reference = tuple[str, str, str, str]
"""UIDs of study and series, SOP Class and SOP Instance UID."""

IMAGES, PLANAR, VOLUMETRIC = "1501", "1410", "1411"
"""Templates of groups: of whole images, of a region of one, of a region in a volume."""


def content_item(kind: str, name: Concept, relationship: str, **values: Any) -> Item:
    """An item of a value type, with what this type has."""
    return Item(ValueType=kind, ConceptNameCodeSequence=[words.code(name)], RelationshipType=relationship, **values)


def text(name: Concept, value: str, relationship: str = CONTAINS) -> Item:
    """Words."""
    return content_item("TEXT", name, relationship, TextValue=value)


def code(name: Concept, value: Concept, relationship: str = CONTAINS) -> Item:
    """A coded answer."""
    return content_item("CODE", name, relationship, ConceptCodeSequence=[words.code(value)])


def number(name: Concept, value: float, unit: Concept, relationship: str = CONTAINS) -> Item:
    """A number with its unit; what is no whole number stands in binary, too."""
    measured = Item(NumericValue=_decimal(value), MeasurementUnitsCodeSequence=[words.code(unit)])
    if isinstance(value, float):
        measured.put(FloatingPointValue=value)
    return content_item("NUM", name, relationship, MeasuredValueSequence=[measured])


def container(name: Concept, items: Iterable[Item], template: str | None = None) -> Item:
    """What holds others."""
    made = content_item("CONTAINER", name, CONTAINS, ContinuityOfContent="CONTINUOUS", ContentSequence=list(items))
    if template is not None:
        made.put(ContentTemplateSequence=[Item(MappingResource="DCMR", TemplateIdentifier=template)])
    return made


def image(name: Concept, sop_class: str, uid: str, relationship: str = CONTAINS, **values: Any) -> Item:
    """An image, some of its frames, or a segment."""
    reference = Item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid, **values)
    return content_item("IMAGE", name, relationship, ReferencedSOPSequence=[reference])


def frames(numbers: Sequence[int] | None) -> dict[str, Any]:
    """Of a reference: the whole image, or frames of it, from 1."""
    return {} if numbers is None else {"ReferencedFrameNumber": [str(each) for each in numbers]}


def outline(points: NDArray[np.float64], sop_class: str, uid: str, numbers: Sequence[int] | None) -> Item:
    """A polyline `(n, 2)` of columns and rows on an image."""
    where = image(SOURCE, sop_class, uid, "SELECTED FROM", **frames(numbers))
    data = points.ravel().tolist()
    return content_item("SCOORD", _REGION, CONTAINS, GraphicType="POLYLINE", GraphicData=data, ContentSequence=[where])


def segment(sop_class: str, uid: str, number: int, images: Iterable[Item]) -> list[Item]:
    """A segment that holds a mask, and the images that it was drawn on."""
    return [image(_SEGMENT, sop_class, uid, ReferencedSegmentNumber=number), *images]


def algorithm(name: str, version: str, parameters: Iterable[str] = ()) -> list[Item]:
    """By what something was found (TID 4019)."""
    items = [text(_ALGORITHM, name, _MODIFIER), text(_VERSION, version, _MODIFIER)]
    return items + [text(_PARAMETERS, each, _MODIFIER) for each in parameters]


def group(
    uid: str,
    label: str,
    finding: Concept | None,
    found: Iterable[Item],
    where: Iterable[Item],
    template: str = IMAGES,
) -> Item:
    """A measurement group.

    Args:
        uid: that it is tracked by.
        label: for people.
        finding: what it is about.
        found: by what algorithm, which measurements and judgements.
        where: images, outlines or segments.
        template: of the group.
    """
    items = [text(_TRACKING_NAME, label, _CONTEXT), content_item("UIDREF", _TRACKING_UID, _CONTEXT, UID=uid)]
    if finding is not None:
        items.append(code(_FINDING, finding))
    return container(_GROUP, [*items, *found, *where], template)


def measurements(groups: Iterable[Item]) -> Item:
    """All groups of a report."""
    return container(_MEASUREMENTS, groups)


def library(images: Iterable[tuple[str, str, int | None, int | None]]) -> Item:
    """Images with their rows and columns, where these are known (TID 1600)."""
    return container(_LIBRARY, [container(_LIBRARY_GROUP, [_entry(*each) for each in images])])


def references(every: Iterable[Reference]) -> list[Item]:
    """Objects, by study and series (PS3.3 table C.17-3b)."""
    found: dict[str, dict[str, list[Item]]] = {}
    for study, series, sop_class, uid in every:
        item = Item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid)
        found.setdefault(study, {}).setdefault(series, []).append(item)
    return [Item(StudyInstanceUID=study, ReferencedSeriesSequence=_series(of)) for study, of in found.items()]


def _series(found: dict[str, list[Item]]) -> list[Item]:
    return [Item(SeriesInstanceUID=uid, ReferencedSOPSequence=items) for uid, items in found.items()]


def _entry(sop_class: str, uid: str, rows: int | None, columns: int | None) -> Item:
    entry = image(SOURCE, sop_class, uid)
    sizes = ((_ROWS, rows), (_COLUMNS, columns))
    known = [number(name, size, words.PIXELS, _ACQUISITION) for name, size in sizes if size is not None]
    if known:  # an empty sequence is none
        entry.put(ContentSequence=known)
    return entry


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2)."""
    from pydicom.valuerep import format_number_as_ds

    written = repr(float(value))
    return written if len(written) <= 16 else format_number_as_ds(float(value))
