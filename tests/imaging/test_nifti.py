"""NIfTI volumes keep their place in the patient, and hostile ones are refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from edgemed.base.errors import InputError
from edgemed.imaging.nifti import read_nifti, without_words
from edgemed.recipe.orient import axis_codes

RAS = np.array([[2.0, 0, 0, -30], [0, 3, 0, -40], [0, 0, 4, -50], [0, 0, 0, 1]])


def write(path: Path, array: np.ndarray, affine: np.ndarray | None = RAS) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def test_axes_become_slices_rows_columns_with_an_affine_in_lps(tmp_path: Path):
    array = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)  # x, y, z
    image = read_nifti(write(tmp_path / "a.nii.gz", array))
    assert image.pixels.shape == (4, 3, 2)
    assert image.pixels[3, 1, 0] == array[0, 1, 3]
    assert image.geometry is not None
    np.testing.assert_allclose(image.geometry.affine @ [3, 1, 0, 1], [30, 40 - 3, -50 + 12, 1])  # RAS to LPS: x, y turn
    assert axis_codes(image.geometry.affine) == "SAR"
    assert image.facts.spacing == (3, 2)
    assert image.facts.slice_spacing == 4
    assert image.pixels.dtype == np.int16


def test_values_are_those_of_slope_and_intercept(tmp_path: Path):
    path = tmp_path / "a.nii"
    image = nibabel.Nifti1Image(np.linspace(-1, 1, 24).reshape(2, 3, 4), RAS)
    image.header.set_data_dtype(np.int16)  # nibabel chooses slope and intercept
    nibabel.save(image, path)
    read = read_nifti(path)
    assert read.pixels.dtype == np.float32
    np.testing.assert_allclose(read.pixels.transpose(2, 1, 0), nibabel.load(path).get_fdata(), rtol=1e-6)


def test_big_endian_and_wide_integers(tmp_path: Path):
    array = np.arange(8, dtype=">i2").reshape(2, 2, 2)
    nibabel.save(nibabel.Nifti1Image(array, RAS, nibabel.Nifti1Header(endianness=">")), tmp_path / "a.nii")
    pixels = read_nifti(tmp_path / "a.nii").pixels
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels.transpose(2, 1, 0), array)


def test_nan_is_padding(tmp_path: Path):
    array = np.ones((2, 2, 2), np.float32)
    array[0, 0, 0], array[1, 1, 1] = np.nan, -5
    image = read_nifti(write(tmp_path / "a.nii", array))
    assert image.valid is not None
    assert not image.valid[0, 0, 0]
    assert image.pixels[0, 0, 0] == -5


def test_without_codes_there_is_spacing_but_no_direction(tmp_path: Path):
    path = write(tmp_path / "a.nii", np.zeros((2, 2, 2), np.int16), None)
    assert read_nifti(path).geometry is None


def test_one_volume_with_a_time_axis_of_one_is_taken(tmp_path: Path):
    assert read_nifti(write(tmp_path / "a.nii", np.zeros((2, 3, 4, 1), np.uint8))).pixels.shape == (4, 3, 2)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2, 3), np.int16), "has the shape 2×2×2×3, not that of one volume"),
        (np.zeros((2, 2), np.int16), "not that of one volume"),
        (np.zeros((2, 2, 2), np.complex64), "holds complex64"),
        (np.full((2, 2, 2), np.inf, np.float32), "infinite values"),
        (np.full((2, 2, 2), np.nan, np.float32), "nothing but NaN"),
    ],
)
def test_what_is_no_gray_volume_is_refused(tmp_path: Path, array: np.ndarray, message: str):
    with pytest.raises(InputError, match=message):
        read_nifti(write(tmp_path / "a.nii", array))


def test_a_lying_header_allocates_nothing(tmp_path: Path):
    path = write(tmp_path / "a.nii", np.zeros((2, 2, 2), np.int16))
    data = bytearray(path.read_bytes())
    data[42:48] = np.array([32000, 32000, 32000], "<i2").tobytes()  # dim[1..3]
    path.write_bytes(data)
    with pytest.raises(InputError, match="GB of voxels"):
        read_nifti(path)


@pytest.mark.parametrize("keep", [0, 10, 347, 352, 360])
def test_truncated_files_are_refused(tmp_path: Path, keep: int):
    whole = write(tmp_path / "a.nii", np.arange(64, dtype=np.int16).reshape(4, 4, 4)).read_bytes()
    (tmp_path / "b.nii").write_bytes(whole[:keep])
    with pytest.raises(InputError):
        read_nifti(tmp_path / "b.nii")
    packed = gzip.compress(whole)
    (tmp_path / "c.nii.gz").write_bytes(packed[: keep * len(packed) // len(whole)])
    with pytest.raises(InputError):
        read_nifti(tmp_path / "c.nii.gz")


def test_something_else_by_that_name_is_refused(tmp_path: Path):
    (tmp_path / "a.nii").write_bytes(b"PK\x03\x04" + bytes(1000))
    with pytest.raises(InputError, match=r"not a NIfTI file|damaged"):
        read_nifti(tmp_path / "a.nii")


def test_spacing_is_that_of_the_affine_in_millimetres(tmp_path: Path):
    """pixdim may say something else, and units need not be mm."""
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), RAS)
    image.header["pixdim"][1:4] = 1, 1, 1
    nibabel.save(image, tmp_path / "a.nii")
    read = read_nifti(tmp_path / "a.nii")
    assert read.facts.spacing == pytest.approx((3, 2))
    assert read.facts.slice_spacing == pytest.approx(4)
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "b.nii")
    read = read_nifti(tmp_path / "b.nii")
    assert read.facts.spacing == pytest.approx((0.003, 0.002))
    assert read.geometry is not None
    np.testing.assert_allclose(read.geometry.affine[:3, 3], [0.030, 0.040, -0.050], rtol=1e-6)


def written_anew(path: Path) -> Path:
    path.with_suffix(".anew.nii").write_bytes(without_words(path))
    return path.with_suffix(".anew.nii")


def test_written_anew_without_codes_no_direction_is_made_up(tmp_path: Path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), None)
    image.header.set_zooms((1, 1.5, 2))
    nibabel.save(image, tmp_path / "a.nii")
    read = read_nifti(written_anew(tmp_path / "a.nii"))
    assert read.geometry is None
    assert (read.facts.spacing, read.facts.slice_spacing) == ((1.5, 1), 2)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 4)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_written_anew_codes_and_affine_stay_and_words_go(tmp_path: Path, codes: tuple[int, int], kind: type):
    image = kind(np.arange(24, dtype=np.int16).reshape(2, 3, 4), RAS)
    image.set_sform(RAS, codes[0])
    image.set_qform(RAS, codes[1])
    image.header["descrip"] = b"Miller^Jane"
    nibabel.save(image, tmp_path / "a.nii")
    made = written_anew(tmp_path / "a.nii")
    header = nibabel.load(made).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == codes
    was, now = read_nifti(tmp_path / "a.nii"), read_nifti(made)
    assert was.geometry is not None
    assert now.geometry is not None
    np.testing.assert_allclose(now.geometry.affine, was.geometry.affine, atol=1e-5)  # float32 fields, at most 50
    np.testing.assert_array_equal(now.pixels, was.pixels)
    assert b"Miller" not in made.read_bytes()


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_written_anew_wide_integers_become_int32_or_are_refused(tmp_path: Path, dtype: type):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(array, RAS, dtype=dtype), tmp_path / "a.nii")
    made = nibabel.load(written_anew(tmp_path / "a.nii"))
    assert made.get_data_dtype() == np.int32
    np.testing.assert_array_equal(np.asanyarray(made.dataobj), array)
    array[0, 0, 0] = 2**31
    nibabel.save(nibabel.Nifti1Image(array, RAS, dtype=dtype), tmp_path / "b.nii")
    with pytest.raises(InputError, match="64 bits"):
        without_words(tmp_path / "b.nii")
