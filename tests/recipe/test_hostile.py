"""Any recipe on any image gives a finite sample of the model's shape, or a refusal that says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.image import Facts, Image, LookupTable, Window
from edgemed.recipe.schema import Recipe

SIDE = st.integers(1, 24)
NUMBER = st.floats(-1e4, 1e4) | st.sampled_from([0.0, 1.0, 1e-300, 1e300, -1e300, 1e38])
SIZE2 = st.tuples(SIDE, SIDE)
SIZE = SIZE2 | st.tuples(st.integers(1, 6), SIDE, SIDE)
DIVISOR = NUMBER.filter(bool)
FUNCTIONS = st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"])
FILTERS = st.sampled_from(["antialias", "nearest", "bilinear", "bicubic", "lanczos", "area"])


def step(op: str, **settings_: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"op": st.just(op), **settings_})


STEPS = st.one_of(
    step("window", center=NUMBER, width=st.floats(1, 1e300), function=FUNCTIONS),
    step("window", file=st.just(True), index=st.integers(0, 2), otherwise=st.sampled_from(["range"])),
    step("window", percentiles=st.sampled_from([(1, 99), (0, 100), (0, 1e-9)])),
    step("scale", offset=NUMBER, divisor=DIVISOR | st.tuples(DIVISOR, DIVISOR, st.just(1.0))),
    step("range", of=st.sampled_from(["image", "stored-bits", "type"])),
    step("zscore", over=st.sampled_from(["image", "valid", "nonzero"])),
    step("clip", low=st.floats(-1e300, 0)),
    step("invert", low=NUMBER, high=NUMBER),
    step("gamma", gamma=st.floats(1e-3, 100)),
    step("resize", size=SIZE, filter=FILTERS, fit=st.sampled_from(["stretch", "pad", "crop"]), fill=NUMBER),
    step("resize", fit=st.sampled_from(["pad", "crop"])),
    step("spacing", mm=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), filter=FILTERS),
    step("crop", size=SIZE),
    step("content", above=NUMBER, margin=st.integers(0, 4)),
    step("pad", size=SIZE, fill=NUMBER, where=st.sampled_from(["around", "end"])),
    step("flip", axis=st.sampled_from(["slices", "rows", "columns"])),
    step("rotate90", turns=st.sampled_from([1, 2, 3])),
    step("gray"),
    step("rgb"),
    step("clahe", clip_limit=st.floats(0.001, 1)),
    step("gaussian", sigma=st.sampled_from([0.5, (1.0, 2.0), (1.0, 1.0, 0.0)])),
    step("median", size=st.sampled_from([1, 3, 5])),
    step("nlmeans", h=st.floats(1e-3, 10), patch=st.just(3), distance=st.just(2)),
)


@st.composite
def images(draw: st.DrawFn) -> Image:
    shape: tuple[int, ...] = draw(SIZE2)
    stacked = draw(st.booleans())
    shape = (draw(st.integers(1, 4)), *shape) if stacked else shape
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.int16, np.int32, np.float32]))
    color = draw(st.booleans()) and dtype is np.uint8
    seed = draw(st.integers(0, 99))
    pixels = np.random.default_rng(seed).normal(
        50, draw(st.sampled_from([0, 40, 1e4])), (*shape, 3) if color else shape
    )
    limits = np.iinfo(dtype) if dtype is not np.float32 else np.finfo(dtype)
    pixels = np.clip(pixels, limits.min, limits.max).astype(dtype)
    spacing = draw(
        st.sampled_from([None, (1.0, 1.0), (0.0, 1.0), (1e-30, 1e30), (float("nan"), 1.0), (-1.0, float("inf"))])
    )
    rows, columns = shape[-2:]
    image = Image(
        pixels,
        Facts(rows, columns, spacing=spacing),
        stacked=stacked,
        stored_range=draw(st.sampled_from([None, (0.0, 255.0), (5.0, 5.0)])),
    )
    windows = draw(
        st.sampled_from([(), (Window(40, 400), Window(1e300, 1e-300, "LINEAR_EXACT"), Window(0, 1e-300, "SIGMOID"))])
    )
    tables = draw(st.sampled_from([(), (LookupTable(-(2**31), np.array([0, 65_535], np.uint16), 8),)]))
    valid = (
        np.random.default_rng(seed).random(shape) > draw(st.sampled_from([0.5, 1.0])) if draw(st.booleans()) else None
    )
    return replace(image, windows=windows, tables=tables, valid=valid)


@settings(max_examples=600)
@given(images(), st.lists(STEPS, max_size=4), st.sampled_from(["float32", "float16", "uint8"]), st.sampled_from([1, 3]))
def test_a_sample_or_a_reason(image: Image, steps: list[dict[str, Any]], dtype: str, channels: int):
    try:
        recipe = Recipe.model_validate({"input": {"steps": steps}})
    except ValueError:
        return
    shape = (1, None, 8, 9, channels) if image.stacked else (1, 8, 9, channels)
    make = Preprocessor(recipe, TensorSpec("x", dtype, shape))
    try:
        prepared = make.prepare(image)
    except InputError:
        return
    sample = prepared.sample
    assert make.spec.admits(str(sample.dtype), sample.shape)
    assert np.isfinite(sample).all()
    assert prepared.transform.shape == ((sample.shape[1:4]) if image.stacked else (1, *sample.shape[1:3]))
    assert prepared.transform.source == (image.pixels.shape[:3] if image.stacked else (1, *image.pixels.shape[:2]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "steps", [[], [{"op": "range"}], [{"op": "zscore"}], [{"op": "window", "percentiles": [1, 99]}], [{"op": "resize"}]]
)
def test_numbers_that_are_none_are_refused(value: float, steps: list[dict[str, Any]]):
    pixels = np.zeros((8, 9), np.float32)
    pixels[3, 3] = value
    with pytest.raises(InputError, match="NaN or infinity"):
        Preprocessor(Recipe.model_validate({"input": {"steps": steps}}), TensorSpec("x", "float32", (1, 8, 9, 1)))(
            pixels
        )
