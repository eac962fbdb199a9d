"""Small DICOM files for tests, written by pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

SERIES = "2.25.1"


def dataset(pixels: np.ndarray, **attributes: object) -> Dataset:
    """A CT slice, or a multi-frame image where `pixels` has three axes; a last axis of 3 is colour."""
    color = pixels.shape[-1] == 3 and pixels.ndim > 2
    frames = pixels.ndim - color > 2
    rows, columns = pixels.shape[-2 - color : pixels.ndim - color]
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = UltrasoundMultiFrameImageStorage if frames else CTImageStorage
    made.SOPInstanceUID = generate_uid()
    made.Modality = "US" if frames else "CT"
    made.SeriesInstanceUID, made.StudyInstanceUID, made.FrameOfReferenceUID = SERIES, "2.25.2", "2.25.3"
    made.PatientID, made.PatientName = "42", "Test^Person"
    if frames:
        made.NumberOfFrames = pixels.shape[0]
    made.Rows, made.Columns = rows, columns
    made.SamplesPerPixel = 3 if color else 1
    made.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
        made.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = np.ascontiguousarray(pixels).tobytes()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def write(path: Path, pixels: np.ndarray, **attributes: object) -> Path:
    """Write such a file."""
    made = dataset(pixels, **attributes)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, volume: np.ndarray, *, step: float = 2.5, **attributes: object) -> list[Path]:
    """An axial series, one file for each slice, named in another order than the slices lie in."""
    common = {
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.75],
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
    }
    names = np.random.default_rng(3).permutation(len(volume))
    return [
        write(
            folder / f"{names[i]:03d}.dcm",
            plane,
            **{**common, "ImagePositionPatient": [-20.0, -10.0, 100 + i * step], **attributes},
        )
        for i, plane in enumerate(volume)
    ]
