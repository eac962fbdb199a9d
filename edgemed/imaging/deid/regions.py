"""Where text is burned into pixels, and which files must not pass without a rule that says so."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgemed.base.errors import InputError
from edgemed.base.toml import read_toml
from edgemed.imaging.deid.values import strings
from edgemed.imaging.limits import MAX_PIXELS

if TYPE_CHECKING:
    from pydicom import Dataset

USUAL_MODALITIES: Final = {
    "US": "ultrasound",
    "IVUS": "intravascular ultrasound",
    "BDUS": "ultrasound bone densitometry",
    "ES": "endoscopy",
    "XC": "photography",
    "GM": "general microscopy",
    "SM": "slide microscopy with its label",
    "OT": "other",
    "DG": "diaphanography",
    "HC": "hard copy",
    "DOC": "document",
    "BMD": "bone densitometry",
    "SC": "secondary capture",
}
"""Modalities whose devices write names into pixels. PS3.15 E.3.1 names no list: these are the ones that the Clinical
Trials Processor's and TCIA's curators look at first, and those of scans and screens."""

SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
_SCREENS: Final = ("SCREEN SAVE", "SCREENSAVE", "SCREEN", "DOSE", "DOSE_INFO", "REPORT", "SCANNED")
_ULTRASOUND: Final = "ultrasound"

Edge = Annotated[int, Field(ge=0, le=65_535)]
Side = Annotated[int, Field(ge=1, le=65_535)]


class BurnedInError(InputError):
    """Text may be burned into the pixels, and no rule says where."""


class RegionRule(BaseModel):
    """Rectangles to blank in images of one kind. An absent line matches everything; text takes `*` and ignores case.

    A rectangle is `[top, left, bottom, right]` in pixels; bottom and right are the first row and column outside it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    rows: Side | None = None
    columns: Side | None = None
    blank: tuple[tuple[Edge, Edge, Edge, Edge], ...] = ()
    keep: tuple[tuple[Edge, Edge, Edge, Edge], ...] = Field((), description="all outside of these is blanked")
    ultrasound_regions: bool = Field(
        False, description="keep what Sequence of Ultrasound Regions (0018,6011) marks, blank the rest"
    )

    @model_validator(mode="after")
    def _one_way(self) -> RegionRule:
        if bool(self.blank) + bool(self.keep) + self.ultrasound_regions != 1:
            raise ValueError("give one of blank, keep and ultrasound_regions")
        if any(top >= bottom or left >= right for top, left, bottom, right in self.blank + self.keep):
            raise ValueError("a rectangle is [top, left, bottom, right] with top < bottom and left < right")
        return self

    def matches(self, dataset: Dataset) -> bool:
        """Whether the rule speaks of this image."""
        texts = (
            (self.modality, "Modality"),
            (self.manufacturer, "Manufacturer"),
            (self.model, "ManufacturerModelName"),
        )
        for pattern, keyword in texts:
            if pattern is not None and not fnmatchcase("\\".join(words(dataset, keyword)), pattern.upper()):
                return False
        sides = ((self.rows, "Rows"), (self.columns, "Columns"))
        if any(side is not None and words(dataset, keyword) != [str(side)] for side, keyword in sides):
            return False
        return not self.ultrasound_regions or bool(_regions(dataset))


ULTRASOUND_REGIONS: Final = RegionRule(ultrasound_regions=True)
"""The rule `ultrasound`: what the device itself calls image stays. Text inside its regions stays, too."""


@dataclass(frozen=True)
class Blanking:
    """Pixels to blank, `(rows, columns)` bool, and why."""

    mask: NDArray[np.bool_]
    why: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    region: Annotated[tuple[RegionRule, ...], Field(min_length=1)]


def load_rules(path: Path) -> tuple[RegionRule, ...]:
    """Rules from a TOML file with `[[region]]` tables, in its order; the first that matches an image counts.

    Raises:
        InputError: not such a file; the message names the key.
        ResourceError: it cannot be read.
    """
    try:
        return _File.model_validate(read_toml(path)).region
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        raise InputError(f"{path}: {key}: {first['msg']}.", "See docs/deidentification.md for region rules.") from error


def burned_in(dataset: Dataset) -> str | None:
    """Why an image may hold identifying text in its pixels; `None` where nothing speaks for it."""
    if "Rows" not in dataset:
        return None
    flags = words(dataset, "BurnedInAnnotation")
    if "YES" in flags:
        return "Burned In Annotation says YES"
    if "YES" in words(dataset, "SpecimenLabelInImage"):
        return "Specimen Label In Image says YES"
    if flags == ["NO"]:
        return None
    kind = _usual(dataset)
    return f"{kind}, where names are often burned in, and Burned In Annotation does not say NO" if kind else None


def words(dataset: Dataset, keyword: str) -> list[str]:
    """The values of an attribute in upper case; none where it is absent, or cannot be read."""
    try:
        return [text.strip().upper() for text in strings(dataset.get(keyword))]
    except Exception:  # pydicom raises whatever a hostile value provokes
        return []


def _usual(dataset: Dataset) -> str | None:
    sop_class = "".join(words(dataset, "SOPClassUID"))
    if sop_class == SECONDARY_CAPTURE or sop_class.startswith(f"{SECONDARY_CAPTURE}."):
        return "it is a secondary capture"
    if any(words(dataset, "ConversionType")):
        return "it was scanned or captured (Conversion Type)"
    if any(word in _SCREENS for word in words(dataset, "ImageType")):
        return "it is a screen (Image Type)"
    modality = "".join(words(dataset, "Modality"))
    if not modality:
        return "it has no Modality"
    return f"it is {USUAL_MODALITIES[modality]} ({modality})" if modality in USUAL_MODALITIES else None


def find_blanking(dataset: Dataset, rules: tuple[RegionRule, ...]) -> Blanking | None:
    """What the first rule that matches would blank; `None` where none does.

    Raises:
        InputError: a rectangle, or a region of the file, does not lie in the image.
    """
    sides = words(dataset, "Rows") + words(dataset, "Columns")
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        return None
    rows, columns = (int(side) for side in sides)
    rule = next((rule for rule in rules if rule.matches(dataset)), None)
    if rule is None:
        return None
    if rule.blank:
        return Blanking(_inside(rule.blank, rows, columns), f"{len(rule.blank)} rectangles blanked")
    boxes = _ultrasound_boxes(dataset) if rule.ultrasound_regions else rule.keep
    name = "ultrasound regions" if rule.ultrasound_regions else "rectangles"
    return Blanking(~_inside(boxes, rows, columns), f"all outside {len(boxes)} {name} blanked")


def _regions(dataset: Dataset) -> list[Dataset]:
    try:
        return list(dataset.get("SequenceOfUltrasoundRegions") or ())
    except Exception:  # as in `words`
        return []


def _ultrasound_boxes(dataset: Dataset) -> tuple[tuple[int, int, int, int], ...]:
    """Regions as rectangles; the file's corners are inside them (PS3.3 C.8.5.5.1.1)."""
    boxes = []
    for item in _regions(dataset):
        corners = [words(item, f"RegionLocation{name}") for name in ("MinY0", "MinX0", "MaxY1", "MaxX1")]
        if not all(len(corner) == 1 and corner[0].isdecimal() for corner in corners):
            raise InputError("An ultrasound region has no corners.", "Write a region rule with rectangles.")
        top, left, bottom, right = (int(corner[0]) for corner in corners)
        boxes.append((top, left, bottom + 1, right + 1))
    return tuple(boxes)


def _inside(boxes: tuple[tuple[int, int, int, int], ...], rows: int, columns: int) -> NDArray[np.bool_]:
    if rows * columns > MAX_PIXELS:
        raise InputError(f"The header claims {rows}x{columns} pixels, more than allowed.", "Check the file.")
    mask = np.zeros((rows, columns), dtype=np.bool_)
    for top, left, bottom, right in boxes:
        if bottom > rows or right > columns or top >= bottom or left >= right:
            raise InputError(
                f"The rectangle [{top}, {left}, {bottom}, {right}] does not lie in an image of {rows}x{columns}.",
                "Correct the region rule: [top, left, bottom, right] in pixels.",
            )
        mask[top:bottom, left:right] = True
    return mask
