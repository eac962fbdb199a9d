"""Segmentations come back pixel by pixel through our own reader; where there can be none, the report says why."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest

from edgemed.imaging.dicom import open_dicom
from edgemed.imaging.labels.segmentation import read_segmentation
from edgemed.imaging.results.content import Content, ResultFile
from edgemed.imaging.series import read_series
from tests.imaging.make_dicom import write_series
from tests.imaging.results import cases
from tests.serve import kit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def written(folder: Path, file: ResultFile) -> Path:
    path = folder / file.name
    path.write_bytes(file.data)
    return path


def notes(file: ResultFile) -> str:
    report = pydicom.dcmread(io.BytesIO(file.data))
    return " ".join(str(item.value) for item in report.iterall() if item.keyword == "TextValue")


@pytest.mark.parametrize(
    "name", ["RG1_UNCR.dcm", "US1_UNCR.dcm", "CT_small.dcm", "MR2_UNCR.dcm", "examples_palette.dcm"]
)
def test_masks_of_real_images_come_back(name: str, tmp_path: Path) -> None:
    source = cases.real(name)
    module = open_dicom(source).module
    labels = cases.blobs(module.rows, module.columns)
    files = cases.made(cases.content(source, readings=(cases.drawn(labels),)), "seg")
    found = read_segmentation(written(tmp_path, files["seg"]))
    assert [(s.number, s.label, s.algorithm) for s in found.segments] == [
        (1, "class 0", "AUTOMATIC"),
        (2, "class 1", "AUTOMATIC"),
    ]
    liver = found.segments[0].property_type
    assert liver is not None
    assert (liver.value, liver.scheme) == ("10200004", "SCT")
    (uid,) = found.sources
    assert np.array_equal(found.of_instances([uid])[0], np.moveaxis(labels, 0, -1))


def test_nothing_found_is_an_answer(tmp_path: Path) -> None:
    labels = np.zeros((2, 128, 128), bool)
    source = cases.real("CT_small.dcm")
    files = cases.made(cases.content(source, readings=(cases.drawn(labels),)), "seg")
    found = read_segmentation(written(tmp_path, files["seg"]))
    assert len(found.segments) == 2
    assert not found.of_instances(sorted(found.sources)).any()


def test_volumes_come_back_on_their_grid(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 1000, (5, 20, 30)).astype(np.int16)
    paths = write_series(tmp_path / "series", volume, SOPClassUID=kit.CT)
    image = read_series(paths)
    labels = np.random.default_rng(1).random((2, 5, 20, 30)) < 0.2
    labels[:, 2] = False  # an empty slice within
    planes = tuple(
        (min(range(5), key=lambda i: abs(float(pydicom.dcmread(paths[i]).ImagePositionPatient[2]) - z)), 0)
        for z in (100 + 2.5 * np.arange(5))
    )
    said = cases.content(*paths, readings=(cases.drawn(labels, None),), planes=planes)
    found = read_segmentation(written(tmp_path, cases.made(said, "seg")["seg"]))
    assert image.geometry is not None
    assert np.array_equal(found.on_volume(image.geometry, (5, 20, 30)), np.moveaxis(labels, 0, -1))


def test_slices_of_a_series_share_one_file(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "series", np.zeros((3, 16, 16), np.int16), SOPClassUID=kit.CT)
    labels = [cases.blobs(16, 16, shift) for shift in (0, 2, 4)]
    said = cases.content(*paths, readings=tuple(cases.drawn(mask, number) for number, mask in enumerate(labels)))
    found = read_segmentation(written(tmp_path, cases.made(said, "seg")["seg"]))
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in paths]
    assert np.array_equal(found.of_instances(uids), np.moveaxis(np.stack(labels), 1, -1))


def test_frames_of_an_enhanced_image_come_back(tmp_path: Path) -> None:
    source = cases.real("eCT_Supplemental.dcm")
    opened = open_dicom(source)
    labels = cases.blobs(opened.module.rows, opened.module.columns)
    files = cases.made(cases.content(source, readings=(cases.drawn(labels, frame=1),)), "sr", "seg")
    found = read_segmentation(written(tmp_path, files["seg"]))
    (uid,) = found.sources
    masks = found.of_frames(uid, [0, 1])
    assert not masks[0].any()
    assert np.array_equal(masks[1], np.moveaxis(labels, 0, -1))


def damaged(path: Path, sop_class: str, **attributes: object) -> Path:
    image = kit.image(sop_class=sop_class)
    for keyword, value in attributes.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    return kit.write(image, path)


@pytest.mark.parametrize(
    ("sop_class", "attributes", "why"),
    [
        (kit.US_MULTIFRAME, {"NumberOfFrames": 1}, "no place in the patient"),
        (kit.CT, {"FrameOfReferenceUID": None}, "no Frame Of Reference UID"),
        (kit.CT, {"SliceThickness": None}, "thickness of the slice is not known"),
        (kit.US, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6"}, "headers do not allow it"),
    ],
)
def test_what_cannot_be_made_is_said(sop_class: str, attributes: dict[str, object], why: str, tmp_path: Path) -> None:
    source = damaged(tmp_path / "x.dcm", sop_class, **attributes)
    files = cases.made(cases.content(source, readings=(cases.drawn(cases.blobs(64, 64)),)), "sr", "seg")
    assert set(files) == {"sr"}
    assert why in notes(files["sr"])
    assert b"SCOORD" in files["sr"].data, "outlines carry the masks"


def test_masks_of_another_size_are_not_squeezed_in(tmp_path: Path) -> None:
    said: Content = cases.content(cases.real("CT_small.dcm"), readings=(cases.drawn(cases.blobs(64, 64)),))
    files = cases.made(said, "sr", "seg", "sc", "gsps")
    assert set(files) == {"sr", "sc", "gsps"}
    assert "another size" in notes(files["sr"])
    assert b"SCOORD" not in files["sr"].data


@pytest.mark.parametrize("part", ["KNEE", "CHEST", ""])
def test_the_body_part_is_that_of_the_image(part: str, tmp_path: Path) -> None:
    image = kit.image(rows=32, columns=24, position=0.0, BodyPartExamined=part, Laterality="L")
    path = kit.write(image, tmp_path / "image.dcm")
    files = cases.made(cases.content(path, readings=(cases.drawn(cases.blobs(32, 24)),)), "seg")
    cases.assert_valid(tmp_path, files)
    opened = pydicom.dcmread(io.BytesIO(files["seg"].data))
    assert opened.get("BodyPartExamined", "") == part
    assert "Laterality" not in opened
