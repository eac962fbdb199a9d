"""The calibration set: which samples, with the hash of each; read one at a time, never held in memory."""

from __future__ import annotations

import random
from collections.abc import Collection
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
    """One file of the set, its path relative to the set's folder, and what it was used for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    sha256: Digest
    role: Annotated[
        Literal["ranges", "judge", "both"],
        Field(description="ranges were taken from it, fidelity was judged on it, or both where there are few"),
    ]


class CalibrationManifest(BaseModel):
    """`calibration.json`: the samples that a build used, and for what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["edgemed/calibration-set/1"] = Field(alias="schema")
    samples: Annotated[tuple[SampleEntry, ...], Field(min_length=1)]
    found: Annotated[int, Field(ge=1, description="files in the folder; more than were used when it holds too many")]
    digest: Annotated[Digest, Field(description="over the hashes of the samples that the ranges were taken from")]


@dataclass(frozen=True)
class CalibrationSet:
    """Different samples of a folder, by path, with their hashes; `found` files, copies of each other included."""

    folder: Path
    hashes: dict[Path, str]
    found: int

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def paths(self) -> list[Path]:
        return list(self.hashes)

    def manifest(self, ranges: Collection[Path], judge: Collection[Path]) -> CalibrationManifest:
        """Say which samples were used for what."""
        roles = {path: _role(path in ranges, path in judge) for path in self.hashes}
        samples = tuple(
            SampleEntry(file=path.relative_to(self.folder).as_posix(), sha256=digest, role=role)
            for path, digest in self.hashes.items()
            if (role := roles[path]) is not None
        )
        digest = sha256_json(sorted(self.hashes[path] for path in ranges))
        return CalibrationManifest(schema=SCHEMA, samples=samples, found=self.found, digest=digest)


def _role(ranges: bool, judge: bool) -> Literal["ranges", "judge", "both"] | None:
    if ranges and judge:
        return "both"
    return "ranges" if ranges else "judge" if judge else None


def open_calibration_set(folder: Path, *, max_images: int = MAX_IMAGES) -> CalibrationSet:
    """List and hash the samples of a folder.

    Of copies only the first counts, so that parts of the set are disjoint by hash; of too many, an evenly drawn,
    reproducible choice is used.

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
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(sha256_file(path), path)
    return CalibrationSet(folder, {path: digest for digest, path in first.items()}, found)
