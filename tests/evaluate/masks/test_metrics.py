"""Overlap of masks: by hand, and what holds for any two."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgemed.evaluate.masks.metrics import (
    Overlap,
    agreement,
    dice,
    false_alarms,
    iou,
    metrics,
    names_of,
    over_classes,
    paired_differences,
)
from edgemed.evaluate.mean import Mean
from edgemed.evaluate.proportions import PairedDifference, Proportion

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)))
NAN = float("nan")


def test_by_hand() -> None:
    first = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool).T[..., None, :].astype(bool)  # (4, 1, 2)
    second = np.array([[0, 1, 1, 1], [0, 1, 0, 0]], bool).T[..., None, :].astype(bool)
    overlap = Overlap.of(first, second)
    assert overlap.both.tolist() == [[1, 0]]
    np.testing.assert_array_equal(dice(overlap), [[2 / 5, NAN]])
    np.testing.assert_array_equal(iou(overlap), [[1 / 4, NAN]])
    np.testing.assert_array_equal(false_alarms(overlap), [[NAN, 1]])
    np.testing.assert_array_equal(agreement(overlap), [[2 / 5, 0]])


@given(first=MASKS, data=st.data())
def test_what_holds_for_any_two_masks(first: np.ndarray, data: st.DataObject) -> None:
    second = data.draw(arrays.arrays(np.bool_, first.shape))
    overlap, turned = Overlap.of(first, second), Overlap.of(second, first)
    np.testing.assert_array_equal(agreement(overlap), agreement(turned))
    drawn = first.any(axis=(0, 1))[None]
    np.testing.assert_array_equal(np.isnan(dice(overlap)), ~drawn)
    np.testing.assert_array_equal(np.isnan(false_alarms(overlap)), drawn)
    d, j = dice(overlap)[drawn], iou(overlap)[drawn]
    assert ((d >= 0) & (d <= 1)).all()
    np.testing.assert_allclose(j, d / (2 - d), rtol=1e-12)  # the two say the same
    same = Overlap.of(first, first)
    assert (dice(same)[drawn] == 1).all()
    assert (false_alarms(same)[~drawn] == 0).all()


@given(masks=st.lists(arrays.arrays(np.bool_, (3, 2, 2)), min_size=3, max_size=8))
def test_a_precision_does_not_differ_from_itself(masks: list[np.ndarray]) -> None:
    drawn = masks[0] | True
    overlap = Overlap.stacked([Overlap.of(drawn, mask) for mask in masks])
    found = paired_differences(overlap, overlap, ("a", "b"), range(len(masks)))
    assert {e.value for e in found.values()} == {0.0}
    assert all(e.interval().low < 0 < e.interval().high for e in found.values())


def test_images_that_cannot_tell_are_left_out_and_the_same_for_both() -> None:
    """Class b is drawn on the second image alone; INT8 raises a false alarm for it on the first."""
    counts = {"both": [[4, 0], [3, 5]], "first": [[4, 0], [6, 5]], "second": [[4, 0], [6, 5]]}
    float_ = Overlap(**{name: np.array(rows, float) for name, rows in counts.items()})
    counts["second"] = [[4, 2], [6, 5]]
    int8 = Overlap(**{name: np.array(rows, float) for name, rows in counts.items()})
    found = metrics(int8, ("a", "b"), range(2))
    assert list(found) == [name for name in names_of(("a", "b")) if name != "false_alarms:a"]  # every image shows a
    assert (found["dice"].value, found["dice"].n) == (pytest.approx((1 + (0.5 + 1) / 2) / 2), 2)
    assert (found["dice:b"].value, found["dice:b"].n) == (1.0, 1)
    assert (found["false_alarms:b"].value, found["false_alarms:b"].n) == (1.0, 1)
    differences = paired_differences(float_, int8, ("a", "b"), range(2))
    assert list(differences) == list(found)
    assert (differences["dice"].value, differences["false_alarms:b"].value) == (0.0, 1.0)


def test_false_alarms_of_different_patients_are_proportions() -> None:
    """Nothing is drawn on 20 images; float marks something on two of them, INT8 on one of those and two others."""
    empty = np.zeros((20, 1))
    alarms = np.zeros((2, 20, 1))
    alarms[0, [3, 4]], alarms[1, [4, 8, 9]] = 5, 7
    float_, int8 = (Overlap(empty, empty, marked) for marked in alarms)
    assert metrics(int8, ("a",), range(20)) == {"false_alarms": Proportion(3, 20)}
    assert paired_differences(float_, int8, ("a",), range(20)) == {"false_alarms": PairedDifference(2, 1, 20)}
    clustered = metrics(int8, ("a",), [i // 2 for i in range(20)])["false_alarms"]
    assert isinstance(clustered, Mean)
    assert (clustered.n, clustered.units) == (20, 10)


def test_names() -> None:
    assert names_of(("a",)) == ("dice", "iou", "false_alarms")
    assert names_of(("a", "b"))[:4] == ("dice", "dice:a", "dice:b", "iou")
    np.testing.assert_array_equal(over_classes(np.array([[1, NAN], [0, 0.5], [NAN, NAN]])), [1, 0.25, NAN])
