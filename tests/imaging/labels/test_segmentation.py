"""Segmentations written by highdicom on real CT slices come back as they were drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.sr.codedict import codes
from pydicom.uid import RLELossless, generate_uid

from edgemed.base.errors import InputError
from edgemed.imaging.dicom import open_dicom
from edgemed.imaging.labels.segmentation import label_map, read_segmentation
from edgemed.imaging.series import read_series

pytestmark = pytest.mark.filterwarnings("ignore")  # highdicom's and pydicom's, of what old slices lack


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four slices of one series, 5 mm apart, from a real one."""
    folder = tmp_path_factory.mktemp("series")
    paths = []
    for index in range(4):
        dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(index)])
        dataset.ImagePositionPatient = [-158.135803, -179.035797, -75.7 + 5 * index]
        dataset.InstanceNumber = index + 1
        paths.append(folder / f"{index}.dcm")
        dataset.save_as(paths[-1])
    return paths


def describe(number: int, label: str) -> Any:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=codes.SCT.Liver if number == 1 else codes.SCT.Spleen,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )


def write_seg(path: Path, sources: list[Path], masks: np.ndarray, kind: str, **more: Any) -> Path:
    seg = hd.seg.Segmentation(
        source_images=[pydicom.dcmread(source) for source in sources],
        pixel_array=masks,
        segmentation_type=kind,
        segment_descriptions=[describe(1, "liver"), describe(2, "spleen")],
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
        **more,
    )
    seg.save_as(path)
    return path


def drawn(images: int = 4) -> np.ndarray:
    """Two segments that overlap in the second image; nothing in the third."""
    masks = np.zeros((images, 128, 128, 2), dtype=bool)
    masks[0, 10:40, 20:50, 0] = True
    masks[1, 10:40, 20:50, 0] = True
    masks[1, 30:60, 40:70, 1] = True
    masks[3, 100:128, 0:3, 1] = True
    return masks


def uids(paths: list[Path]) -> list[str]:
    return [pydicom.dcmread(path).SOPInstanceUID for path in paths]


def test_binary_with_overlap_and_empty_images(series: list[Path], tmp_path: Path) -> None:
    found = read_segmentation(write_seg(tmp_path / "seg.dcm", series, drawn().astype(np.uint8), "BINARY"))
    assert found.kind == "BINARY"
    assert [(s.number, s.label, s.algorithm) for s in found.segments] == [
        (1, "liver", "MANUAL"),
        (2, "spleen", "MANUAL"),
    ]
    liver = found.segments[0].property_type
    assert liver is not None
    assert (liver.value, liver.scheme, liver.meaning) == ("10200004", "SCT", "Liver")
    assert found.sources == set(uids(series))
    masks = found.of_instances(uids(series))
    assert masks.dtype == np.bool_
    assert np.array_equal(masks, drawn())
    order = [3, 1, 0]
    assert np.array_equal(found.of_instances([uids(series)[i] for i in order]), drawn()[order])


def test_fractional(series: list[Path], tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 2)) / 255
    path = write_seg(tmp_path / "seg.dcm", series, values, "FRACTIONAL", transfer_syntax_uid=RLELossless)
    found = read_segmentation(path)
    masks = found.of_instances(uids(series))
    assert masks.dtype == np.float32
    assert np.abs(masks - values).max() < 1e-6  # float32 of n/255


def test_label_maps(series: list[Path], tmp_path: Path) -> None:
    masks = drawn()
    masks[1, ..., 0] &= ~masks[1, ..., 1]
    labels = label_map(masks)
    assert set(np.unique(labels)) == {0, 1, 2}
    found = read_segmentation(write_seg(tmp_path / "seg.dcm", series, labels, "LABELMAP"))
    assert found.kind == "LABELMAP"
    assert [segment.number for segment in found.segments] == [1, 2]
    assert np.array_equal(found.of_instances(uids(series)), masks)


def test_on_a_volume(series: list[Path], tmp_path: Path) -> None:
    """On the whole series, on a part of it, and in the other order of slices."""
    found = read_segmentation(write_seg(tmp_path / "seg.dcm", series, drawn().astype(np.uint8), "BINARY"))
    volume = read_series(series)
    assert volume.geometry is not None
    shape = (4, 128, 128)
    masks = found.on_volume(volume.geometry, shape)
    assert np.array_equal(masks, drawn())
    back = volume.geometry.affine @ np.array([[-1, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    turned = type(volume.geometry)(back, volume.geometry.frame_of_reference)
    assert np.array_equal(found.on_volume(turned, shape), drawn()[::-1])
    part = read_segmentation(write_seg(tmp_path / "part.dcm", series[:2], drawn()[:2].astype(np.uint8), "BINARY"))
    expected = drawn()
    expected[2:] = False
    assert np.array_equal(part.on_volume(volume.geometry, shape), expected)


def test_another_grid_is_refused(series: list[Path], tmp_path: Path) -> None:
    found = read_segmentation(write_seg(tmp_path / "seg.dcm", series, drawn().astype(np.uint8), "BINARY"))
    geometry = read_series(series).geometry
    assert geometry is not None
    for change in ([0.3, 0, 0, 0], [0, 0.02, 0, 0]):
        moved = geometry.affine.copy()
        moved[:, 3] += change
        with pytest.raises(InputError, match="another grid"):
            found.on_volume(type(geometry)(moved, None), (4, 128, 128))
    with pytest.raises(InputError, match="beyond the volume"):
        found.on_volume(geometry, (3, 128, 128))
    with pytest.raises(InputError, match="frame of reference"):
        found.on_volume(type(geometry)(geometry.affine, "1.2.3"), (4, 128, 128))


def test_planes_are_checked_where_geometry_is_given(series: list[Path], tmp_path: Path) -> None:
    found = read_segmentation(write_seg(tmp_path / "seg.dcm", series, drawn().astype(np.uint8), "BINARY"))
    geometries = [open_dicom(path).frame(0).geometry for path in series]
    assert all(geometry is not None for geometry in geometries)
    assert np.array_equal(found.of_instances(uids(series), [g for g in geometries if g]), drawn())
    with pytest.raises(InputError, match="does not lie on the pixels"):
        found.of_instances(uids(series), [g for g in geometries[::-1] if g])


def test_real_file_without_its_images() -> None:
    """It does not say that locations are preserved: without the geometry of the images it is refused."""
    found = read_segmentation(Path(str(get_testdata_file("liver.dcm", download=False))))
    assert found.segments[0].label == "Liver"
    assert len(found.sources) == 3
    with pytest.raises(InputError, match="spatial locations are preserved"):
        found.of_instances(sorted(found.sources))
    opened = open_dicom(found.path)
    planes = {uid: opened.attributes(frames[0]).geometry(None) for uid, frames in found._drawn_on.items()}
    masks = found.of_instances(list(planes), [plane for plane in planes.values() if plane])
    expected = np.stack([opened.frame(i).pixels > 0 for i in range(3)])
    assert masks.shape == (3, 512, 512, 1)
    assert masks.sum() == expected.sum() > 0


def test_frames_of_one_image(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("eCT_Supplemental.dcm", download=False)))
    frames = open_dicom(source).frames
    rows, columns = open_dicom(source).module.rows, open_dicom(source).module.columns
    masks = np.random.default_rng(1).random((frames, rows, columns, 2)) > 0.7
    found = read_segmentation(write_seg(tmp_path / "seg.dcm", [source], masks.astype(np.uint8), "BINARY"))
    uid = pydicom.dcmread(source).SOPInstanceUID
    assert np.array_equal(found.of_frames(uid, [frames - 1, 0]), masks[[frames - 1, 0]])


def test_what_is_no_segmentation_is_refused(series: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no DICOM Segmentation"):
        read_segmentation(series[0])
    path = write_seg(tmp_path / "seg.dcm", series, drawn().astype(np.uint8), "BINARY")
    found = read_segmentation(path)
    with pytest.raises(InputError, match="does not refer"):
        found.of_instances(["1.2.3"])
    dataset = pydicom.dcmread(path)
    del dataset.SegmentSequence
    dataset.save_as(path)
    with pytest.raises(InputError):
        read_segmentation(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError):
        read_segmentation(path)


def test_overlap_is_refused_or_the_last_wins() -> None:
    with pytest.raises(InputError, match="overlap"):
        label_map(drawn())
    labels = label_map(drawn(), overlap="last")
    assert labels[1, 35, 45] == 2
    assert labels[1, 15, 25] == 1
    assert label_map(np.array([[0.5, 0.2], [0.4, 0.4]], np.float32)).tolist() == [1, 0]
