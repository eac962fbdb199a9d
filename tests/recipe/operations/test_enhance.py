"""Contrast and noise: what the libraries give, slice by slice, and what they must not be given."""

from __future__ import annotations

import numpy as np
import pytest
from recipe.steps_of import plane, run, stack
from scipy import ndimage
from skimage.exposure import equalize_adapthist

from edgemed.base.errors import InputError

RNG = np.random.default_rng(5)
PIXELS = RNG.random((40, 50), dtype=np.float32)
COLOR = RNG.random((24, 24, 3), dtype=np.float32)
SETTINGS = {
    "clahe": {"kernel": [8, 8], "clip_limit": 0.02},
    "gaussian": {"sigma": 1.5},
    "median": {"size": 3},
    "nlmeans": {"h": 0.1, "patch": 3, "distance": 4},
}


@pytest.mark.parametrize("op", SETTINGS)
def test_each_slice_stands_alone(op: str):
    volume = RNG.random((3, 20, 24), dtype=np.float32)
    result = run(stack(volume), op, **SETTINGS[op]).pixels
    assert result.dtype == np.float32
    for index, piece in enumerate(volume):
        np.testing.assert_array_equal(result[index], plane(piece, op, **SETTINGS[op]))


@pytest.mark.parametrize("op", SETTINGS)
def test_colour_stays_colour(op: str):
    assert plane(COLOR, op, **SETTINGS[op]).shape == COLOR.shape


@pytest.mark.parametrize("op", SETTINGS)
def test_a_constant_image_stays(op: str):
    np.testing.assert_allclose(plane(np.full((16, 16), 0.5, np.float32), op, **SETTINGS[op]), 0.5, atol=1e-6)


def test_clahe_is_skimages():
    expected = equalize_adapthist(PIXELS, kernel_size=(8, 8), clip_limit=0.02)
    np.testing.assert_allclose(plane(PIXELS, "clahe", **SETTINGS["clahe"]), expected, atol=1e-6)  # stored as FP32
    assert plane(PIXELS * 0.2 + 0.4, "clahe").std() > (PIXELS * 0.2).std()


@pytest.mark.parametrize("pixels", [np.full((8, 8), 2.0), np.array([[-0.1, 0.5]])])
def test_clahe_takes_the_unit_range_only(pixels: np.ndarray):
    with pytest.raises(InputError, match="0-1"):
        plane(pixels.astype(np.float32), "clahe")


def test_median_and_gaussian_are_scipys():
    np.testing.assert_array_equal(plane(PIXELS, "median", size=5), ndimage.median_filter(PIXELS, 5, mode="nearest"))
    expected = ndimage.gaussian_filter(PIXELS.astype(np.float64), (2, 1), mode="nearest")
    np.testing.assert_allclose(plane(PIXELS, "gaussian", sigma=[2, 1]), expected, atol=1e-6)  # between axes in FP32
    by_channel = plane(COLOR[..., 1], "gaussian", sigma=2)
    np.testing.assert_array_equal(plane(COLOR, "gaussian", sigma=2)[..., 1], by_channel)


def test_smoothing_over_slices_needs_slices():
    volume = np.zeros((5, 8, 8), np.float32)
    volume[2] = 1
    assert run(stack(volume), "gaussian", sigma=[1, 0, 0]).pixels[1].min() > 0
    assert run(stack(volume), "gaussian", sigma=1).pixels[1].max() == 0
    with pytest.raises(InputError, match="over slices"):
        plane(PIXELS, "gaussian", sigma=[1, 1, 1])


def test_noise_becomes_less():
    clean = np.kron(np.array([[0.2, 0.8], [0.8, 0.2]], np.float32), np.ones((20, 20), np.float32))
    noisy = clean + RNG.normal(0, 0.05, clean.shape).astype(np.float32)
    for op, settings in (
        ("nlmeans", {"h": 0.06, "sigma": 0.05}),
        ("median", {"size": 3}),
        ("gaussian", {"sigma": 0.7}),
    ):
        error = np.abs(plane(noisy, op, **settings) - clean).mean()
        assert error < 0.8 * np.abs(noisy - clean).mean()
