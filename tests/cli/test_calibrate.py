"""`edgemed calibrate` as a process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom
import pytest
from calibrate.test_assemble import write_ct
from cli.test_main import run
from pydicom.data import get_testdata_file


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two patients, one image that may not pass, one that is no image."""
    for number, patient in enumerate(("Adam", "Berta")):
        write_ct(tmp_path / "scans" / f"{patient}.dcm", patient, number)
    write_ct(tmp_path / "scans" / "screen.dcm", "Adam", 7, ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    (tmp_path / "scans" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "scans"


def test_a_set_is_made_and_summed_up(scans: Path) -> None:
    done = run("calibrate", scans, "--seed", 3, cwd=scans.parent)
    assert done.returncode == 0, done.stderr
    assert "calibration  2 images of 2 patients, 4 offered" in done.stdout
    assert "burned-in text" in done.stdout
    assert "unreadable" in done.stdout
    assert "store" in done.stderr
    assert "Adam" not in done.stdout + done.stderr
    assert len(list((scans.parent / "calibration").glob("*.dcm"))) == 2


def test_json_is_one_document(scans: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[region]]\nmodality = "CT"\nblank = [[0, 0, 8, 128]]\n')
    done = run("calibrate", scans, "--json", "--output", tmp_path / "set", "--regions", rules, "--dates", "shift")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["manifest"]["images"]) == 3
    assert document["deid"]["files"][0]["codes"] == ["113100", "113101", "113107"]
    assert [one["kind"] for one in document["refused"]] == ["unreadable"]


def test_ultrasound_needs_a_rule(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("examples_ybr_color.dcm", download=False)))
    item = pydicom.Dataset()
    item.RegionLocationMinX0, item.RegionLocationMinY0 = 50, 60
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = 250, 200
    dataset.SequenceOfUltrasoundRegions = [item]
    dataset.save_as(tmp_path / "us.dcm")
    refused = run("calibrate", tmp_path / "us.dcm", cwd=tmp_path)
    assert refused.returncode == 2
    assert "burned" in refused.stderr
    done = run("calibrate", tmp_path / "us.dcm", "--regions", "ultrasound", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [[], ["a", "--labels", "b.csv"], ["a", "--count", "0"], ["a", "--dates", "all"]])
def test_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    done = run("calibrate", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""


def test_labels(tmp_path: Path) -> None:
    for number in range(4):
        PIL.Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(4)))
    done = run("calibrate", "--labels", tmp_path / "labels.csv", "--output", tmp_path / "set", "--json")
    assert done.returncode == 0, done.stderr
    images = json.loads((tmp_path / "set" / "calibration.json").read_text())["images"]
    assert sorted(image["labels"][0] for image in images) == ["a", "a", "b", "b"]
