"""Burned-in text is refused, or blanked where a rule says so."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset

from edgemed.base.errors import InputError
from edgemed.imaging.deid.deidentify import deidentify, deidentify_file
from edgemed.imaging.deid.options import Options
from edgemed.imaging.deid.regions import ULTRASOUND_REGIONS, RegionRule, burned_in, load_rules
from edgemed.imaging.dicom import open_dicom

CORNER = RegionRule(blank=((0, 0, 5, 7),))


def real(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert path is not None
    return Path(str(path))


def stored(tmp_path: Path, file: FileDataset) -> Path:
    path = tmp_path / "out.dcm"
    file.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("flag", "modality", "refused"),
    [
        ("YES", "CT", True),
        ("NO", "US", False),
        ("", "US", True),
        ("", "CT", False),
        ("", "", True),
        ("MAYBE", "ES", True),
    ],
)
def test_the_flag_decides_then_the_modality(flag: str, modality: str, refused: bool) -> None:
    dataset = pydicom.dcmread(real("CT_small.dcm"))
    dataset.BurnedInAnnotation, dataset.Modality = flag, modality
    assert (burned_in(dataset) is not None) is refused
    if refused:
        with pytest.raises(InputError, match="burned into"):
            deidentify(dataset)


def test_every_value_of_the_flags_is_heard() -> None:
    dataset = pydicom.dcmread(real("CT_small.dcm"))
    dataset.BurnedInAnnotation = ["NO", "YES"]
    assert burned_in(dataset) is not None
    dataset.BurnedInAnnotation, dataset.ImageType = "", "SCREEN SAVE"
    assert burned_in(dataset) is not None


def test_captures_and_screens_are_suspect() -> None:
    dataset = pydicom.dcmread(real("CT_small.dcm"))
    dataset.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    assert "screen" in str(burned_in(dataset))
    assert "capture" in str(burned_in(pydicom.dcmread(real("SC_rgb_rle.dcm"))))


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",  # signed, little endian
        "MR_small_bigendian.dcm",
        "examples_palette.dcm",
        "examples_ybr_color.dcm",  # 30 frames, RLE, YBR_FULL
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_small_odd.dcm",
        "JPGExtended.dcm",
        "MR_small_RLE.dcm",
        "693_J2KI.dcm",
        "liver.dcm",  # one bit a pixel
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom's, of UIDs of old test files
def test_only_what_the_rule_names_turns_black(name: str, tmp_path: Path) -> None:
    path = real(name)
    rule = RegionRule(blank=((0, 0, 2, 3),)) if "odd" in name else CORNER
    before = open_dicom(path)
    file, report = deidentify_file(path, Options(regions=(rule,)))
    after = open_dicom(stored(tmp_path, file))
    assert "113101" in report.codes
    assert file.BurnedInAnnotation == "NO"
    bottom, right = rule.blank[0][2:]
    for index in range(before.frames):
        was, now = before.frame(index), after.frame(index)
        kept = np.ones(was.pixels.shape[:2], dtype=bool)
        kept[:bottom, :right] = False
        assert np.array_equal(was.pixels[kept], now.pixels[kept]), "untouched pixels changed"
        box = now.pixels[:bottom, :right]
        assert (box == box[0, 0]).all()
        assert box.astype(float).sum(axis=-1).max() <= now.pixels.astype(float)[kept].reshape(-1).max() * box.shape[-1]
        dark = now.pixels[kept].reshape(-1, *now.pixels.shape[2:]).astype(float)
        assert box[0, 0].astype(float).sum() <= dark.sum(axis=-1).min() if dark.ndim > 1 else box[0, 0] <= dark.min()


def test_regions_of_the_device_are_kept(tmp_path: Path) -> None:
    path = real("examples_ybr_color.dcm")
    dataset = pydicom.dcmread(path)
    item = pydicom.Dataset()
    item.RegionLocationMinX0, item.RegionLocationMinY0 = 10, 20
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = 99, 59
    dataset.SequenceOfUltrasoundRegions = [item]
    file, report = deidentify(dataset, Options(regions=(ULTRASOUND_REGIONS,)))
    assert report.pixels.startswith("all outside 1 ultrasound regions")
    now = open_dicom(stored(tmp_path, file)).frame(0).pixels
    was = open_dicom(path).frame(0).pixels
    inside = np.zeros(was.shape[:2], dtype=bool)
    inside[20:60, 10:100] = True
    assert np.array_equal(now[inside], was[inside])
    assert not now[~inside].any()


def test_a_file_without_regions_is_not_passed_by_the_regions_rule() -> None:
    dataset = pydicom.dcmread(real("examples_ybr_color.dcm"))
    if "SequenceOfUltrasoundRegions" in dataset:
        del dataset.SequenceOfUltrasoundRegions
    with pytest.raises(InputError, match="burned"):
        deidentify(dataset, Options(regions=(ULTRASOUND_REGIONS,)))


def test_rules_are_read_and_the_first_match_counts(tmp_path: Path) -> None:
    path = tmp_path / "regions.toml"
    path.write_text(
        '[[region]]\nmodality = "us"\nmanufacturer = "ACME*"\nrows = 480\nblank = [[0, 0, 40, 640]]\n'
        '[[region]]\nmodality = "US"\nkeep = [[40, 0, 480, 640]]\n'
    )
    first, second = load_rules(path)
    dataset = pydicom.Dataset()
    dataset.Modality, dataset.Manufacturer, dataset.Rows, dataset.Columns = "US", "Acme Ultrasound", 480, 640
    assert first.matches(dataset)
    dataset.Rows = 481
    assert not first.matches(dataset)
    assert second.matches(dataset)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[region]]\n",
        "[[region]]\nblank = [[5, 0, 5, 10]]\n",
        "[[region]]\nblank = [[0, 0, 5, 10]]\nultrasound_regions = true\n",
        "[[region]]\nblank = [[0, 0, -1, 10]]\n",
        "[[region]]\nblank = [[0, 0, 1, 10]]\ncolour = 3\n",
    ],
)
def test_rules_that_mean_nothing_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "regions.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"regions\.toml"):
        load_rules(path)


def test_a_rectangle_outside_the_image_is_refused() -> None:
    dataset = pydicom.dcmread(real("CT_small.dcm"))
    with pytest.raises(InputError, match="does not lie in an image of 128x128"):
        deidentify(dataset, Options(regions=(RegionRule(blank=((0, 0, 129, 10),)),)))


def test_overlays_in_the_high_bits_go(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(real("MR_small.dcm"))
    values = np.frombuffer(dataset.PixelData, "<u2") & 0x0FFF
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    dataset.PixelData = (values | 0x1000).tobytes()  # a plane in bit 12
    dataset.add_new(0x60000102, "US", 12)
    dataset.add_new(0x60000010, "US", 64)
    file, report = deidentify(dataset)
    again = pydicom.dcmread(io.BytesIO(stored(tmp_path, file).read_bytes()))
    assert np.array_equal(np.frombuffer(again.PixelData, "<u2"), values)
    assert (0x6000, 0x0102) not in again
    assert "overlays" in report.pixels
