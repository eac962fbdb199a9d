"""Filters against TensorFlow, scikit-image, Pillow and exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pil
from recipe.steps_of import plane, run, stack
from skimage.transform import resize_local_mean

from edgemed.base.errors import InputError
from edgemed.recipe.operations.resample import nearest, resample

FILTERS = ("antialias", "nearest", "bilinear", "bicubic", "lanczos", "area")
SIDES = st.integers(1, 30)
RNG = np.random.default_rng(4)


def noise(*shape: int) -> np.ndarray:
    return RNG.random(shape, dtype=np.float32)


@given(SIDES, SIDES, SIDES, SIDES)
def test_area_is_skimages(rows: int, columns: int, new_rows: int, new_columns: int):
    pixels = noise(rows, columns)
    expected = resize_local_mean(pixels.astype(np.float64), (new_rows, new_columns))
    given_ = plane(pixels, "resize", size=[new_rows, new_columns], filter="area")
    np.testing.assert_allclose(given_, expected, atol=2e-6)  # up to 30 values of at most 1 are added twice in FP32


def test_area_with_whole_factors_is_the_mean_of_blocks():
    pixels = RNG.integers(0, 65_536, (1200, 600), dtype=np.uint16)
    expected = pixels.reshape(300, 4, 200, 3).mean(axis=(1, 3))
    given_ = plane(pixels, "resize", size=[300, 200], filter="area")
    np.testing.assert_allclose(given_, expected, rtol=2.4e-7)  # sums are below 2^24, so exact: only the division rounds
    color = noise(12, 12, 3)
    by_channel = [plane(color[..., c], "resize", size=[4, 6], filter="area") for c in range(3)]
    np.testing.assert_array_equal(plane(color, "resize", size=[4, 6], filter="area"), np.stack(by_channel, -1))


@given(SIDES, SIDES)
def test_nearest_is_exact_arithmetic(have: int, want: int):
    expected = [int((Fraction(2 * i + 1, 2) * have) / want) for i in range(want)]
    given_ = nearest(np.arange(have)[None, None], (1, 1, want))
    np.testing.assert_array_equal(given_[0, 0], expected)


@pytest.mark.parametrize(("how", "method"), [("antialias", "BILINEAR"), ("bicubic", "BICUBIC"), ("lanczos", "LANCZOS")])
def test_widened_filters_are_pillows(how: str, method: str):
    for shape, size in (
        ((40, 31), (9, 17)),
        ((1200, 1030), (400, 300)),
        ((1500, 800), (1500, 300)),
        ((1100, 1000), (70, 80)),
    ):
        pixels = noise(*shape)
        expected = np.asarray(Pil.fromarray(pixels).resize(size[::-1], Pil.Resampling[method]))
        np.testing.assert_array_equal(plane(pixels, "resize", size=size, filter=how), expected)


@pytest.mark.parametrize("how", FILTERS)
@given(SIDES, SIDES, st.integers(0, 65_535))
def test_constants_stay(how: str, rows: int, columns: int, value: int):
    given_ = plane(np.full((7, 5), value, np.uint16), "resize", size=[rows, columns], filter=how)
    np.testing.assert_allclose(given_, value, rtol=1e-6)  # the weights sum to 1 within FP32


@pytest.mark.parametrize("how", FILTERS)
def test_the_middle_of_the_image_stays_in_the_middle(how: str):
    """Half-pixel centres: a symmetric image stays symmetric, and a ramp keeps its mean."""
    half = noise(16, 8)
    symmetric = np.concatenate([half, half[:, ::-1]], axis=1)
    given_ = plane(symmetric, "resize", size=[16, 6 if how != "nearest" else 8], filter=how)
    if how != "nearest":  # which of two equally near pixels is nearest has to be decided
        np.testing.assert_allclose(given_, given_[:, ::-1], atol=1e-6)


@pytest.mark.parametrize("how", FILTERS)
def test_a_volume_is_resampled_slice_by_slice_and_along_its_slices(how: str):
    volume = noise(6, 8, 10)
    by_slice = run(stack(volume), "resize", size=[4, 5], filter=how).pixels
    for index, piece in enumerate(volume):
        np.testing.assert_array_equal(by_slice[index], plane(piece, "resize", size=[4, 5], filter=how))
    along = run(stack(volume), "resize", size=[3, 8, 10], filter=how).pixels
    turned = plane(volume[:, :, 2], "resize", size=[3, 8], filter=how)
    np.testing.assert_array_equal(along[:, :, 2], turned)


def test_what_would_be_too_large_is_refused_before_it_is_made():
    for shape in ((1, 65_537, 1), (1, 65_536, 65_536), (65_536, 256, 256)):
        with pytest.raises(InputError, match="more than allowed"):
            resample(np.zeros((1, 2, 2), np.uint8), shape, "nearest")


def test_tensorflow_gives_the_same_bilinear_and_nearest():
    tensorflow = pytest.importorskip("tensorflow")
    for rows, columns in ((5, 3), (17, 40), (8, 8), (23, 11)):
        pixels = noise(17, 11, 3)
        for how in ("bilinear", "nearest"):
            expected = tensorflow.image.resize(pixels, (rows, columns), method=how).numpy()
            given_ = plane(pixels, "resize", size=[rows, columns], filter=how)
            # TensorFlow keeps its coordinates in FP32: up to 20 pixels, so weights differ by up to 2e-6
            np.testing.assert_allclose(given_, expected, atol=4e-6 if how == "bilinear" else 0)
        layer = tensorflow.keras.layers.Resizing(rows, columns)(pixels[None]).numpy()[0]
        np.testing.assert_allclose(plane(pixels, "resize", size=[rows, columns], filter="bilinear"), layer, atol=4e-6)


def test_types_are_kept_where_nothing_is_calculated():
    pixels = np.arange(16, dtype=np.int16).reshape(4, 4)
    assert plane(pixels, "resize", size=[2, 2], filter="nearest").dtype == np.int16
    assert plane(pixels, "resize", size=[2, 2], filter="area").dtype == np.float32
    assert np.may_share_memory(plane(pixels, "resize", size=[4, 4]), pixels)
