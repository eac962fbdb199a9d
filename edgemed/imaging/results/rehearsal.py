"""Results for nobody: what libraries load for the first ones, a second's work, is loaded before a patient waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import numpy as np

from edgemed.imaging.results.content import Author, Content, Reading, Score
from edgemed.imaging.results.items import Item
from edgemed.imaging.results.make import make_results
from edgemed.imaging.results.part10 import whole_file
from edgemed.imaging.results.uids import uid_of

_SIDE: Final = 64
_SCORES: Final = (Score("class", 0.5, True),)


def rehearse(author: Author, answer: Sequence[str], notice: Sequence[str], path: Path) -> None:
    """Write an answer and a refusal about an image of nobody, and drop them.

    Args:
        author: whose results are written next.
        answer: kinds of results that an answer has.
        notice: kinds that a refusal has; none where nobody is told.
        path: where the image is written, and deleted again.

    Raises:
        OSError: it cannot be written.
        MissingSoftwareError: pydicom or highdicom is not installed.
    """
    square = np.zeros((1, _SIDE, _SIDE), bool)
    square[0, 16:32, 16:32] = True
    readings = (
        Reading("output", "binary", 0, scores=_SCORES, threshold=0.5),
        Reading("mask", "segmentation", 0, scores=_SCORES, labels=square),
    )
    try:
        path.write_bytes(whole_file(_image()))
        when = datetime(2000, 1, 1, tzinfo=timezone.utc)
        make_results(Content(author, (path,), when, readings), answer)
        make_results(Content(author, (path,), when, refusal="It is a rehearsal."), notice)
    finally:
        path.unlink(missing_ok=True)


def _image() -> Item:
    """A CT slice: of no other class may more kinds of results be made."""
    pixels = np.arange(_SIDE * _SIDE, dtype="<u2")
    image = Item(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
        SOPInstanceUID=uid_of("rehearsal"),
        StudyInstanceUID=uid_of("rehearsal", "study"),
        SeriesInstanceUID=uid_of("rehearsal", "series"),
        FrameOfReferenceUID=uid_of("rehearsal", "frame"),
        Modality="CT",
        ImagePositionPatient=["0", "0", "0"],
        ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
        PixelSpacing=["1", "1"],
        SliceThickness="1",
        RescaleSlope="1",
        RescaleIntercept="0",
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=_SIDE,
        Columns=_SIDE,
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=0,
    )
    image[0x7FE00010] = "OW", pixels.tobytes()
    return image
