"""`calibration.json` and `deid-report.json` of a folder that `edgemed calibrate` made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgemed.imaging.deid.report import DeidReport, TagReport

MANIFEST_FILE: Final = "calibration.json"
REPORT_FILE: Final = "deid-report.json"
SCHEMA: Final = "edgemed/image-set/1"
REPORT_SCHEMA: Final = "edgemed/deid-set-report/1"

Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageEntry(_Strict):
    """One image of the set."""

    file: str = Field(description="relative to the folder; the folder of a series")
    sha256: Digest = Field(description="of the file; of a series over the sorted list of the hashes of its files")
    patient: str | None = Field(description="pseudonym under the key of the set, where the source names a patient")
    labels: tuple[str, ...] = ()


class ImageSet(_Strict):
    """`calibration.json`."""

    schema_: Literal["edgemed/image-set/1"] = Field(alias="schema")
    images: Annotated[tuple[ImageEntry, ...], Field(min_length=1)]
    seed: int
    offered: Count = Field(description="images in the sources")
    refused: dict[str, Count] = Field(description="how many were left out, by kind of reason")
    recipe_sha256: Digest | None = Field(description="of recipe.toml")
    key: Literal["given", "random"] = Field(description="random: nobody can join other data to these pseudonyms")


class ImageDeid(_Strict):
    """What is particular to one file."""

    file: str
    pixels: str
    codes: tuple[str, ...]
    notes: tuple[str, ...] = ()


class SetReport(_Strict):
    """`deid-report.json`: what was done to each attribute, counted over all files; old values are never in it."""

    schema_: Literal["edgemed/deid-set-report/1"] = Field(alias="schema")
    profile: str
    tags: tuple[TagReport, ...]
    files: tuple[ImageDeid, ...]


def merged(reports: list[tuple[str, DeidReport]], profile: str) -> SetReport:
    """One report of many."""
    counts: dict[tuple[str, ...], TagReport] = {}
    for _, report in reports:
        for tag in report.tags:
            key = (tag.path, tag.tag, tag.vr, tag.action, tag.why)
            before = counts[key].count if key in counts else 0
            counts[key] = tag.model_copy(update={"count": before + tag.count})
    files = tuple(
        ImageDeid(file=name, pixels=report.pixels, codes=report.codes, notes=report.notes) for name, report in reports
    )
    return SetReport(schema=REPORT_SCHEMA, profile=profile, tags=tuple(counts.values()), files=files)


def is_image_set(folder: Path) -> bool:
    """Whether `edgemed calibrate` made this folder."""
    try:
        document: Any = json.loads((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("schema") == SCHEMA
