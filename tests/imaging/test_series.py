"""A DICOM series becomes a volume in the right order and place, or is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian

from edgemed.base.errors import InputError
from edgemed.imaging import series
from edgemed.imaging.nifti import read_nifti
from edgemed.imaging.series import read_series, series_files
from edgemed.recipe.orient import axis_codes, oriented
from tests.imaging.make_dicom import write_series


def random_volume(slices: int = 6, rows: int = 5, columns: int = 7) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 3000, (slices, rows, columns)).astype(np.int16)


def test_slices_come_in_the_order_of_their_places_in_hounsfield_units(tmp_path: Path):
    volume = random_volume()
    image = read_series(write_series(tmp_path, volume))
    np.testing.assert_array_equal(image.pixels, volume.astype(np.int32) - 1024)
    assert image.pixels.dtype.kind == "i"
    assert image.stacked
    assert (image.facts.frames, image.facts.rows, image.facts.columns) == volume.shape
    assert image.facts.spacing == (0.5, 0.75)
    assert image.facts.slice_spacing == pytest.approx(2.5)
    assert image.facts.modality == "CT"
    assert image.geometry is not None
    np.testing.assert_allclose(image.geometry.affine @ [5, 4, 6, 1], [-20 + 6 * 0.75, -10 + 4 * 0.5, 112.5, 1])
    assert axis_codes(image.geometry.affine) == "SPL"
    assert image.geometry.frame_of_reference == "2.25.3"


def test_the_same_volume_as_nifti_gives_the_same_voxels_at_the_same_places(tmp_path: Path):
    """The two formats differ in axes and handedness; a model must not see that."""
    volume = random_volume()
    series = read_series(write_series(tmp_path / "series", volume))
    assert series.geometry is not None
    affine_ras = np.diag([-1, -1, 1, 1]) @ series.geometry.affine[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti1Image(series.pixels.transpose(2, 1, 0).astype(np.int16), affine_ras), tmp_path / "v.nii")
    nifti = read_nifti(tmp_path / "v.nii")
    for codes in ("SPL", "SAR", "LPS", "IAR"):
        one, other = oriented(series, codes), oriented(nifti, codes)
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert one.geometry is not None
        assert other.geometry is not None
        np.testing.assert_allclose(one.geometry.affine, other.geometry.affine, atol=1e-4)  # NIfTI keeps FP32


def test_rescaling_that_differs_from_slice_to_slice_is_kept(tmp_path: Path):
    """PET slices carry their own slope."""
    volume = random_volume(3)
    paths = write_series(tmp_path, volume)
    for index, path in enumerate(paths):
        found = dcmread(path)
        found.RescaleSlope, found.RescaleIntercept = str(1 + 0.5 * index), "0"
        found.save_as(path)
    image = read_series(paths)
    assert image.pixels.dtype == np.float32
    np.testing.assert_allclose(image.pixels, volume * np.array([1, 1.5, 2])[:, None, None], rtol=1e-6)


def test_padding_is_known_and_holds_the_smallest_valid_value(tmp_path: Path):
    volume = random_volume(3) + np.int16(10)
    volume[1, 0, 0] = volume[2, 1, 1] = -2000
    image = read_series(write_series(tmp_path, volume, PixelPaddingValue=-2000))
    assert image.valid is not None
    assert (~image.valid).sum() == 2
    assert image.pixels[1, 0, 0] == image.pixels[image.valid].min()


def test_an_enhanced_multi_frame_file_is_a_volume_too():
    path = get_testdata_file("eCT_Supplemental.dcm", download=False)
    assert isinstance(path, str), "comes with pydicom-data"
    image, frames = read_series([Path(path)]), dcmread(path)
    groups = frames.PerFrameFunctionalGroupsSequence
    places = [[float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient] for group in groups]
    shared = frames.SharedFunctionalGroupsSequence[0]
    cosines = [float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient]
    order = np.argsort([np.dot(place, np.cross(cosines[:3], cosines[3:])) for place in places])
    values = shared.PixelValueTransformationSequence[0]
    expected = frames.pixel_array[order] * float(values.RescaleSlope) + float(values.RescaleIntercept)
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.geometry is not None
    np.testing.assert_allclose(image.geometry.affine[:3, 3], places[order[0]])
    np.testing.assert_allclose(image.geometry.affine @ [1, 0, 0, 1], [*places[order[1]], 1], atol=1e-6)


def test_frames_without_places_are_no_volume():
    path = get_testdata_file("emri_small.dcm", download=False)  # its functional groups were taken out
    with pytest.raises(InputError, match=r"frame 1 of emri_small\.dcm does not say its position"):
        read_series([Path(str(path))])


def test_folders_give_their_dicom_files_only(tmp_path: Path):
    write_series(tmp_path, random_volume(3))
    (tmp_path / "notes.txt").write_text("no slice")
    (tmp_path / ".hidden").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "link.dcm").symlink_to(tmp_path / "000.dcm")
    assert [path.name for path in series_files(tmp_path)] == ["000.dcm", "001.dcm", "002.dcm"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SeriesInstanceUID": "2.25.9"}, "of another series than"),
        ({"FrameOfReferenceUID": "2.25.9"}, "of another frame of reference than"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "of another SOP class than"),
        ({"ImagePositionPatient": [-20.0, -10.0, 100.0]}, "lie at the same place"),
        ({"ImagePositionPatient": [-20.0, -10.0, 130.0]}, "mm apart, the other slices 2.5 mm"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, "not parallel"),
        ({"PixelSpacing": [1, 1]}, "has pixels of 1×1 mm"),
        ({"ImagePositionPatient": None}, "does not say its position"),
        ({"PixelSpacing": None}, "does not say its spacing"),
    ],
)
def test_what_is_no_volume_is_refused(tmp_path: Path, change: dict[str, object], message: str):
    paths = write_series(tmp_path, random_volume())
    found = dcmread(paths[3])
    for keyword, value in change.items():
        setattr(found, keyword, value)
    if "SOPClassUID" in change:
        found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID
    found.save_as(paths[3])
    with pytest.raises(InputError, match=message):
        read_series(paths)


def test_slices_of_another_size_are_refused(tmp_path: Path):
    paths = write_series(tmp_path, random_volume())
    found = dcmread(paths[2])
    found.Rows, found.PixelData = 3, found.PixelData[: 3 * 7 * 2]
    found.save_as(paths[2])
    with pytest.raises(InputError, match="of another size than"):
        read_series(paths)


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path: Path):
    paths = write_series(tmp_path, random_volume())
    gone = paths.pop(3)
    with pytest.raises(InputError) as caught:
        read_series(paths)
    assert paths[2].name in caught.value.what
    assert paths[3].name in caught.value.what
    assert gone.name not in caught.value.what


def test_one_slice_and_no_slice_are_no_volume(tmp_path: Path):
    (path,) = write_series(tmp_path, random_volume(1))
    with pytest.raises(InputError, match="at least two slices"):
        read_series([path])
    with pytest.raises(InputError, match="no DICOM files"):
        read_series([])


def test_order_of_files_does_not_matter(tmp_path: Path):
    paths = write_series(tmp_path, random_volume())
    shuffled = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    one, other = read_series(paths), read_series(shuffled)
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert one.facts == other.facts


def test_a_copied_slice_is_refused_even_under_another_name(tmp_path: Path):
    paths = write_series(tmp_path, random_volume())
    shutil.copy(paths[0], tmp_path / "copy.dcm")
    with pytest.raises(InputError, match="lie at the same place; 1 slices repeat"):
        read_series(series_files(tmp_path))


@pytest.mark.parametrize("value", ["", None])
def test_files_that_do_not_say_their_series_are_not_joined(tmp_path: Path, value: str | None):
    paths = write_series(tmp_path, random_volume(), SeriesInstanceUID=value)
    with pytest.raises(InputError, match="does not say what series it is of"):
        read_series(paths)


@pytest.mark.parametrize(("keyword", "what"), [("PatientID", "patient"), ("StudyInstanceUID", "study")])
def test_slices_of_two_patients_are_no_volume(tmp_path: Path, keyword: str, what: str):
    paths = write_series(tmp_path, random_volume())
    found = dcmread(paths[3])
    setattr(found, keyword, "2.25.77")
    found.save_as(paths[3])
    with pytest.raises(InputError, match=f"of another {what} than"):
        read_series(paths)


def test_windows_that_differ_are_nobodys_and_the_range_is_that_of_all(tmp_path: Path):
    paths = write_series(tmp_path, random_volume(3), WindowCenter="40", WindowWidth="400")
    assert [(w.center, w.width) for w in read_series(paths).windows] == [(40, 400)]
    for index, path in enumerate(paths):
        found = dcmread(path)
        found.WindowCenter, found.RescaleSlope, found.RescaleIntercept = str(40 + index), str(1 + index), "0"
        found.save_as(path)
    image = read_series(paths)
    assert image.windows == ()
    assert image.stored_range == (-32768 * 3, 32767 * 3)


def deflated_series(folder: Path, *, extra: int) -> list[Path]:
    """A series whose files take `extra` bytes that deflate to almost nothing."""
    paths = write_series(folder, random_volume())
    for path in paths:
        found = dcmread(path)
        found.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        found.add_new(0x00420011, "OB", bytes(extra))  # Encapsulated Document, ahead of the pixels
        found.save_as(path)
    return paths


def test_deflated_files_are_read_and_bounded_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = deflated_series(tmp_path, extra=100_000)
    assert read_series(paths).pixels.shape == random_volume().shape
    monkeypatch.setattr(series, "MAX_HELD_BYTES", 250_000)
    # two files take less; the limit is met at the third, so the one that is no file is not even opened
    with pytest.raises(InputError, match="deflated files of the series take more than 250,000 bytes"):
        read_series([*paths[:3], tmp_path / "none.dcm"])


def test_the_limit_of_voxels_is_met_before_all_files_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    volume = random_volume()
    paths = write_series(tmp_path, volume)
    monkeypatch.setattr(series, "MAX_ARRAY_BYTES", 3 * volume[0].size * 4)
    with pytest.raises(InputError, match="billion voxels"):
        read_series([*paths[:4], tmp_path / "none.dcm"])
