"""Steps that change values, against pydicom's windows and NumPy's statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi, apply_windowing
from pydicom.sequence import Sequence
from recipe.steps_of import plane, run, stack

from edgemed.base.errors import InputError
from edgemed.recipe.image import LookupTable, Window, plain

HOUNSFIELD = np.arange(-2000, 4000, dtype=np.int16).reshape(60, 100)
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
GRAY16 = 65_535  # pydicom scales to the range of the stored bits


def dataset(**elements: object) -> Dataset:
    ds = Dataset()
    ds.BitsStored, ds.PixelRepresentation, ds.PhotometricInterpretation = 16, 0, "MONOCHROME2"
    for name, value in elements.items():
        setattr(ds, name, value)
    return ds


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("center", "width"), [(40, 400), (-600, 1500), (300.5, 7), (0, 1.5), (50, 3000)])
def test_windows_are_pydicoms(function: str, center: float, width: float):
    ds = dataset(WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    with np.errstate(over="ignore"):  # its sigmoid passes through infinity, as ours does
        expected = apply_windowing(HOUNSFIELD.copy(), ds) / GRAY16
    given_ = plane(HOUNSFIELD, "window", center=center, width=width, function=function)
    assert given_.dtype == np.float32
    # both clip exactly; in between we calculate in FP32, whose steps below 1 are 6e-8, in at most 6 operations
    np.testing.assert_allclose(given_, expected, atol=4e-7)
    of_file = replace(plain(HOUNSFIELD), windows=(Window(1, 1), Window(center, width, function)))
    np.testing.assert_array_equal(plane(of_file, "window", file=True, index=1), given_)


def test_a_linear_window_of_width_one_is_a_threshold():
    ds = dataset(WindowCenter=100, WindowWidth=1)
    expected = apply_windowing(HOUNSFIELD.copy(), ds) / GRAY16
    np.testing.assert_array_equal(plane(HOUNSFIELD, "window", center=100, width=1), expected)
    assert set(np.unique(expected)) == {0, 1}


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_voi_tables_are_pydicoms(bits: int):
    rng = np.random.default_rng(bits)
    data = rng.integers(0, 2**bits, 300).astype(np.uint16)
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [300, 50, bits], data.tolist()
    pixels = np.arange(0, 400, dtype=np.uint16).reshape(20, 20)
    expected = apply_voi(pixels, dataset(VOILUTSequence=Sequence([item]))) / (2**bits - 1)
    image = replace(plain(pixels), tables=(LookupTable(50, data, bits),))
    np.testing.assert_allclose(plane(image, "window", file=True), expected, rtol=1.2e-7)  # one division in FP32
    np.testing.assert_array_equal(
        plane(replace(image, pixels=pixels.astype(np.float32)), "window", file=True), plane(image, "window", file=True)
    )


def test_the_files_tables_come_before_its_windows():
    table = LookupTable(0, np.array([0, 255], np.uint8), 8)
    image = replace(plain(np.array([[0, 1]], np.uint8)), tables=(table,), windows=(Window(100, 10),))
    np.testing.assert_array_equal(plane(image, "window", file=True), [[0, 1]])
    np.testing.assert_array_equal(plane(image, "window", file=True, index=1), [[0, 0]])


def test_a_file_without_a_window_is_refused_unless_its_range_may_serve():
    with pytest.raises(InputError, match="no VOI window and no VOI LUT"):
        plane(np.zeros((2, 2), np.uint8), "window", file=True)
    with pytest.raises(InputError, match="only 1 VOI"):
        plane(replace(plain(np.zeros((2, 2), np.uint8)), windows=(Window(1, 2),)), "window", file=True, index=1)
    scaled = plane(np.array([[0, 255]], np.uint8), "window", file=True, otherwise="range")
    np.testing.assert_array_equal(scaled, [[0, 1]])


@given(st.integers(0, 2**32), st.sampled_from([np.uint8, np.int16, np.uint16, np.float32]), st.integers(2, 200))
def test_percentiles_are_numpys(seed: int, dtype: type, count: int):
    pixels = (np.random.default_rng(seed).normal(100, 30, (count, 3))).astype(dtype)
    low, high = np.percentile(pixels.astype(np.float64), (1, 99))
    given_ = plane(pixels, "window", percentiles=[1, 99])
    if high > low:
        # the ends are rounded to FP32: 2^-24 of the largest value, in units of the window
        slack = 4 * np.abs(pixels.astype(np.float64)).max() * 2.0**-24 / (high - low) + 1e-6
        np.testing.assert_allclose(given_, np.clip((pixels.astype(np.float64) - low) / (high - low), 0, 1), atol=slack)
    assert given_.min() >= 0
    assert given_.max() <= 1


def test_padding_does_not_count():
    pixels = np.array([[0, 0, 10, 20, 30]], np.int16)
    image = replace(plain(pixels), valid=np.array([[False, False, True, True, True]]))
    np.testing.assert_array_equal(plane(image, "window", percentiles=[0, 100]), [[0, 0, 0, 0.5, 1]])
    np.testing.assert_array_equal(plane(image, "range"), [[0, 0, 0, 0.5, 1]])
    valid = plane(image, "zscore")[0, 2:]
    np.testing.assert_allclose([valid.mean(), valid.std()], [0, 1], atol=1e-6)  # FP32 of values near 1
    assert plane(image, "zscore", over="image").mean() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("of", "expected"), [("image", [[0, 1]]), ("stored-bits", [[0, 4095 / 4095]]), ("type", [[0, 4095 / 65535]])]
)
def test_ranges(of: str, expected: list[list[float]]):
    image = replace(plain(np.array([[0, 4095]], np.uint16)), stored_range=(0.0, 4095.0))
    np.testing.assert_array_equal(plane(image, "range", of=of), np.float32(expected))


def test_ranges_that_nobody_knows_are_refused():
    floats = np.zeros((2, 2), np.float32)
    with pytest.raises(InputError, match="range of its stored bits"):
        plane(floats, "range", of="stored-bits")
    with pytest.raises(InputError, match="float32 have no range"):
        plane(floats, "range", of="type")


@pytest.mark.parametrize("op", ["range", "zscore"])
def test_an_image_of_one_value_becomes_nought(op: str):
    for value in (0, 7, 65_535):
        assert (plane(np.full((5, 5), value, np.uint16), op) == 0).all()
    assert (plane(np.full((5, 5), 1e7 / 3, np.float32), op) == 0).all()


def test_zscore_of_what_is_not_nought_leaves_noughts():
    pixels = np.array([[0, 0, 2, 4]], np.int16)
    np.testing.assert_array_equal(plane(pixels, "zscore", over="nonzero"), [[0, 0, -1, 1]])
    assert (plane(np.zeros((3, 3), np.int16), "zscore", over="nonzero") == 0).all()


def test_zscore_with_given_moments_is_per_channel():
    color = np.full((2, 2, 3), 10, np.uint8)
    np.testing.assert_array_equal(plane(color, "zscore", mean=[10, 8, 6], std=[1, 2, 4])[0, 0], [0, 1, 1])
    with pytest.raises(InputError, match="2 values for 3 channels"):
        plane(color, "zscore", mean=[1, 2], std=[1, 2])


def test_simple_steps_are_their_formulas():
    pixels = np.array([[-5, 0, 3, 9]], np.int16)
    np.testing.assert_array_equal(plane(pixels, "clip", low=0, high=4), [[0, 0, 3, 4]])
    np.testing.assert_array_equal(plane(pixels, "clip", low=0), [[0, 0, 3, 9]])
    np.testing.assert_array_equal(plane(pixels, "invert", low=0, high=10), [[15, 10, 7, 1]])
    np.testing.assert_array_equal(plane(pixels, "scale", offset=1, divisor=2), [[-3, -0.5, 1, 4]])
    np.testing.assert_array_equal(plane(np.array([[0, 0.25, 1]], np.float32), "gamma", gamma=0.5), [[0, 0.5, 1]])
    with pytest.raises(InputError, match="negative"):
        plane(pixels, "gamma", gamma=2)


def test_colour_and_gray():
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    color = plane(gray, "rgb")
    np.testing.assert_array_equal(color, np.repeat(gray[..., None], 3, axis=-1))
    np.testing.assert_array_equal(plane(color, "gray"), gray)
    np.testing.assert_array_equal(plane(gray, "gray"), gray)
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 100
    np.testing.assert_allclose(plane(red, "gray"), 29.9, rtol=1e-6)


def test_a_stack_is_worked_on_as_a_whole():
    pixels = np.arange(4 * 300 * 300, dtype=np.int32).reshape(4, 300, 300)  # more than one strip a slice
    result = run(stack(pixels), "range").pixels
    np.testing.assert_allclose(result, pixels / pixels.max(), atol=1e-7)


@pytest.mark.parametrize("limit", [1e300, -1e300])
def test_limits_beyond_single_precision_mean_what_they_say(limit: float):
    pixels = np.array([[0, 100]], np.int16)
    expected = 0 if limit > 0 else 1
    assert (plane(pixels, "window", center=limit, width=10) == expected).all()
