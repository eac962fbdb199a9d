"""What tests of the daemon need: little bundles with golden vectors, DICOM images, configurations, a running daemon."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate.bundles import write_bundle
from evaluate.hostile import reseal, with_golden
from evaluate.masks.bundles import write_mask_bundle
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from edgemed.serve.config import Config
from edgemed.serve.daemon import Daemon
from edgemed.serve.intake import Outcome
from edgemed.serve.services import Services
from tests.serve.store import arrival, in_memory

CT = "1.2.840.10008.5.1.4.1.1.2"
CR = "1.2.840.10008.5.1.4.1.1.1"
US = "1.2.840.10008.5.1.4.1.1.6.1"
US_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"

RECIPE = """
[input]
[[input.steps]]
op = "window"
center = 128
width = 256
[output]
task = "binary"
activation = "sigmoid"
classes = [{ name = "normal" }, { name = "pneumonia", code = "SCT:233604007:Pneumonia" }]
threshold = 0.5
"""


def write_classifier(path: Path, *, recipe: str = RECIPE, boundary: float = 0.5, int8: float | None = None) -> Path:
    """A bundle that calls an image `pneumonia` when it is brighter than half; it takes images of every size."""
    boundaries = {"float": boundary} | ({} if int8 is None else {"int8": int8})
    write_bundle(path, boundaries=boundaries, classes=("normal", "pneumonia"))
    reseal(path, files={"recipe.toml": f"assumed = false\n{recipe}".encode()})
    with_golden(path)
    return path


def write_segmenter(
    path: Path, *, shape: tuple[int, ...] = (1, 8, 8, 1), classes: tuple[str, ...] = ("bright",)
) -> Path:
    """A bundle that marks pixels by their brightness."""
    write_mask_bundle(path, shape=shape, classes=classes, int8=None)
    with_golden(path)
    return path


def image(
    *,
    sop_class: str = CT,
    rows: int = 64,
    columns: int = 64,
    level: int = 200,
    frames: int | None = None,
    study: str | None = None,
    series: str | None = None,
    instance: str | None = None,
    position: float | None = None,
    **attributes: Any,
) -> Dataset:
    """A valid image of noise around `level`, with what its IOD needs most; `attributes` by keyword."""
    pixels = _noise((frames or 1, rows, columns), level)
    ds = Dataset()
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = instance or generate_uid()
    ds.StudyInstanceUID = study or generate_uid()
    ds.SeriesInstanceUID = series or generate_uid()
    ds.Modality = {CT: "CT", CR: "CR", US: "US", US_MULTIFRAME: "US"}.get(sop_class, "OT")
    ds.PatientName, ds.PatientID = "Doe^Jane", "4711"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260105", "102030", "1", "A1"
    ds.ReferringPhysicianName = "Roe^Richard"
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.ContentDate, ds.ContentTime = "20260105", "102030"
    ds.Manufacturer = "ACME"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Rows, ds.Columns = rows, columns
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    if frames is not None:
        ds.NumberOfFrames = frames
        ds.FrameTime = "40"
        ds.FrameIncrementPointer = 0x00181063
    if sop_class == CT:
        ds.RescaleIntercept, ds.RescaleSlope = "0", "1"
        ds.FrameOfReferenceUID = generate_uid(entropy_srcs=[ds.SeriesInstanceUID, "frame of reference"])
        ds.PositionReferenceIndicator = ""
        ds.ImagePositionPatient = [0, 0, position or 0.0]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness, ds.KVP, ds.AcquisitionNumber = [1, 1], "1", "120", 1
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OB"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian)
    return ds


def _noise(shape: tuple[int, ...], level: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(level).integers(-20, 21, shape)
    return np.clip(noise + level, 0, 255).astype(np.uint8)


def encode(ds: Dataset) -> bytes:
    """A whole Part 10 file."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write(ds: Dataset, path: Path) -> Path:
    """`encode` into a file."""
    path.write_bytes(encode(ds))
    return path


def bedside(root: Path, *, bundle: Path | None = None, **sections: Any) -> Config:
    """A configuration on loopback with ports of the system's choice; `sections` replace whole sections."""
    if bundle is None and "models" not in sections:
        bundle = root / "chest.edgemed"
        if not bundle.exists():
            write_classifier(bundle)
    base: dict[str, Any] = {
        "daemon": {"name": "bedside", "state": root / "state"},
        "http": {"host": "127.0.0.1", "port": 0},
        "models": [{"name": "chest", "bundle": bundle, "runner": "onnxruntime"}],
        "spool": {"reserve": "1MiB", "warn": "2MiB"},
        "trust": {"allow_unsigned": True},
    }
    return Config.model_validate({**base, **sections})


@pytest.fixture
def folder_in_memory() -> Iterator[Path]:
    """The `tmp_path` of a file that says `tmp_path = kit.folder_in_memory`."""
    with in_memory() as folder:
        yield folder


@contextmanager
def resting(config: Config) -> Iterator[Services]:
    """What the parts of a daemon share; no part has started."""
    daemon = Daemon(config)
    try:
        yield daemon._services()
    finally:
        daemon._end()


def arrive(
    services: Services, ds: Dataset, *, inlet: str = "dicom", peer: str = "CT1", called: str = "", association: str = ""
) -> Outcome:
    """An image comes in, as an inlet would bring it."""
    data = encode(ds)
    file = services.intake.new_file()
    file.write_bytes(data)
    made = arrival(file, data, peer, called=called, inlet=inlet, association=association)
    return services.intake.accept(made)


@contextmanager
def running(config: Config) -> Iterator[Daemon]:
    """A daemon in this process."""
    with Daemon(config) as daemon:
        yield daemon
