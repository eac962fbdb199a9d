"""The way back from the sample to its source."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from edgemed.recipe.geometry import Transform

START = Transform.identity((1, 20, 40))


def test_points_and_boxes_after_a_resize():
    half = START.resized((1, 10, 20))
    np.testing.assert_array_equal(half.points_to_source(np.array([[0, 0], [9, 19]])), [[0.5, 0.5], [18.5, 38.5]])
    np.testing.assert_array_equal(
        half.boxes_to_source(np.array([[0, 0, 10, 20], [1, 2, 3, 4]])), [[0, 0, 20, 40], [2, 4, 6, 8]]
    )
    turned = half.transposed().flipped(1)
    np.testing.assert_array_equal(turned.boxes_to_source(np.array([[0, 0, 20, 10]])), [[0, 0, 20, 40]])
    np.testing.assert_array_equal(half.points_to_source(np.array([[0, 2, 3]])), [[0, 4.5, 6.5]])


def test_boxes_end_at_the_image():
    padded = START.shifted((0, 5, 0), (1, 30, 40))
    np.testing.assert_array_equal(padded.boxes_to_source(np.array([[0, 0, 30, 50]])), [[0, 0, 20, 40]])


def test_a_coarse_map_covers_the_field_of_view():
    """Networks answer at a fraction of their input's size."""
    coarse = np.array([[[1, 2], [3, 4]]])
    np.testing.assert_array_equal(START.map_to_source(coarse), np.kron(coarse, np.ones((1, 10, 20), int)))


@pytest.mark.parametrize("factor", [(10, 16), (33, 57), (20, 40)])
def test_linear_maps_are_scipys_interpolation(factor: tuple[int, int]):
    values = np.random.default_rng(0).random(factor)
    rows, columns = (((np.arange(n) + 0.5) * m / n - 0.5) for n, m in zip((20, 40), factor, strict=True))
    expected = ndimage.map_coordinates(values, np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest")
    given = START.resized((1, *factor)).map_to_source(values[None], how="linear")
    np.testing.assert_allclose(given[0], expected, atol=3e-7)  # FP32


def test_classes_ride_along_and_what_was_cut_off_is_filled():
    cropped = START.shifted((0, -5, -10), (1, 10, 20))
    values = np.random.default_rng(0).random((1, 10, 20, 3)).astype(np.float32)
    back = cropped.map_to_source(values, how="linear", fill=-1)
    assert back.shape == (1, 20, 40, 3)
    np.testing.assert_array_equal(back[0, 5:15, 10:30], values[0])
    assert (back[0, :5] == -1).all()
    assert (back == -1).sum() == 3 * (800 - 200)


def test_labels_stay_whole():
    labels = np.array([[[0, 7], [7, 0]]], np.uint8)
    back = START.map_to_source(labels)
    assert back.dtype == np.uint8
    assert set(np.unique(back)) == {0, 7}
