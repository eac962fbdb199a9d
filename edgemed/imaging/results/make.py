"""All results of one answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from edgemed.base.errors import InputError
from edgemed.base.lazy import require
from edgemed.imaging.deid.deidentify import silent_pydicom
from edgemed.imaging.results.capture import make_captures
from edgemed.imaging.results.content import Content, ResultFile
from edgemed.imaging.results.document import make_document
from edgemed.imaging.results.evidence import Source, read_source
from edgemed.imaging.results.presentation import make_presentations
from edgemed.imaging.results.regions import Regions, find_regions, planes_of
from edgemed.imaging.results.report import Report
from edgemed.imaging.results.segment import Segmentations, make_segmentations

KINDS = ("sr", "seg", "sc", "gsps", "json")


def make_results(content: Content, kinds: Sequence[str]) -> list[ResultFile]:
    """Write down what a model found, or why nothing was analysed.

    What a kind cannot say is not made: a segmentation of a cine, a presentation state of a refusal, any DICOM object
    about files that are no DICOM. Where that leaves masks out, the report says why.

    Args:
        content: what is said.
        kinds: of `sr`, `seg`, `sc`, `gsps`, `json`.

    Returns:
        valid objects, in the order of the kinds; none, one, or several of each.

    Raises:
        InputError: an unknown kind, or content that contradicts itself.
        MissingSoftwareError: pydicom or highdicom is not installed.
        ResourceError: a source cannot be read.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise InputError(f"There is no kind of result named {sorted(unknown)[0]}.", f"Choose of {', '.join(KINDS)}.")
    _check(content)
    logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)  # it writes names and UIDs into its messages
    with silent_pydicom():
        sources = [read_source(path) for path in content.sources]
        made = {"json": [make_document(content, sources)] if "json" in kinds else []}
        known = [source for source in sources if source is not None]
        if known and len(known) == len(sources) and set(kinds) - {"json"}:
            require("highdicom", extra="serve", purpose="write DICOM results")
            made |= _objects(content, known, kinds)
    return [file for kind in dict.fromkeys(kinds) for file in made.get(kind, [])]


def _objects(content: Content, sources: list[Source], kinds: Sequence[str]) -> dict[str, list[ResultFile]]:
    content, notes = _fitting(content, sources)
    unnamed = {number for number, source in enumerate(sources) if source.unnamed}
    outlined = not {"sr", "gsps"}.isdisjoint(kinds)
    regions = find_regions(content, unnamed) if outlined else Regions((), 0.0, 0)
    drawn = make_segmentations(content, sources) if "seg" in kinds else Segmentations()
    made = {"seg": drawn.files}
    notes += drawn.notes + regions.notes
    if unnamed and any(reading.frame is not None for reading in content.readings):
        notes.append("An image has several frames, though its SOP Class has one: no reference can name them.")
    if "sc" in kinds:
        made["sc"], more = make_captures(content, sources)
        notes += more
    if "gsps" in kinds:
        made["gsps"], more = make_presentations(content, sources, regions)
        notes += more
    if "sr" in kinds:
        report = Report(content, sources, regions, notes, drawn.of)
        made["sr"] = [report.make()]
    return made


def _fitting(content: Content, sources: list[Source]) -> tuple[Content, list[str]]:
    """Without masks that are of another size than their images: nobody knows where they lie."""
    kept, notes = [], []
    for reading in content.readings:
        if reading.labels is not None:
            used = {index for index, _ in planes_of(content, reading)}
            sizes = {(sources[i].dataset.get("Rows"), sources[i].dataset.get("Columns")) for i in used}
            if sizes != {reading.labels.shape[-2:]}:
                notes.append(f"Masks of {reading.output} are not shown: they are of another size than the image.")
                reading = replace(reading, labels=None)
        kept.append(reading)
    return replace(content, readings=tuple(kept)), list(dict.fromkeys(notes))


def _check(content: Content) -> None:
    """What no writer could make sense of."""
    if not content.sources:
        raise InputError("The result is about no file.", "Name its sources.")
    for reading in content.readings:
        if reading.source is not None and not 0 <= reading.source < len(content.sources):
            raise InputError(f"A reading is about source {reading.source}, which there is not.", "Check the content.")
        if reading.labels is not None and len(reading.labels) != len(reading.scores):
            raise InputError(
                f"{reading.output} has {len(reading.labels)} masks and {len(reading.scores)} classes.",
                "Give a score for each mask.",
            )
