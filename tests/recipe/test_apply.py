"""Each step of a recipe against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pil

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.schema import Recipe, assumed_recipe

UNIT = assumed_recipe(rescales_inside=False)


def apply(recipe: Recipe, pixels: np.ndarray, shape=(1, 8, 8, 3), dtype="float32", layout="NHWC") -> np.ndarray:
    return Preprocessor(recipe, TensorSpec("image", dtype, shape), layout)(pixels)


def recipe(**input_: object) -> Recipe:
    return Recipe.model_validate({"input": input_})


def test_the_assumed_recipe_scales_to_one_unless_the_model_does():
    white = np.full((8, 8), 255, np.uint8)
    assert apply(UNIT, white).max() == 1.0
    assert apply(assumed_recipe(rescales_inside=True), white).max() == 255.0


def test_gray_is_repeated_and_rgb_becomes_luma():
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    sample = apply(recipe(), gray)
    assert (sample[..., 0] == sample[..., 1]).all()
    assert (sample[..., 0] == sample[..., 2]).all()
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 100
    np.testing.assert_allclose(apply(recipe(), red, (1, 8, 8, 1)), 29.9, rtol=1e-6)  # BT.601, FP32
    equal = np.repeat(gray[..., None], 3, axis=-1)
    np.testing.assert_array_equal(apply(recipe(), equal, (1, 8, 8, 1))[0, ..., 0], gray)


def test_colour_is_what_the_recipe_asks_for():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 100
    gray = apply(recipe(color="gray"), red)
    np.testing.assert_allclose(gray, 29.9, rtol=1e-6)  # luma, repeated over the model's three channels
    np.testing.assert_array_equal(apply(recipe(color="rgb"), red)[0], red)
    with pytest.raises(InputError, match="is gray"):
        apply(recipe(color="rgb"), np.zeros((8, 8), np.uint8))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_resizing_keeps_a_constant_image_constant(rows, columns, value):
    sample = apply(recipe(), np.full((rows, columns), value, np.uint8))
    np.testing.assert_allclose(sample, value, atol=1e-3)  # filter weights sum to 1 within FP32


def test_reduction_is_antialiased():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    sample = apply(recipe(), board.astype(np.uint8))
    # plain bilinear would pick single pixels and answer 0 or 255; the border of the triangle filter is cut off
    assert np.abs(sample - 127.5).max() < 3
    nearest = apply(recipe(resize="nearest"), board.astype(np.uint8))
    assert set(np.unique(nearest)) <= {0, 255}


@pytest.mark.parametrize(("resize", "method"), [("antialias", "BILINEAR"), ("nearest", "NEAREST")])
def test_the_flat_keys_resize_as_pillow_does(resize: str, method: str):
    """Bundles hold such recipes: ties between two pixels, as from 2 to 14, stay as Pillow's rounding has them."""
    for have in (2, 5, 31):
        pixels = np.random.default_rng(have).random((have, have), dtype=np.float32)
        expected = np.asarray(Pil.fromarray(pixels).resize((7, 14), Pil.Resampling[method]))
        np.testing.assert_array_equal(apply(recipe(resize=resize), pixels, (1, 14, 7, 1))[0, ..., 0], expected)


def test_sixteen_bits_are_resized_in_floating_point():
    ramp = np.tile(np.arange(0, 65536, 1024, dtype=np.uint16), (64, 1))
    sample = apply(recipe(), ramp, (1, 32, 32, 1))
    assert sample.max() > 60000


def test_scaling_is_per_channel_where_lists_are_given():
    scaled = apply(recipe(scaling={"offset": [1, 2, 3], "divisor": [1, 2, 4]}), np.full((8, 8, 3), 11, np.uint8))
    np.testing.assert_array_equal(scaled[0, 0, 0], [10, 4.5, 2])
    with pytest.raises(InputError, match="offset has 2 values for 3 channels"):
        apply(recipe(scaling={"offset": [1, 2]}), np.zeros((8, 8, 3), np.uint8))


def test_layout_and_dtype_are_the_models():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    nchw = apply(recipe(), pixels, (1, 3, 8, 8), "uint8", "NCHW")
    assert nchw.dtype == np.uint8
    assert nchw.flags.c_contiguous
    np.testing.assert_array_equal(np.moveaxis(nchw[0], 0, -1), pixels)


def test_open_sizes_keep_the_images_own():
    assert apply(recipe(), np.zeros((5, 6), np.uint8), (1, None, None, 1)).shape == (1, 5, 6, 1)


@pytest.mark.parametrize(
    ("rules", "pixels", "message"),
    [
        ({"resize": "none"}, np.zeros((5, 5), np.uint8), "is 5x5, not 8x8"),
        ({"contract": {"min_rows": 6}}, np.zeros((5, 8), np.uint8), "5 rows"),
        ({"contract": {"max_columns": 6}}, np.zeros((5, 8), np.uint8), "8 columns"),
    ],
)
def test_the_contract_refuses_before_anything_else(rules, pixels, message):
    with pytest.raises(InputError, match=message):
        apply(recipe(**rules), pixels)


def test_deep_images_need_a_real_recipe():
    with pytest.raises(InputError, match="uint16"):
        apply(UNIT, np.zeros((8, 8), np.uint16))


@pytest.mark.parametrize("shape", [(1, 8), (1, 8, 8, 5), (1, 8, 8, 8, 5), (1, 2, 8, 8, 8, 1)])
def test_inputs_that_are_no_images_are_refused(shape):
    with pytest.raises(InputError, match=r"not an image|channels"):
        Preprocessor(UNIT, TensorSpec("x", "float32", shape))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("scaling", [{"divisor": 1e-300}, {"offset": 1e300}, {"divisor": [1, 1e-300, 1]}])
def test_scalings_beyond_the_dtype_are_refused_without_a_warning(dtype, scaling):
    with pytest.raises(InputError, match="makes NaN or infinity"):
        apply(recipe(scaling=scaling), np.full((8, 8, 3), 255, np.uint8), dtype=dtype)


def test_half_precision_overflows_where_single_does_not():
    bright = np.full((8, 8), 65535, np.uint16)
    assert apply(recipe(), bright, dtype="float32").max() == 65535
    with pytest.raises(InputError, match="makes NaN or infinity"):
        apply(recipe(), bright, dtype="float16")


@pytest.mark.parametrize(
    ("shape", "layout"), [((1, 8, 9, 3), "NHWC"), ((1, 9, None, 3), "NHWC"), ((1, 3, 8, 9), "NCHW")]
)
def test_a_size_that_the_model_does_not_take_is_refused(shape, layout):
    with pytest.raises(InputError, match="resizes images to 8x8"):
        Preprocessor(recipe(size=[8, 8]), TensorSpec("x", "float32", shape), layout)
    Preprocessor(recipe(size=[8, 8]), TensorSpec("x", "float32", (1, 8, None, 3)), "NHWC")
