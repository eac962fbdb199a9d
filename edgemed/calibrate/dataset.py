"""The calibration set: which samples, with the hash of each; read one at a time, never held in memory."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_json
from edgemed.base.text import PRINTABLE
from edgemed.imaging.privacy import Declaration, declaration
from edgemed.imaging.read import ARRAY_SUFFIXES, IMAGE_SUFFIXES
from edgemed.imaging.sources import Sample, list_samples
from edgemed.recipe.schema import Recipe

SCHEMA: Final = "edgemed/calibration-set/1"
RECIPE_FILE = "recipe.toml"
ENOUGH_IMAGES = 100  # fewer give unstable ranges; NVIDIA's and Ultralytics' guides ask for about 500
MAX_IMAGES = 512
_NAME_DIGITS = 16

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SampleEntry(BaseModel):
    """One sample of the set, named by its hash (never by its file: that may name a patient), and its use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    sha256: Digest
    role: Annotated[
        Literal["ranges", "judge", "both"],
        Field(description="ranges were taken from it, fidelity was judged on it, or both where there are few"),
    ]
    patient: Annotated[
        str | None, Field(max_length=64, pattern=PRINTABLE, description="pseudonym of a de-identified DICOM image")
    ] = None


class CalibrationManifest(BaseModel):
    """`calibration.json`: the samples that a build used, and for what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["edgemed/calibration-set/1"] = Field(alias="schema")
    samples: Annotated[tuple[SampleEntry, ...], Field(min_length=1)]
    found: Annotated[int, Field(ge=1, description="files in the folder; more than were used when it holds too many")]
    digest: Annotated[Digest, Field(description="over the hashes of the samples that the ranges were taken from")]


@dataclass(frozen=True)
class CalibrationSet:
    """Different samples of a folder with their hashes; `found` of them, copies of each other included."""

    folder: Path
    hashes: dict[Sample, str]
    found: int

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def samples(self) -> list[Sample]:
        return list(self.hashes)

    @cached_property
    def declared(self) -> dict[Sample, Declaration]:
        """What the DICOM images say of their patients; each header is read once."""
        found = {sample: declaration(sample) for sample in self.hashes}
        return {sample: said for sample, said in found.items() if said is not None}

    def manifest(self, ranges: Collection[Sample], judge: Collection[Sample]) -> CalibrationManifest:
        """Say which samples were used for what."""
        roles = {sample: _role(sample in ranges, sample in judge) for sample in self.hashes}
        samples = tuple(
            SampleEntry(
                file=_nameless(sample, digest),
                sha256=digest,
                role=role,
                patient=self.declared[sample].pseudonym if sample in self.declared else None,
            )
            for sample, digest in self.hashes.items()
            if (role := roles[sample]) is not None
        )
        digest = sha256_json(sorted(self.hashes[sample] for sample in ranges))
        return CalibrationManifest(schema=SCHEMA, samples=samples, found=self.found, digest=digest)


def _nameless(sample: Sample, digest: str) -> str:
    """What a bundle calls a sample: file names may be those of patients."""
    suffix = sample.path.suffix.lower()
    known = suffix in IMAGE_SUFFIXES | ARRAY_SUFFIXES | {".csv", ".dcm", ".gz", ".nii"}
    return digest[:_NAME_DIGITS] + (suffix if known else "")


def _role(ranges: bool, judge: bool) -> Literal["ranges", "judge", "both"] | None:
    if ranges and judge:
        return "both"
    return "ranges" if ranges else "judge" if judge else None


def open_calibration_set(folder: Path, recipe: Recipe | None = None, *, max_images: int = MAX_IMAGES) -> CalibrationSet:
    """List and hash the samples of a folder.

    Of copies only the first counts, so that parts of the set are disjoint by hash; of too many, an evenly drawn,
    reproducible choice is used.

    Args:
        folder: where they lie.
        recipe: what they become, which decides whether a folder of slices is one sample.
        max_images: samples to use at most.

    Raises:
        InputError: no folder, or no samples in it.
    """
    samples = list_samples(folder, recipe)
    if not samples:
        raise InputError(
            f"{folder} holds no images or arrays.",
            "Put at least 100 typical images there (DICOM, PNG, JPEG, TIFF, NIfTI or NPY).",
        )
    found = len(samples)
    if found > max_images:
        samples = sorted(random.Random(0).sample(samples, max_images))  # noqa: S311 - a reproducible choice, no secret
    first: dict[str, Sample] = {}
    for sample in samples:
        first.setdefault(sample.digest(), sample)
    return CalibrationSet(folder, {sample: digest for digest, sample in first.items()}, found)
