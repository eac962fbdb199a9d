"""Random small files against a plain model of what DICOM says their pixels mean, in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.imaging.dicom import open_dicom
from tests.imaging.dicom.writing import BIG, DEFLATED, EXPLICIT, IMPLICIT, RLE, dataset, packed, save

EXAMPLES = settings(max_examples=120)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that every example overwrites."""
    return tmp_path_factory.mktemp("model") / "image.dcm"


@st.composite
def gray_files(draw: st.DrawFn) -> dict[str, Any]:
    allocated = draw(st.sampled_from([8, 16, 32]))
    stored = draw(st.integers(1, allocated))
    high = draw(st.integers(stored - 1, allocated - 1))
    signed = draw(st.booleans()) and stored > 1
    low = -(1 << stored - 1) if signed else 0
    rows, columns, frames = draw(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)))
    values = draw(
        st.lists(
            st.integers(low, low + (1 << stored) - 1),
            min_size=rows * columns * frames,
            max_size=rows * columns * frames,
        )
    )
    whole = draw(st.booleans())
    slope = draw(st.integers(-3, 3).filter(bool)) if whole else draw(st.sampled_from([0.5, -0.25, 1.0625, 3.774114]))
    return {
        "allocated": allocated,
        "stored": stored,
        "high": high,
        "signed": signed,
        "shape": (frames, rows, columns),
        "values": values,
        "slope": slope,
        "intercept": draw(st.sampled_from([0, -1024, 1, 1000]))
        if whole
        else draw(st.sampled_from([0, -1024.5, 0.125])),
        "photometric": draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])),
        "syntax": draw(st.sampled_from([EXPLICIT, IMPLICIT, BIG, DEFLATED])),
        "junk": draw(st.integers(0, (1 << allocated) - 1)),
        "padding": draw(st.none() | st.sampled_from(values)),
    }


@EXAMPLES
@given(case=gray_files())
def test_gray_values_are_what_the_header_says(case: dict[str, Any], target: Path):
    write_gray(case, target)
    image = open_dicom(target).image()
    stored = np.array(case["values"], object).reshape(case["shape"])
    expected = _model(case, stored)
    pixels = image.pixels if image.stacked else image.pixels[None]
    valid = np.ones(case["shape"], bool)
    if image.valid is not None:
        valid = image.valid if image.stacked else image.valid[None]
    if case["padding"] is None:
        assert image.valid is None
    else:
        np.testing.assert_array_equal(valid, stored != case["padding"])
    exact = Fraction(case["slope"]).denominator == 1 and Fraction(case["intercept"]).denominator == 1
    assert (pixels.dtype.kind in "iu") == exact
    largest = max(abs(Fraction(case["slope"]) * end) + abs(Fraction(case["intercept"])) for end in _ends(case))
    # exact where numbers are whole; else float32 rounds slope, product, sum and, of MONOCHROME1, the difference
    tolerance = 0 if exact else 4 * float(np.spacing(np.float32(2 * largest)))
    for got, want, real in zip(pixels.ravel(), expected.ravel(), valid.ravel(), strict=True):
        assert not real or abs(Fraction(float(got)) - want) <= tolerance
    if not valid.all() and valid.any() and not image.stacked:
        assert (pixels[~valid] == pixels[valid].min()).all()
    assert image.stored_range is not None
    low, high = image.stored_range
    ends = sorted(Fraction(case["slope"]) * end + Fraction(case["intercept"]) for end in _ends(case))
    assert (low, high) == pytest.approx((float(ends[0]), float(ends[1])), rel=1e-15)  # float64, computed once


def write_gray(case: dict[str, Any], path: Path) -> None:
    order = ">" if case["syntax"] == BIG else "<"
    layout = {name: case[name] for name in ("allocated", "stored", "high", "junk")}
    data = packed(np.array(case["values"], object), **layout, order=order)
    frames, rows, columns = case["shape"]
    made = dataset(
        Rows=rows,
        Columns=columns,
        NumberOfFrames=frames,
        BitsAllocated=case["allocated"],
        BitsStored=case["stored"],
        HighBit=case["high"],
        PixelRepresentation=int(case["signed"]),
        PhotometricInterpretation=case["photometric"],
        RescaleSlope=str(case["slope"]),
        RescaleIntercept=str(case["intercept"]),
        PixelData=data + bytes(len(data) % 2),
    )
    if case["padding"] is not None:
        # US and SS have 16 bits: of wider pixels only what fits can be named
        if not -(1 << 15) <= case["padding"] < 1 << 15 or case["allocated"] > 16:
            case["padding"] = None
        else:
            made.add_new("PixelPaddingValue", "SS" if case["signed"] else "US", case["padding"])
    save(made, path, case["syntax"])


def _ends(case: dict[str, Any]) -> tuple[int, int]:
    low = -(1 << case["stored"] - 1) if case["signed"] else 0
    return low, low + (1 << case["stored"]) - 1


def _model(case: dict[str, Any], stored: np.ndarray) -> np.ndarray:
    slope, intercept = Fraction(case["slope"]), Fraction(case["intercept"])
    values = stored * slope + intercept
    if case["photometric"] == "MONOCHROME2":
        return values
    return sum(end * slope + intercept for end in _ends(case)) - values


@EXAMPLES
@given(data=st.data())
def test_colours_are_what_the_header_says(data: st.DataObject, target: Path):
    allocated = data.draw(st.sampled_from([8, 16]))
    stored = data.draw(st.integers(8, allocated))
    rows, columns, frames = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)))
    shape = (frames, rows, columns, 3)
    values = np.array(
        data.draw(
            st.lists(st.integers(0, (1 << stored) - 1), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
        )
    ).reshape(shape)
    photometric = data.draw(st.sampled_from(["RGB", "YBR_FULL"]))
    planar = data.draw(st.booleans())
    syntax = data.draw(st.sampled_from([EXPLICIT, IMPLICIT, BIG]))
    ordered = values.transpose(0, 3, 1, 2) if planar else values
    layout = {"allocated": allocated, "stored": stored, "high": stored - 1, "junk": 0}
    flat = packed(ordered.ravel(), **layout, order=">" if syntax == BIG else "<")
    made = dataset(
        Rows=rows,
        Columns=columns,
        NumberOfFrames=frames,
        SamplesPerPixel=3,
        PlanarConfiguration=int(planar),
        PhotometricInterpretation=photometric,
        BitsAllocated=allocated,
        BitsStored=stored,
        HighBit=stored - 1,
        PixelData=flat + bytes(len(flat) % 2),
    )
    image = open_dicom(save(made, target, syntax)).image()
    got = image.pixels if image.stacked else image.pixels[None]
    bytes8 = values >> (stored - 8)
    expected = bytes8 if photometric == "RGB" else rgb_of(bytes8)
    assert got.dtype == np.uint8
    # 2 ** -16 of fixed point turns a rounding the other way where the exact value lies at a half
    tolerance = 0.5 + (0 if photometric == "RGB" else 0.01)
    assert np.abs(got - expected).max() <= tolerance


def rgb_of(ybr: np.ndarray) -> np.ndarray:
    """Exact inverse of PS3.3 C.7.6.3.1.2, not rounded."""
    forward = np.array([[0.2990, 0.5870, 0.1140], [-0.1687, -0.3313, 0.5000], [0.5000, -0.4187, -0.0813]])
    y, cb, cr = np.moveaxis(ybr.astype(np.float64), -1, 0)
    r = y + 1.402 * (cr - 128)
    b = y + 1.772 * (cb - 128)
    g = (y - forward[0, 0] * r - forward[0, 2] * b) / forward[0, 1]
    return np.clip(np.stack([r, g, b], axis=-1), 0, 255)


@EXAMPLES
@given(data=st.data())
def test_one_bit_frames_follow_without_a_gap(data: st.DataObject, target: Path):
    rows, columns, frames = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4)))
    bits = np.array(
        data.draw(st.lists(st.integers(0, 1), min_size=rows * columns * frames, max_size=rows * columns * frames))
    )
    flat = np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()
    made = dataset(
        Rows=rows,
        Columns=columns,
        NumberOfFrames=frames,
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        PixelData=flat + bytes(len(flat) % 2),
    )
    opened = open_dicom(save(made, target))
    for index in range(frames):
        np.testing.assert_array_equal(opened.frame(index).pixels, bits.reshape(frames, rows, columns)[index])


@EXAMPLES
@given(data=st.data())
def test_rle_by_pydicoms_encoder(data: st.DataObject, target: Path):
    allocated = data.draw(st.sampled_from([8, 16, 32]))
    samples = data.draw(st.sampled_from([1, 3]))
    rows, columns = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    dtype = f"u{allocated // 8}"
    count = rows * columns * samples
    flat = np.array(data.draw(st.lists(st.integers(0, (1 << allocated) - 1), min_size=count, max_size=count)), dtype)
    made = dataset(
        Rows=rows,
        Columns=columns,
        SamplesPerPixel=samples,
        PhotometricInterpretation="RGB" if samples == 3 else "MONOCHROME2",
        PlanarConfiguration=0 if samples == 3 else None,
        BitsAllocated=allocated,
        BitsStored=allocated,
        HighBit=allocated - 1,
    )
    made.PixelData = flat.tobytes() + bytes(flat.nbytes % 2)
    made.compress(RLE, flat.reshape(rows, columns, *([3] if samples == 3 else [])), generate_instance_uid=False)
    made.save_as(target, enforce_file_format=True)
    pixels = open_dicom(target).frame(0).pixels
    expected = flat if samples == 1 else flat >> (allocated - 8)
    np.testing.assert_array_equal(pixels.ravel(), expected)
