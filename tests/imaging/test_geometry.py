"""Slices make one regular grid, or a reason is given why not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.base.errors import InputError
from edgemed.imaging.geometry import Plane, stack

ROW, COLUMN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def axial(*depths: float) -> list[Plane]:
    return [Plane((-10.0, 20.0, z), ROW, COLUMN, (0.5, 0.7), f"slice {i}") for i, z in enumerate(depths)]


def test_slices_are_ordered_along_the_normal_whatever_their_order_in_the_folder():
    grid = stack(axial(5, 0, 15, 10))
    assert grid.order == (1, 0, 3, 2)
    assert grid.spacing == 5
    # the last voxel of the last of the four slices: 3 slices, 2 rows and 1 column on from the first pixel
    np.testing.assert_allclose(grid.affine @ [3, 2, 1, 1], [-10 + 0.7, 20 + 2 * 0.5, 15, 1])


def test_feet_first_rows_grow_along_their_own_normal():
    planes = [Plane((0.0, 0.0, z), (1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (1, 1), f"slice {z}") for z in (0.0, 2.0, 4.0)]
    grid = stack(planes)  # the normal of (1,0,0) x (0,-1,0) points to the feet
    assert grid.order == (2, 1, 0)
    np.testing.assert_allclose(grid.affine[:3, 0], [0, 0, -2])


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    count=st.integers(2, 12),
    step=st.floats(0.3, 10),
    seed=st.integers(0, 1000),
)
def test_any_turned_grid_is_found_again(angles: tuple[float, float, float], count: int, step: float, seed: int):
    turn = rotation(*angles)
    row, column, normal = turn[:, 0], turn[:, 1], turn[:, 2]
    start = np.array([3.0, -70.0, 11.0])
    places = [start + i * step * normal for i in range(count)]
    shuffled = np.random.default_rng(seed).permutation(count)
    grid = stack([Plane(tuple(places[i]), tuple(row), tuple(column), (0.8, 0.9), str(i)) for i in shuffled])
    assert [int(shuffled[i]) for i in grid.order] == list(range(count))
    last = grid.affine @ [count - 1, 0, 0, 1]
    np.testing.assert_allclose(last[:3], places[-1], atol=1e-6)  # mm; double precision over some 100 mm
    assert grid.spacing == pytest.approx(step)


def rotation(a: float, b: float, c: float) -> np.ndarray:
    def about(axis: int, angle: float) -> np.ndarray:
        turn = np.eye(3)
        i, j = (k for k in range(3) if k != axis)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        return turn

    return about(0, a) @ about(1, b) @ about(2, c)


def turned(plane: Plane) -> Plane:
    return replace(plane, row=(0.0, 1.0, 0.0), column=(0.0, 0.0, 1.0))


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        (axial(0), "at least two slices"),
        (axial(0, 5, 5, 10), "slice 1 and slice 2 lie at the same place; 1 slices repeat"),
        (axial(0, 5, 10, 20, 25), "slice 2 and slice 3 are 10 mm apart, the other slices 5 mm"),
        (axial(0, 5, 10, 13, 18, 23), "slice 2 and slice 3 are 3 mm apart"),
        ([*axial(0, 5), turned(axial(10)[0])], "slice 0 is turned against slice 0: the slices are not parallel"),
        ([*axial(0, 5), replace(axial(10)[0], spacing=(1, 1))], "has pixels of 1×1 mm, slice 0 of 0.5×0.7 mm"),
        ([Plane((0, z * 0.2, z), ROW, COLUMN, (1, 1), "") for z in range(0, 50, 5)], "sheared by 11.3°"),
    ],
)
def test_what_is_no_regular_grid_is_refused(planes: list[Plane], message: str):
    with pytest.raises(InputError, match=message):
        stack(planes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": (0, 0, float("nan"))}, "not a number"),
        ({"row": (2.0, 0.0, 0.0)}, "not two perpendicular unit vectors"),
        ({"row": (0.0, 1.0, 0.0)}, "not two perpendicular unit vectors"),
        ({"row": (0.0, 0.0, 0.0)}, "not two perpendicular unit vectors"),
        ({"spacing": (0.0, 1.0)}, "pixel spacing of 0 mm"),
        ({"spacing": (1.0, -1.0)}, "pixel spacing of -1 mm"),
    ],
)
def test_a_plane_is_valid_once_it_exists(change: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        replace(axial(0)[0], **change)


def test_what_rounding_leaves_is_taken():
    stack(axial(0, 5.02, 9.97, 15.01, 20))
    stack([replace(p, row=(0.99999, 0.00004, 0.0)) for p in axial(0, 5)])


@pytest.mark.parametrize(("moved", "fits"), [((0.3, 0.2), True), ((0.5, 0.0), False), ((0.0, -30.0), False)])
def test_a_slice_beside_the_others_is_refused(moved: tuple[float, float], fits: bool):
    """Pixels are 0.5 mm down a column and 0.7 mm along a row: half a pixel is 0.35 mm in x and 0.25 mm in y."""
    planes = axial(0, 5, 10, 15, 20)
    x, y, z = planes[2].position
    planes[2] = replace(planes[2], position=(x + moved[0], y + moved[1], z))
    if fits:
        stack(planes)
        return
    with pytest.raises(InputError, match=r"slice 2 lies .* mm beside the line of the other slices"):
        stack(planes)
