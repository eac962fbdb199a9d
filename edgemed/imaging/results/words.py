"""The words of results: codes (PS3.16), and the sentences that every form of a result repeats."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Any, Final

from edgemed.imaging.results.clean import plain
from edgemed.imaging.results.content import Author, Concept, Content, Reading, Score
from edgemed.imaging.results.evidence import Source
from edgemed.imaging.results.items import Item

SCHEME: Final = "99EDGEMED"
"""Coding Scheme Designator of words that no public scheme has: classes without a code, outputs, our own scores."""
RESEARCH: Final = "RESEARCH USE ONLY - not for diagnosis"
NOT_ANALYSED: Final = "NOT ANALYSED"
MANUFACTURER: Final = "edgemed"

PROBABILITY: Final = Concept("122157", "DCM", "Probability")
AREA: Final = Concept("42798000", "SCT", "Area")
VOLUME: Final = Concept("118565006", "SCT", "Volume")
PRESENT: Final = Concept("52101004", "SCT", "Present")
ABSENT: Final = Concept("2667000", "SCT", "Absent")
ANALYSES: Final = Concept("111065", "DCM", "Summary of Analyses")
SUCCEEDED: Final = Concept("111222", "DCM", "Succeeded")
NOT_ATTEMPTED: Final = Concept("111225", "DCM", "Not Attempted")
COMMENT: Final = Concept("121106", "DCM", "Comment")
PROCEDURE: Final = Concept("363679005", "SCT", "Imaging procedure")
OOD: Final = Concept("OOD", SCHEME, "Out-of-distribution score")
THRESHOLD: Final = Concept("THRESHOLD", SCHEME, "Decision threshold")

NO_UNIT: Final = Concept("1", "UCUM", "no units")
PIXELS: Final = Concept("{pixels}", "UCUM", "Pixels")
MM2: Final = Concept("mm2", "UCUM", "Square millimeter")
MM3: Final = Concept("mm3", "UCUM", "Cubic millimeter")

# (value, scheme) of the categories and types of CID 7150 and 7151 that fit what nobody has coded

_SHORT: Final = re.compile(r"[A-Za-z0-9._-]{1,16}")


def private(name: str) -> Concept:
    """A word of our own scheme; its value is the name where that is a short one, else made of it."""
    value = name if _SHORT.fullmatch(name) else "C" + hashlib.sha256(name.encode()).hexdigest()[:12].upper()
    return Concept(value, SCHEME, plain(name) or value)


def concept_of(score: Score) -> Concept:
    """The code of a class."""
    return score.concept or private(score.name)


def unit_of(reading: Reading) -> Concept:
    """The unit of a regression's value."""
    return NO_UNIT if reading.unit == "1" else Concept(reading.unit, "UCUM", plain(reading.unit))


@lru_cache(maxsize=4096)
def code(concept: Concept) -> Item:
    """As an item of a code sequence (PS3.3 8.8)."""
    value = concept.value
    kind = "CodeValue"
    if len(value) > 16:
        kind = "URNCodeValue" if value.startswith("urn") or "://" in value else "LongCodeValue"
    meaning = plain(concept.meaning) or value
    return Item(**{kind: value}, CodingSchemeDesignator=concept.scheme, CodeMeaning=meaning)


def coded(concept: Concept) -> Any:
    """The same, as highdicom takes it."""
    from highdicom.sr.coding import CodedConcept

    return CodedConcept(concept.value, concept.scheme, plain(concept.meaning) or concept.value)


def scheme_item() -> Item:
    """What `SCHEME` is, for the Coding Scheme Identification Sequence (PS3.3 C.12.1)."""
    return Item(
        CodingSchemeDesignator=SCHEME,
        CodingSchemeName="edgemed's names of classes and outputs of models",
        CodingSchemeResponsibleOrganization="edgemed",
    )


def parameters(author: Author) -> list[str]:
    """What the answer depended on, as `name=value`."""
    said = {
        "precision": author.precision,
        "backend": author.backend,
        "device": author.device,
        "bundle": f"sha256:{author.digest}",
        "software": author.software,
        "intended use": author.intended_use,
    }
    return [plain(f"{name}={value}", 1024) for name, value in said.items() if value]


def remarks(content: Content) -> list[str]:
    """What every reader must see: research use, the reason of a refusal, notes."""
    said = [RESEARCH] if content.author.research_only else []
    if content.refusal is not None:
        said.append(f"{NOT_ANALYSED}: {content.refusal}")
    return [plain(line, 1024) for line in (*said, *content.notes)]


def title(content: Content, what: str) -> str:
    """Series Description: what a list of series shows."""
    name = plain(content.author.model, 24)
    if content.refusal is not None:
        return plain(f"{NOT_ANALYSED}: {name}")
    research = " (research use only)" if content.author.research_only else ""
    return plain(f"{name}: {what}{research}")


def place(reading: Reading, sources: list[Source]) -> str:
    """Which frame or image of several a reading is about; '' for the whole."""
    if reading.source is None:
        return ""
    image = f"image {reading.source + 1}" if len(sources) > 1 else ""
    frame = f"frame {reading.frame + 1}" if reading.frame is not None else ""
    return " ".join(part for part in (image, frame) if part)


def lines(reading: Reading) -> list[str]:
    """What a reading says, a line for each class or value."""
    if reading.value is not None:
        unit = "" if reading.unit == "1" else f" {reading.unit}"
        return [f"{reading.output}: {reading.value:.4g}{unit}"]
    if reading.task == "segmentation":
        return [f"{score.name}: {'found' if score.found else 'not found'}" for score in reading.scores]
    return [f"{score.name}: {score.value:.1%}{' *' if score.found else ''}" for score in reading.scores]
