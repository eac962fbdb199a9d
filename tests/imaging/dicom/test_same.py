"""The same object in another transfer syntax is the same; whatever differs in what it says is not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from edgemed.imaging.dicom.same import same_object
from tests.serve import kit


@pytest.fixture
def image() -> Dataset:
    ds = kit.image(rows=16, columns=16, instance="1.2.3", study="1.2", series="1.2.1")
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-D3000", "SRT", "Chest"
    ds.AnatomicRegionSequence = Sequence([item])
    ds.add_new(0x00091001, "LO", "private")
    ds.add_new(0x00090010, "LO", "ACME")
    return ds


def write(ds: Dataset, path: Path, syntax: str | None = None) -> Path:
    if syntax is not None:
        ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_uncompressed_syntaxes(tmp_path: Path, image: Dataset, syntax: str) -> None:
    one = write(image, tmp_path / "one")
    assert same_object(one, write(image, tmp_path / "other", syntax))


@pytest.mark.skipif(shutil.which("dcmconv") is None, reason="needs DCMTK (Debian: dcmtk)")
@pytest.mark.parametrize(
    "command",
    [
        ["dcmconv", "+g"],  # group lengths
        ["dcmconv", "+e"],  # sequences of explicit length
        ["dcmconv", "-e"],
        ["dcmconv", "+p", "512", "512"],  # data set trailing padding
        ["dcmconv", "+tb"],  # big endian
        ["dcmcrle"],
        ["dcmcjpls", "+un"],
    ],
    ids=" ".join,
)
def test_as_dcmtk_writes_it(tmp_path: Path, image: Dataset, command: list[str]) -> None:
    one, other = write(image, tmp_path / "one"), tmp_path / "other"
    subprocess.run([*command, one, other], check=True)
    assert one.read_bytes() != other.read_bytes()
    assert same_object(one, other)
    assert same_object(other, one)


def change(ds: Dataset, name: str) -> None:
    if name == "a pixel":
        pixels = np.frombuffer(ds.PixelData, np.uint8).copy()
        pixels[100] ^= 1
        ds.PixelData = pixels.tobytes()
    elif name == "a text":
        ds.PatientID = "4712"
    elif name == "a number":
        ds.InstanceNumber = 2
    elif name == "a binary value":
        ds.HighBit, ds.BitsStored = 6, 7
    elif name == "an item":
        ds.AnatomicRegionSequence[0].CodeMeaning = "Head"
    elif name == "one more element":
        ds.PatientComments = "more"
    elif name == "what follows the pixels":
        ds.add_new(0x7FE10010, "LO", "ACME")


CHANGES = (
    "a pixel",
    "a text",
    "a number",
    "a binary value",
    "an item",
    "one more element",
    "what follows the pixels",
)


@pytest.mark.parametrize("name", CHANGES)
def test_what_differs_is_not_the_same(tmp_path: Path, image: Dataset, name: str) -> None:
    one = write(image, tmp_path / "one")
    change(image, name)
    assert not same_object(one, write(image, tmp_path / "other", ImplicitVRLittleEndian))


def test_what_cannot_be_read_is_not_the_same(tmp_path: Path, image: Dataset) -> None:
    one = write(image, tmp_path / "one")
    (tmp_path / "cut").write_bytes(one.read_bytes()[:-50])
    (tmp_path / "none").write_bytes(b"none")
    missing: Any = tmp_path / "missing"
    for other in (tmp_path / "cut", tmp_path / "none", missing):
        assert not same_object(one, other)
    assert not same_object(tmp_path / "none", tmp_path / "none")


def test_at_the_door(tmp_path: Path, image: Dataset) -> None:
    from tests.serve.store import disk

    with disk(tmp_path / "state") as store:
        assert store.send(write(image, tmp_path / "one").read_bytes()).verdict == "accepted"
        implicit = write(image, tmp_path / "two", ImplicitVRLittleEndian).read_bytes()
        assert store.send(implicit).verdict == "repeated"
        assert len(list(store.spool.kept())) == 1
        image.PatientID = "4712"
        assert store.send(write(image, tmp_path / "three").read_bytes()).verdict == "conflict"
