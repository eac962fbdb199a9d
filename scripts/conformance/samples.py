"""Images as modalities send them, and everything that is made of an answer about them: what the page is read off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage

from edgemed.imaging.results.content import Author, Concept, Content, Reading, ResultFile, Score
from edgemed.imaging.results.make import KINDS, make_results

_AUTHOR: Final = Author(
    "chest", "chest.edgemed 2026-01-01", "5" * 64, "int8", "tensorrt", "Orin Nano", "bedside", "edgemed"
)
_WHEN: Final = datetime(2026, 1, 5, tzinfo=timezone.utc)
_PNEUMONIA: Final = Concept("233604007", "SCT", "Pneumonia")
_SIDE: Final = 64  # pixels

HEADER: Final[Mapping[str, Any]] = {
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": "Müller^Änne^^Dr",
    "PatientID": "4711",
    "IssuerOfPatientID": "WARD7",
    "PatientBirthDate": "19400305",
    "PatientSex": "F",
    "PatientAge": "085Y",
    "PatientWeight": "61",
    "EthnicGroup": "unknown",
    "PatientIdentityRemoved": "NO",
    "StudyInstanceUID": "1.2.3",
    "StudyDate": "20260104",
    "StudyTime": "101112",
    "StudyID": "S1",
    "StudyDescription": "Chest",
    "AccessionNumber": "A-17",
    "PlacerOrderNumberImagingServiceRequest": "P-17",
    "FillerOrderNumberImagingServiceRequest": "F-17",
    "ReferringPhysicianName": "Meier^Ute",
    "TimezoneOffsetFromUTC": "+0100",
    "SeriesInstanceUID": "1.2.3.4",
    "SeriesNumber": 5,
    "SeriesDescription": "Axial",
    "BodyPartExamined": "KNEE",
    "Laterality": "L",
    "FrameOfReferenceUID": "1.2.3.5",
    "PositionReferenceIndicator": "",
    "PatientOrientation": ["L", "P"],
    "InstanceNumber": 6,
    "BurnedInAnnotation": "NO",
    "Manufacturer": "Somebody",
    "ManufacturerModelName": "Scanner",
    "StationName": "CT1",
    "InstitutionName": "Hospital",
    "OperatorsName": "Schulz^Jo",
    "ProtocolName": "Routine",
    "ImageComments": "a comment",
}
"""Attributes of every sample: each has a value that no other has, so that it is known again in what is made."""


@dataclass(frozen=True)
class Made:
    """All results of one sample.

    Attributes:
        source: the image.
        files: what was made of it.
    """

    source: Dataset
    files: tuple[ResultFile, ...]

    def of(self, kind: str) -> ResultFile:
        """The first one of a kind."""
        return next(file for file in self.files if file.kind == kind)


@cache
def still() -> Made:
    """A slice of CT with a place in the patient, judged and segmented."""
    image = _image(CTImageStorage, "1.2.3.4.1", (_SIDE, _SIDE), 16)
    image.Modality = "CT"
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = "-1024", "1", "HU"
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    image.PixelSpacing, image.SliceThickness = [1, 1], "2"
    labels = np.zeros((1, _SIDE, _SIDE), np.bool_)
    labels[0, 8:24, 8:24] = True
    mask = Reading("mask", "segmentation", source=0, scores=(Score("lesion", 1.0, found=True),), labels=labels)
    return _made(image, (_judged(), mask, Reading("size", "regression", source=0, value=12.5, unit="mm")))


@cache
def moving() -> Made:
    """A cine of ultrasound in colour, each frame judged."""
    image = _image(UltrasoundMultiFrameImageStorage, "1.2.3.4.2", (2, _SIDE, _SIDE, 3), 8)
    image.Modality = "US"
    image.NumberOfFrames, image.FrameTime, image.FrameIncrementPointer = 2, "33", 0x00181063
    return _made(image, tuple(_judged(frame) for frame in range(2)))


def _judged(frame: int | None = None) -> Reading:
    scores = (Score("normal", 0.1, found=False), Score("pneumonia", 0.9, found=True, concept=_PNEUMONIA))
    return Reading("class", "binary", source=0, frame=frame, scores=scores, threshold=0.5)


def _image(sop_class: str, uid: str, shape: tuple[int, ...], bits: int) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = sop_class, uid
    for keyword, value in HEADER.items():
        setattr(image, keyword, value)
    color = shape[-1] == 3
    image.Rows = image.Columns = _SIDE
    image.SamplesPerPixel = 3 if color else 1
    image.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = bits
    image.HighBit, image.PixelRepresentation = bits - 1, 0
    if color:
        image.PlanarConfiguration = 0
    pixels = np.arange(np.prod(shape)).reshape(shape) % 200
    image.PixelData = pixels.astype(np.uint16 if bits > 8 else np.uint8).tobytes()
    return image


def _made(image: Dataset, readings: tuple[Reading, ...]) -> Made:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image.dcm"
        image.save_as(path, enforce_file_format=True)
        return Made(image, tuple(make_results(Content(_AUTHOR, (path,), _WHEN, readings), KINDS)))
