"""Tiles cover the image, and what they were cut from comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import windows

from edgemed.base.errors import InputError
from edgemed.recipe.parts import Tiles
from edgemed.recipe.tiles import Tiling, plan_tiles

BLENDS = ("hann", "gaussian", "uniform")


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    axes = draw(st.sampled_from([2, 3]))
    most = 40 if axes == 2 else 14
    size = [draw(st.integers(1, most // 2)) for _ in range(axes)]
    overlap = [draw(st.integers(0, side - 1)) for side in size]
    shape = tuple(draw(st.integers(1, most)) for _ in range(axes))
    return plan_tiles(
        shape, Tiles.model_validate({"size": size, "overlap": overlap, "blend": draw(st.sampled_from(BLENDS))})
    )


@given(tilings())
def test_every_pixel_is_in_a_tile_and_the_weights_sum_to_one(tiling: Tiling):
    places = list(tiling.slices())
    assert len(places) == len(tiling)
    total = np.zeros(tiling.padded, np.float64)
    weight = tiling.weight().astype(np.float64)
    for place in places:
        assert total[place].shape == tuple(tiling.tiles.size)
        total[place] += weight
    assert (total > 0).all()
    shares = sum(_share(tiling, place, weight / total[place]) for place in places)
    np.testing.assert_allclose(shares, 1, rtol=1e-12)  # FP64 rounding of a few sums


def _share(tiling: Tiling, place: tuple[slice, ...], share: np.ndarray) -> np.ndarray:
    whole = np.zeros(tiling.padded)
    whole[place] = share
    return whole


@given(tilings(), st.floats(-(2.0**100), 2.0**100, width=32))
def test_constants_come_back_bit_for_bit(tiling: Tiling, value: float):
    image = np.full((*tiling.shape, 2), value, np.float32)
    stitched = tiling.stitch(tiling.cut(image))
    assert stitched.dtype == np.float32
    np.testing.assert_array_equal(stitched, image)


@given(tilings(), st.integers(0, 1000))
def test_what_was_cut_comes_back(tiling: Tiling, seed: int):
    """Tiles of one image agree where they overlap, so that their weighted mean is the image itself."""
    image = np.random.default_rng(seed).random((1, *tiling.shape), dtype=np.float32)
    np.testing.assert_array_equal(tiling.stitch(tiling.cut(image, 1), 1), image)


@given(tilings(), st.integers(0, 1000))
def test_the_blend_is_the_weighted_mean(tiling: Tiling, seed: int):
    rng = np.random.default_rng(seed)
    answers = [rng.random(tiling.tiles.size, dtype=np.float32) for _ in range(len(tiling))]
    above, below = np.zeros(tiling.padded), np.zeros(tiling.padded)
    weight = tiling.weight().astype(np.float64)
    for place, answer in zip(tiling.slices(), answers, strict=True):
        above[place] += weight * answer
        below[place] += weight
    inside = tuple(slice(b, b + n) for b, n in zip(tiling.before, tiling.shape, strict=True))
    # each of n answers is folded in with 4 FP32 roundings of values of at most 1
    slack = 4 * len(answers) * 2.0**-24 + 1e-6
    np.testing.assert_allclose(tiling.stitch(answers), (above / below)[inside], atol=slack)


@pytest.mark.parametrize("side", [1, 2, 7, 32])
def test_the_weights_are_the_windows_they_are_called(side: int):
    def weight(blend: str) -> np.ndarray:
        return plan_tiles((1, side), Tiles.model_validate({"size": (1, side), "blend": blend})).weight()[0]

    # a Hann window taken between its points, so that it is nowhere 0; all are rounded to FP32
    np.testing.assert_allclose(weight("hann"), windows.hann(2 * side + 1)[1::2], rtol=1e-6)
    np.testing.assert_allclose(weight("gaussian"), windows.gaussian(side, side / 8), rtol=1e-6)
    assert (weight("uniform") == 1).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 20)])
def test_small_images_are_reflected(shape: tuple[int, int]):
    tiling = plan_tiles(shape, Tiles(size=(8, 8)))
    image = np.arange(np.prod(shape)).reshape(shape)
    pads = [((new - have) // 2, -(-(new - have) // 2)) for new, have in zip(tiling.padded, shape, strict=True)]
    padded = np.pad(image, pads, mode="reflect")
    for place, tile in zip(tiling.slices(), tiling.cut(image), strict=True):
        np.testing.assert_array_equal(tile, padded[place])


def test_neighbours_share_what_the_recipe_says_and_the_last_ends_at_the_edge():
    tiling = plan_tiles((100, 64), Tiles(size=(64, 64), overlap=16))
    assert tiling.starts == ((0, 36), (0,))
    assert plan_tiles((112, 64), Tiles(size=(64, 64), overlap=16)).starts == ((0, 48), (0,))


def test_answers_that_do_not_belong_are_refused():
    tiling = plan_tiles((8, 16), Tiles(size=(8, 8)))
    answer = np.zeros((8, 8), np.float32)
    for answers, message in (([answer], "fewer answers"), ([answer] * 3, "belong"), ([answer[:4]] * 2, "belong")):
        with pytest.raises(InputError, match=message):
            tiling.stitch(answers)
    with pytest.raises(InputError, match="axes"):
        plan_tiles((8, 8, 8), Tiles(size=(8, 8)))
    with pytest.raises(InputError, match="not the image"):
        list(tiling.cut(np.zeros((9, 16))))
