"""What an output says: names, rules, logits, channels; and that masks lie where the source's pixels are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.bundle.manifest import OutputTensor
from edgemed.evaluate.masks.head import MaskHead, is_segmentation, mask_head_of
from edgemed.imaging.samples import Item
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.schema import Layout, Recipe


def output(shape: tuple[int | None, ...], activation: str | None, **more: Any) -> OutputTensor:
    told = {"dtype": "float32", "layout": "NHWC", "task": "segmentation", **more}
    return OutputTensor(name="mask", shape=shape, activation=activation, **told)


def head(shape: tuple[int | None, ...], activation: str | None, *, first: bool = False, **more: Any) -> MaskHead:
    return mask_head_of(output(shape, activation, **more), channels_first=first, spatial=2)


@pytest.mark.parametrize(
    ("channels", "activation", "classes", "names", "rule"),
    [
        (1, "sigmoid", (), ("foreground",), "threshold"),
        (1, "sigmoid", ("liver",), ("liver",), "threshold"),
        (1, "sigmoid", ("rest", "liver"), ("liver",), "threshold"),
        (3, "softmax", (), ("class 1", "class 2"), "argmax"),
        (3, "none", ("rest", "a", "b"), ("a", "b"), "argmax"),
        (3, "softmax", ("a", "b"), ("a", "b"), "argmax"),
        (2, "softmax", (), ("foreground",), "argmax"),
        (2, "sigmoid", ("a", "b"), ("a", "b"), "threshold"),
        (2, "sigmoid", (), ("class 0", "class 1"), "threshold"),
    ],
)
def test_classes(channels: int, activation: str, classes: tuple[str, ...], names: tuple[str, ...], rule: str) -> None:
    found = head((1, 4, 4, channels), activation, classes=classes)
    assert (found.names, found.rule, found.threshold) == (names, rule, 0.5)


@pytest.mark.parametrize(
    ("shape", "activation", "more"),
    [
        ((1, 4, 4, 1), "softmax", {}),
        ((1, 16), "sigmoid", {}),
        ((1, 4, 4, None), "softmax", {}),
        ((1, 4, 4, 1), "sigmoid", {"dtype": "int64"}),
        ((1, 4, 4, 2), "sigmoid", {"classes": ("rest", "a", "b")}),
        ((1, 4, 4, 3), "softmax", {"classes": ("a",)}),
    ],
)
def test_what_gives_no_masks_is_refused(shape: tuple[int | None, ...], activation: str, more: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        head(shape, activation, **more)


def test_which_bundles_are_segmentations() -> None:
    mask = output((1, 4, 4, 1), "sigmoid")
    assert is_segmentation((mask,))
    assert not is_segmentation((mask, mask))
    assert not is_segmentation((output((1, 1), "sigmoid", task="binary"),))


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_decide_as_their_probabilities(channels: int) -> None:
    logits = np.random.default_rng(0).normal(0, 40, (1, 5, 6, channels)).astype(np.float32)
    if channels == 1:
        likely = 1 / (1 + np.exp(-logits.astype(np.float64)))
    else:
        powers = np.exp(logits.astype(np.float64) - logits.max())
        likely = powers / powers.sum(axis=-1, keepdims=True)
    activation = "sigmoid" if channels == 1 else "softmax"
    found = head(logits.shape, "none").masks(Item(({},)), logits)
    np.testing.assert_array_equal(found, head(logits.shape, activation).masks(Item(({},)), likely.astype(np.float32)))
    assert found.any()
    assert not found.all()


def test_channels_first_and_none_at_all() -> None:
    likely = np.random.default_rng(1).random((1, 3, 5, 6)).astype(np.float32)
    last = head((1, 5, 6, 3), "softmax").masks(Item(({},)), np.moveaxis(likely, 1, -1))
    np.testing.assert_array_equal(head((1, 3, 5, 6), "softmax", first=True).masks(Item(({},)), likely), last)
    assert last.shape == (5, 6, 2)
    one = head((1, 5, 6), "sigmoid", threshold=0.7).masks(Item(({},)), likely[:, 0])
    np.testing.assert_array_equal(one[..., 0], likely[0, 0] >= 0.7)


def test_answers_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        head((1, 2, 2, 1), "sigmoid").masks(Item(({},)), np.full((1, 2, 2, 1), np.nan, np.float32))


MOVES = st.lists(
    st.sampled_from(
        [
            {"op": "flip", "axis": "rows"},
            {"op": "flip", "axis": "columns"},
            {"op": "rotate90", "turns": 1},
            {"op": "rotate90", "turns": 3},
            {"op": "pad", "size": [14, 17]},
            {"op": "pad", "size": [15, 15], "where": "end"},
        ]
    ),
    max_size=4,
)


@given(
    image=arrays.arrays(
        np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 255])
    ),
    moves=MOVES,
    layout=st.sampled_from(["NHWC", "NCHW"]),
    logits=st.booleans(),
)
def test_masks_come_back_to_the_pixels_they_were_seen_at(
    image: np.ndarray, moves: list[dict[str, Any]], layout: Layout, logits: bool
) -> None:
    """A model that answers with its input marks exactly the bright pixels, however the recipe moved the image."""
    recipe = Recipe.model_validate({"input": {"steps": moves, "scaling": {"divisor": 255}}})
    shape = (1, None, None, 1) if layout == "NHWC" else (1, 1, None, None)
    prepared = Preprocessor(recipe, TensorSpec("x", "float32", shape), layout).prepare(image)
    answer = (prepared.sample - 0.5) * 20 if logits else prepared.sample
    first = layout == "NCHW"
    found = head(answer.shape, "none" if logits else "sigmoid", first=first).masks(Item(({},), prepared), answer)
    np.testing.assert_array_equal(found[..., 0], image > 0)


@pytest.mark.parametrize(("channels", "activation"), [(1, "none"), (1, "sigmoid"), (3, "none"), (3, "softmax")])
def test_nothing_is_marked_where_the_recipe_cut_the_source_off(channels: int, activation: str) -> None:
    recipe = Recipe.model_validate({"input": {"steps": [{"op": "crop", "size": [4, 4]}]}})
    prepared = Preprocessor(recipe, TensorSpec("x", "float32", (1, 4, 4, 1))).prepare(np.ones((8, 10), np.uint8))
    answer = np.zeros((1, 4, 4, channels), np.float32)
    answer[..., -1] = 1
    found = head(answer.shape, activation).masks(Item(({},), prepared), answer)
    expected = np.zeros((8, 10), bool)
    expected[2:6, 3:7] = True
    np.testing.assert_array_equal(found[..., -1], expected)
    assert found.sum() == 16
