"""Turning axes moves voxels and affine together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.image import Facts, Geometry, Image
from edgemed.recipe.orient import axis_codes, oriented, valid_codes
from edgemed.recipe.schema import Recipe

CODES = [
    "".join(letters) for order in itertools.permutations(["LR", "PA", "SI"]) for letters in itertools.product(*order)
]


def volume() -> Image:
    affine = np.array([[0, 0, 0.7, -90], [0, 0.6, 0, -80], [3, 0, 0, 40], [0, 0, 0, 1.0]])  # an axial DICOM series
    pixels = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    return Image(pixels, Facts(rows=3, columns=4, frames=2), geometry=Geometry(affine), stacked=True)


def test_an_axial_series_grows_to_superior_posterior_left():
    assert axis_codes(volume().geometry.affine) == "SPL"


@pytest.mark.parametrize("codes", CODES)
def test_every_voxel_keeps_its_place_in_the_patient(codes: str):
    before, after = volume(), oriented(volume(), codes)
    assert axis_codes(after.geometry.affine) == codes
    assert (after.facts.frames, after.facts.rows, after.facts.columns) == after.pixels.shape
    for index in np.ndindex(after.pixels.shape):
        place = after.geometry.affine @ [*index, 1]
        source = np.linalg.inv(before.geometry.affine) @ place
        assert before.pixels[tuple(np.rint(source[:3]).astype(int))] == after.pixels[index]


def test_spacing_follows_its_axis():
    facts = oriented(volume(), "LSP").facts
    assert facts.slice_spacing == pytest.approx(0.7)
    assert facts.spacing == pytest.approx((3, 0.6))


def test_oblique_axes_are_called_by_the_closest_direction():
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]]
    assert axis_codes(turn @ volume().geometry.affine) == "SPL"


def test_what_has_no_axes_is_refused():
    with pytest.raises(InputError, match="no geometry"):
        oriented(Image(np.zeros((2, 2, 2)), Facts(2, 2, 2), stacked=True), "SPL")
    with pytest.raises(InputError, match="cannot be told apart"), np.errstate(invalid="ignore"):
        axis_codes(np.zeros((4, 4)))


@pytest.mark.parametrize("codes", ["", "SP", "SSL", "SIL", "XPL", "SPLL"])
def test_codes_name_each_axis_once(codes: str):
    assert not valid_codes(codes)


def test_all_forty_eight_orders_are_valid():
    assert len(set(CODES)) == 48
    assert all(map(valid_codes, CODES))


@pytest.mark.parametrize("codes", CODES)
def test_what_a_model_draws_comes_back_onto_the_voxels_of_the_file(codes: str):
    """A model that marks what is bright, on a volume with no symmetry: the mark must lie on the bright voxels."""
    image = volume()
    recipe = Recipe.model_validate({"input": {"kind": "volume", "axes": codes}})
    spec = TensorSpec("x", "float32", (1, None, None, None, 1))
    prepared = Preprocessor(recipe, spec)(image), Preprocessor(recipe, spec).prepare(image)
    np.testing.assert_array_equal(prepared[0], prepared[1].sample)
    back = prepared[1].to_source(prepared[1].sample, how="nearest")
    np.testing.assert_array_equal(back[..., 0], image.pixels)
    points = np.array([[1, 2, 0], [0, 0, 1]])  # of the sample
    source = prepared[1].transform.points_to_source(points)
    for point, place in zip(points, np.rint(source).astype(int), strict=True):
        if all(0 <= p < n for p, n in zip(point, prepared[1].sample.shape[1:4], strict=True)):
            assert prepared[1].sample[(0, *point, 0)] == image.pixels[tuple(place)]
