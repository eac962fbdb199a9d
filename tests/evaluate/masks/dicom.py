"""CT slices of several patients, and DICOM Segmentations that highdicom writes for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

CODES = {"liver": codes.SCT.Liver, "spleen": codes.SCT.Spleen}


def write_slices(folder: Path, patient: str, count: int, *, seed: int = 0) -> list[Path]:
    """A series of a real slice with noise of its own in each, 5 mm apart."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, series, paths = np.random.default_rng(seed), generate_uid(), []
    for index in range(count):
        dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
        pixels = dataset.pixel_array + rng.integers(0, 40, (128, 128))
        dataset.PixelData = pixels.astype(np.int16).tobytes()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.SeriesInstanceUID, dataset.PatientID = series, patient
        dataset.ImagePositionPatient = [-158.135803, -179.035797, -75.7 + 5 * index]
        dataset.InstanceNumber = index + 1
        paths.append(folder / f"{patient}-{index}.dcm")
        dataset.save_as(paths[-1])
    return paths


def hounsfield(paths: list[Path]) -> np.ndarray:
    """`(slices, rows, columns)`."""
    found = [pydicom.dcmread(path) for path in paths]
    return np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in found])


def write_seg(path: Path, sources: list[Path], masks: np.ndarray, labels: tuple[str, ...]) -> Path:
    """BINARY, `(slices, rows, columns, segments)`; a label in `CODES` has its code, others the liver's."""
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number + 1,
            segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=CODES.get(label, codes.SCT.Liver),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(labels)
    ]
    more: dict[str, Any] = {"series_number": 9, "instance_number": 1, "device_serial_number": "1"}
    seg = hd.seg.Segmentation(
        source_images=[pydicom.dcmread(source) for source in sources],
        pixel_array=masks.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        **more,
    )
    seg.save_as(path)
    return path
