"""Steps that move pixels: where each one goes, and the way back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recipe.steps_of import plane, run, stack, step_of

from edgemed.base.errors import InputError
from edgemed.recipe.image import Facts, Image, plain
from edgemed.recipe.operations import run_step
from edgemed.recipe.operations.state import State

PIXELS = np.arange(1, 61, dtype=np.int16).reshape(6, 10)


def test_crop_pad_flip_and_turn_are_numpys():
    np.testing.assert_array_equal(plane(PIXELS, "crop", size=[2, 4]), PIXELS[2:4, 3:7])
    np.testing.assert_array_equal(plane(PIXELS, "crop", box=[1, 2, 3, 4]), PIXELS[1:4, 2:6])
    np.testing.assert_array_equal(plane(PIXELS, "pad", size=[9, 10], fill=-1)[1:7], PIXELS)
    np.testing.assert_array_equal(plane(PIXELS, "pad", size=[9, 4], where="end"), np.pad(PIXELS, ((0, 3), (0, 0))))
    np.testing.assert_array_equal(plane(PIXELS, "flip", axis="columns"), PIXELS[:, ::-1])
    for turns in (1, 2, 3):
        np.testing.assert_array_equal(plane(PIXELS, "rotate90", turns=turns), np.rot90(PIXELS, turns))


def test_a_crop_beyond_the_image_is_refused():
    for settings in ({"size": [7, 2]}, {"box": [0, 8, 1, 3]}, {"box": [6, 0, 1, 1]}):
        with pytest.raises(InputError, match="crops"):
            plane(PIXELS, "crop", **settings)


def test_content_is_the_box_of_what_is_above():
    pixels = np.zeros((20, 30), np.uint8)
    pixels[5:9, 7:20] = 9
    np.testing.assert_array_equal(plane(pixels, "content", above=8), pixels[5:9, 7:20])
    np.testing.assert_array_equal(plane(pixels, "content", above=8, margin=6), pixels[0:15, 1:26])
    np.testing.assert_array_equal(plane(np.stack([pixels] * 3, -1), "content", above=8).shape, (4, 13, 3))
    with pytest.raises(InputError, match="no content"):
        plane(pixels, "content", above=9)


def test_fitting_keeps_proportions():
    wide = np.ones((10, 20), np.float32)
    padded = plane(wide, "resize", size=[16, 16], fit="pad", fill=-1)
    np.testing.assert_allclose(padded[4:12], 1, rtol=1e-6)
    assert (padded[:4] == -1).all()
    assert (padded[12:] == -1).all()
    np.testing.assert_allclose(plane(wide, "resize", size=[16, 16], fit="crop"), 1, rtol=1e-6)
    ramp = np.tile(np.arange(20, dtype=np.float32), (10, 1))
    middle = plane(ramp, "resize", size=[10, 10], fit="crop")
    np.testing.assert_array_equal(middle, ramp[:, 5:15])


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 40), st.integers(1, 40), st.sampled_from(["pad", "crop"]))
def test_fitting_always_gives_the_size(rows: int, columns: int, new_rows: int, new_columns: int, fit: str):
    given_ = plane(np.ones((rows, columns), np.float32), "resize", size=[new_rows, new_columns], fit=fit)
    assert given_.shape == (new_rows, new_columns)


def test_spacing_is_met_and_the_field_of_view_kept():
    image = replace(plain(PIXELS), facts=Facts(rows=6, columns=10, spacing=(2.0, 0.5)))
    state = run(image, "spacing", mm=[1.0, 1.0])
    assert state.shape == (1, 12, 5)
    assert state.spacing == (None, 1.0, 1.0)
    volume = stack(np.zeros((4, 6, 10), np.float32), spacing=(1.0, 1.0), slice_spacing=5.0)
    assert run(volume, "spacing", mm=[2.5, 1, 1]).shape == (8, 6, 10)
    assert run(volume, "spacing", mm=[2, 2]).shape == (4, 3, 5)


def test_spacing_needs_the_files_own():
    with pytest.raises(InputError, match="does not say how far its rows"):
        run(PIXELS, "spacing", mm=[1, 1])
    with pytest.raises(InputError, match="does not say how far its slices"):
        run(stack(np.zeros((4, 6, 10)), spacing=(1.0, 1.0)), "spacing", mm=[1, 1, 1])


def test_absurd_spacing_is_refused_before_anything_is_made():
    image = replace(plain(PIXELS), facts=Facts(rows=6, columns=10, spacing=(1e30, 1e30)))
    with pytest.raises(InputError, match="more than allowed"):
        run(image, "spacing", mm=[1e-3, 1e-3])


def test_three_sizes_need_slices():
    for op in ("resize", "crop", "pad"):
        with pytest.raises(InputError, match="counts slices"):
            run(PIXELS, op, size=[1, 2, 2])


def test_what_padding_adds_is_not_valid():
    state = run(PIXELS, "pad", size=[8, 10], fill=1000)
    assert state.valid is not None
    assert state.valid.sum() == PIXELS.size
    padding = replace(plain(PIXELS), valid=PIXELS > 10)
    padded = run(padding, "pad", size=[8, 10]).valid
    assert padded is not None
    np.testing.assert_array_equal(padded[0], np.pad(PIXELS > 10, ((1, 1), (0, 0))))
    ranged = run_step(step_of("range"), state)
    assert ranged.pixels[ranged.valid].max() == 1.0


MOVES: list[dict[str, Any]] = [
    {"op": "flip", "axis": "rows"},
    {"op": "flip", "axis": "columns"},
    {"op": "rotate90", "turns": 1},
    {"op": "rotate90", "turns": 3},
    {"op": "pad", "size": [13, 14], "fill": -1},
    {"op": "pad", "size": [9, 15], "fill": -1, "where": "end"},
    {"op": "crop", "size": [4, 5]},
    {"op": "crop", "box": [1, 0, 5, 6]},
    {"op": "resize", "size": [18, 30], "filter": "nearest"},
]


@given(st.lists(st.sampled_from(MOVES), max_size=6))
def test_every_way_back_leads_to_the_pixel(moves: list[dict[str, Any]]):
    """Each pixel carries its own number; back on the source it stands where it was, or was cut off."""
    state = State.of(plain(PIXELS))
    try:
        for move in moves:
            state = run_step(step_of(**move), state)
    except InputError:
        return  # cropped more than there is
    back = state.transform.map_to_source(state.pixels, fill=-2)[0]
    assert back.shape == PIXELS.shape
    shown = back > 0
    np.testing.assert_array_equal(back[shown], PIXELS[shown])
    if all(move["op"] != "resize" for move in moves):  # enlarged pixels may be cut beside their centres
        np.testing.assert_array_equal(shown, np.isin(PIXELS, state.pixels))
    for row, column in np.argwhere(state.pixels[0] > 0):
        found = state.transform.points_to_source(np.array([[row, column]]))[0]
        assert PIXELS[tuple(np.floor(found + 0.5).astype(int))] == state.pixels[0, row, column]
        homogeneous = state.transform.affine @ [0, *found, 1]
        np.testing.assert_allclose(homogeneous[1:3], [row, column], atol=1e-9)


@pytest.mark.parametrize("axis", ["slices", "rows", "columns"])
def test_volumes_flip_along_every_axis(axis: str):
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    state = run(stack(volume), "flip", axis=axis)
    np.testing.assert_array_equal(state.pixels, np.flip(volume, ["slices", "rows", "columns"].index(axis)))
    np.testing.assert_array_equal(state.transform.map_to_source(state.pixels), volume)


def test_turning_turns_the_spacing_too():
    image = Image(PIXELS, Facts(rows=6, columns=10, spacing=(1.0, 2.0)))
    assert run(image, "rotate90").spacing == (None, 2.0, 1.0)
