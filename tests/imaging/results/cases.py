"""What the tests of results share: an author, real images, made images, masks, and the validators of others."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

from edgemed.imaging.results import make_results
from edgemed.imaging.results.content import Author, Concept, Content, Reading, ResultFile, Score

AUTHOR = Author(
    model="chest",
    version="chest.edgemed 2026-01-01",
    digest="5" * 64,
    precision="int8",
    backend="tensorrt",
    device="Orin Nano",
    station="bedside",
    software="edgemed 0.1.0",
    intended_use="Research on pneumonia",
)
WHEN = datetime(2026, 1, 5, 12, 30, tzinfo=timezone.utc)
EVERY = ("sr", "seg", "sc", "gsps", "json")
DICOM = EVERY[:4]
PNEUMONIA = Concept("233604007", "SCT", "Pneumonia")

peers = pytest.mark.skipif(
    (shutil.which("dciodvfy") is None or shutil.which("dsrdump") is None) and not os.environ.get("CI"),
    reason="dicom3tools and DCMTK are not installed: make debian",
)


def real(name: str) -> Path:
    """A real image of pydicom or pydicom-data."""
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found)


def content(*sources: Path, **fields: Any) -> Content:
    """Something that was found in the sources, or what `fields` say."""
    return Content(AUTHOR, sources, fields.pop("analysed", WHEN), **fields)


def classified(source: int | None = 0, frame: int | None = None) -> Reading:
    """A binary answer."""
    scores = (Score("normal", 0.0725, False), Score("pneumonia", 0.9275, True, PNEUMONIA))
    return Reading("y", "binary", source, frame, scores, threshold=0.5)


def drawn(labels: NDArray[np.bool_], source: int | None = 0, frame: int | None = None) -> Reading:
    """A segmentation of one class or several."""
    codes = (Concept("10200004", "SCT", "Liver"), None)
    scores = tuple(Score(f"class {i}", 0.5, bool(mask.any()), codes[i % 2]) for i, mask in enumerate(labels))
    return Reading("mask", "segmentation", source, frame, scores, threshold=0.5, labels=labels)


def blobs(rows: int, columns: int, shift: int = 0) -> NDArray[np.bool_]:
    """Two classes that overlap: one with a hole and a second part, one at the corner."""
    y, x = np.mgrid[:rows, :columns]
    large = ((y - rows * 0.4) / (rows * 0.25)) ** 2 + ((x - shift - columns * 0.5) / (columns * 0.3)) ** 2 < 1
    hole = ((y - rows * 0.4) / (rows * 0.08)) ** 2 + ((x - shift - columns * 0.5) / (columns * 0.08)) ** 2 < 1
    first = large & ~hole
    first[-1, -2:] = True
    return np.stack([first, (y < rows * 0.3) & (x < columns * 0.4)])


def by_kind(files: list[ResultFile]) -> dict[str, ResultFile]:
    """One file of each kind."""
    assert len({file.kind for file in files}) == len(files)
    return {file.kind: file for file in files}


def made(said: Content, *kinds: str) -> dict[str, ResultFile]:
    """The files of a content."""
    return by_kind(make_results(said, kinds or EVERY))


def complaints(path: Path) -> list[str]:
    """Errors that dicom3tools has."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, check=False)
    lines = (done.stdout + done.stderr).decode("latin-1").splitlines()
    assert lines, "it says at least what kind of object it is"
    return [line for line in lines if line.startswith("Error")]


def assert_valid(folder: Path, files: dict[str, ResultFile]) -> None:
    """No object has an error, by dicom3tools."""
    for kind in DICOM:
        if kind in files:
            path = folder / files[kind].name
            path.write_bytes(files[kind].data)
            assert complaints(path) == [], kind
