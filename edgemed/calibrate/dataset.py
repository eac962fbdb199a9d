"""The calibration set: which samples, with the hash of each; read one at a time, never held in memory."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_file, sha256_json
from edgemed.imaging.read import list_samples

SCHEMA: Final = "edgemed/calibration-set/1"
RECIPE_FILE = "recipe.toml"
ENOUGH_IMAGES = 100  # fewer give unstable ranges; NVIDIA's and Ultralytics' guides ask for about 500
MAX_IMAGES = 512

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SampleEntry(BaseModel):
    """One file of the set, its path relative to the set's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    sha256: Digest


class CalibrationManifest(BaseModel):
    """`calibration.json`: the samples that the scales were taken from, in the order of use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["edgemed/calibration-set/1"] = Field(alias="schema")
    samples: Annotated[tuple[SampleEntry, ...], Field(min_length=1)]
    found: Annotated[int, Field(ge=1, description="files in the folder; more than were used when it holds too many")]
    digest: Digest


@dataclass(frozen=True)
class CalibrationSet:
    """Samples of a folder, readable as feeds for a model."""

    folder: Path
    manifest: CalibrationManifest

    def __len__(self) -> int:
        return len(self.manifest.samples)

    @property
    def paths(self) -> list[Path]:
        return [self.folder / entry.file for entry in self.manifest.samples]


def open_calibration_set(folder: Path, *, max_images: int = MAX_IMAGES) -> CalibrationSet:
    """List and hash the samples of a folder; of too many, an evenly drawn, reproducible choice is used.

    Raises:
        InputError: no folder, or no samples in it.
    """
    paths = list_samples(folder)
    if not paths:
        raise InputError(
            f"{folder} holds no images or arrays.", "Put at least 100 typical images there (PNG, JPEG, TIFF or NPY)."
        )
    found = len(paths)
    if found > max_images:
        paths = sorted(random.Random(0).sample(paths, max_images))  # noqa: S311 - a reproducible choice, not a secret
    samples = tuple(SampleEntry(file=p.relative_to(folder).as_posix(), sha256=sha256_file(p)) for p in paths)
    digest = sha256_json(sorted(s.sha256 for s in samples))
    return CalibrationSet(folder, CalibrationManifest(schema=SCHEMA, samples=samples, found=found, digest=digest))
