"""The requests that images were made for (Request Attributes, PS3.3 C.7.3.1), as a report on them refers to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from edgemed.imaging.results import clean, words
from edgemed.imaging.results.content import Concept
from edgemed.imaging.results.evidence import Source
from edgemed.imaging.results.items import Item

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MOST: Final = 16
_WHOLE: Final = 1024  # identifiers are copied as they are, however long
_PLACER, _FILLER = "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest"


def requests(sources: Iterable[Source]) -> list[Item]:
    """Items of Referenced Request Sequence (PS3.3 C.17.2.2): each request once that a source names, by whatever."""
    found: dict[tuple[str, ...], Item] = {}
    for source in sources:
        for named in _named(source.header):
            item = _item(source, named)
            if item is not None:
                key = tuple(str(item.value(keyword)) for keyword in _KEY)
                found.setdefault(key, item)
    return list(found.values())[:_MOST]


_KEY: Final = ("StudyInstanceUID", "AccessionNumber", _PLACER, _FILLER, "RequestedProcedureID")


def _named(header: Dataset) -> Iterator[Dataset | None]:
    """Each request; `None` where the image has no more than an accession number, or an order's."""
    items = list(_items(header, "RequestAttributesSequence"))[:_MOST]
    if items:
        yield from items
    else:
        yield None


def _item(source: Source, request: Dataset | None) -> Item | None:
    header, asked = source.header, request if request is not None else source.header
    accession, placer, filler = (
        clean.text(asked, keyword, _WHOLE) or clean.text(header, keyword, _WHOLE)
        for keyword in ("AccessionNumber", _PLACER, _FILLER)
    )
    procedure = clean.text(asked, "RequestedProcedureID", 16)
    if not any((accession, placer, filler, procedure)):
        return None
    return Item(
        StudyInstanceUID=source.study,
        ReferencedStudySequence=[],
        AccessionNumber=accession,
        PlacerOrderNumberImagingServiceRequest=placer,
        FillerOrderNumberImagingServiceRequest=filler,
        RequestedProcedureID=procedure,
        RequestedProcedureDescription=clean.text(asked, "RequestedProcedureDescription"),
        RequestedProcedureCodeSequence=_codes(asked),
    )


def _codes(asked: Dataset) -> list[Item]:
    """The procedure's code, where it is whole."""
    for each in _items(asked, "RequestedProcedureCodeSequence"):
        value, scheme = clean.text(each, "CodeValue", 16), clean.text(each, "CodingSchemeDesignator", 16)
        if value and scheme:
            return [words.code(Concept(value, scheme, clean.text(each, "CodeMeaning")))]
    return []


def _items(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    """Of a sequence; nothing of what is none."""
    from pydicom.sequence import Sequence

    try:
        value = dataset.get(keyword)
    except Exception:  # whatever pydicom stumbles over
        return
    if isinstance(value, Sequence):
        yield from value
