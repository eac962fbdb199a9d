"""What the kernels take over and what they leave to the CPU, with the step's name and the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.image import Facts, Image, LookupTable, Window, plain
from edgemed.recipe.schema import Recipe
from edgemed.runtime.kernels.plan import Refusal, plan_kernels
from edgemed.runtime.kernels.raw import RawFormat
from tests.runtime.kernels import twin
from tests.runtime.kernels.compare import planned, recipe, spec_of

GRAY8, GRAY16, COLOR = RawFormat(48, 40), RawFormat(48, 40, "int16"), RawFormat(48, 40, pixels="rgb")
SQUARE = RawFormat(48, 48)
ONE = spec_of(24, 20, 1, "NCHW")
WINDOW = {"op": "window", "low": 0, "high": 255}


def refused(steps: list[dict[str, Any]], raw: RawFormat = GRAY8, spec: TensorSpec = ONE, **given: Any) -> Refusal:
    found = plan_kernels(recipe(*steps, **given), spec, "NCHW", raw)
    assert isinstance(found, Refusal)
    return found


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"op": "window", "percentiles": [1, 99]}, "the percentiles are those of each image"),
        ({"op": "range"}, "the range is that of each image"),
        ({"op": "zscore"}, "mean and deviation are those of each image"),
        ({"op": "content", "above": 3}, "the box is that of each image"),
        ({"op": "clahe"}, "it looks at the neighbours"),
        ({"op": "gaussian", "sigma": 1}, "it looks at the neighbours"),
        ({"op": "median"}, "it looks at the neighbours"),
        ({"op": "nlmeans", "h": 1}, "it looks at the neighbours"),
        ({"op": "resize", "size": [1, 30, 30]}, "it counts slices"),
        ({"op": "spacing", "mm": [1, 1, 1]}, "it counts slices"),
        ({"op": "spacing", "mm": [1, 1]}, "does not say how far pixels lie apart"),
        ({"op": "flip", "axis": "slices"}, "it turns slices over"),
    ],
)
def test_steps_that_are_left_to_the_cpu(step: dict[str, Any], reason: str):
    found = refused([step])
    assert found.step == step["op"]
    assert reason in found.reason
    assert str(found).startswith(f"The kernels do not take over the step {step['op']}: ")


def test_one_resampling_only():
    twice = [{"op": "resize", "size": [30, 30]}, {"op": "resize", "filter": "area"}]
    assert "second resampling" in refused(twice).reason
    assert "second resampling" in refused(twice[:1]).reason  # to the model's own size
    kept = [{"op": "resize", "size": [30, 30], "filter": "nearest"}, {"op": "resize", "filter": "area"}]
    planned(recipe(*kept), ONE, "NCHW", GRAY8)


def test_what_needs_exact_values_comes_before_what_rounds():
    step = {"op": "window", "center": 100, "width": 1}
    for steps, raw in (([{"op": "resize"}, step], GRAY8), ([{"op": "gray"}, step, {"op": "resize"}], COLOR)):
        found = refused(steps, raw)
        assert found.step == "window"
        assert "values that are exact" in found.reason
    planned(recipe(step, {"op": "resize"}), ONE, "NCHW", COLOR)
    table = Image(np.zeros((48, 40), np.uint8), Facts(48, 40), tables=(LookupTable(0, np.arange(256), 8),))
    found = refused([{"op": "resize"}, {"op": "window", "file": True}], RawFormat.of(table))
    assert found.step == "window"


def test_a_gamma_of_values_that_may_be_negative_is_left_to_the_cpu():
    """The recipe refuses such a frame; a launch could not."""
    gamma = {"op": "gamma", "gamma": 0.5}
    assert refused([gamma], GRAY16).step == "gamma"
    assert refused([WINDOW, {"op": "resize", "filter": "lanczos"}, gamma]).step == "gamma"
    assert refused([{"op": "scale", "offset": 1}, gamma]).step == "gamma"
    assert refused([WINDOW, {"op": "resize", "fit": "pad", "fill": -1}, gamma], SQUARE).step == "gamma"
    for steps in ([gamma], [WINDOW, {"op": "resize"}, gamma], [{"op": "clip", "low": 0}, gamma]):
        planned(recipe(*steps), ONE, "NCHW", GRAY8)


def test_values_that_may_leave_the_type_are_left_to_the_cpu():
    half = spec_of(24, 20, 1, "NCHW", "float16")
    assert "float16 does not hold" in refused([{"op": "scale", "divisor": 0.001}], spec=half).reason
    assert "float16 does not hold" in refused([{"op": "resize", "fit": "pad", "fill": 1e5}], SQUARE, half).reason
    planned(recipe({"op": "scale", "divisor": 0.01}), half, "NCHW", GRAY8)
    found = refused([{"op": "scale", "divisor": 1e-38}, {"op": "clip", "low": 0, "high": 1}])
    assert found.step == "scale"
    assert "NaN or infinity" in found.reason


def test_bytes_only_where_nothing_is_rounded():
    eight = spec_of(24, 20, 1, "NCHW", "uint8")
    assert "could fall on either side" in refused([], spec=eight).reason  # resampled
    assert "could fall on either side" in refused([{"op": "resize", "filter": "nearest"}], COLOR, eight).reason  # luma
    planned(recipe({"op": "resize", "filter": "nearest"}), eight, "NCHW", GRAY8)


@pytest.mark.parametrize(
    ("whole", "spec", "raw", "reason"),
    [
        (Recipe(raw=True), ONE, GRAY8, "fed as they are"),
        (recipe(), spec_of(24, 20, 1, "NCHW", "int8"), GRAY8, "the model takes int8"),
        (recipe(), TensorSpec("x", "float32", (4, 1, 24, 20)), GRAY8, "4 samples at once"),
        (recipe(tiles={"size": [24, 20]}), ONE, GRAY8, "tiles are cut"),
        (recipe(), ONE, RawFormat(48, 40, "float32"), "gray of float32"),
        (recipe(), ONE, RawFormat(48, 40, "uint16", pixels="rgb"), "rgb of uint16"),
        (recipe(*[{"op": "clip", "low": 0}] * 20), ONE, RawFormat(48, 40, pixels="bgr"), None),
        (recipe({"op": "resize"}, *[{"op": "clip", "low": 0}] * 20), ONE, GRAY8, "more than 16 operations"),
    ],
)
def test_recipes_and_models_as_a_whole(whole: Recipe, spec: TensorSpec, raw: RawFormat, reason: str | None):
    found = plan_kernels(whole, spec, "NCHW", raw)
    if reason is None:
        assert not isinstance(found, Refusal)  # a table takes any number of steps
    else:
        assert isinstance(found, Refusal)
        assert reason in found.reason


@pytest.mark.parametrize(
    ("whole", "raw", "message"),
    [
        (recipe(color="rgb"), GRAY8, "gray; the recipe asks for colour"),
        (recipe({"op": "crop", "size": [90, 30]}), GRAY8, "crops 90"),
        (recipe(resize="none"), GRAY8, "is 48x40, not 24x20"),
        (recipe(contract={"max_rows": 47}), GRAY8, "48 rows"),
        (Recipe(assumed=True), GRAY16, "int16"),
        (recipe({"op": "scale", "offset": [1, 2]}), COLOR, None),
    ],
)
def test_what_no_frame_could_pass_is_an_error_as_on_the_cpu(whole: Any, raw: RawFormat, message: str | None):
    with pytest.raises(InputError, match=message or "."):
        Preprocessor(whole, ONE, "NCHW")(raw.image(np.zeros(raw.shape, raw.dtype)))
    if message is None:  # the CPU says it of each frame
        assert isinstance(plan_kernels(whole, ONE, "NCHW", raw), Refusal)
    else:
        with pytest.raises(InputError, match=message):
            plan_kernels(whole, ONE, "NCHW", raw)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": 0, "columns": 4},
        {"rows": 4, "columns": 4, "frames": 0},
        {"rows": 4, "columns": 5, "pixels": "yuyv"},
        {"rows": 5, "columns": 4, "pixels": "nv12"},
        {"rows": 4, "columns": 4, "stride": 3},
        {"rows": 4, "columns": 4, "pixels": "rgb", "stride": 11},
        {"rows": 4, "columns": 4, "values": np.zeros(255)},
        {"rows": 4, "columns": 4, "pixels": "rgb", "dtype": "float32"},
    ],
)
def test_a_format_that_cannot_be_is_refused(wrong: dict[str, Any]):
    with pytest.raises(InputError):
        RawFormat(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"bits": 0}, {"bits": 17}, {"bits": 12, "slope": 0}, {"bits": 12, "intercept": np.inf}]
)
def test_stored_values_that_mean_nothing_are_refused(wrong: dict[str, Any]):
    with pytest.raises(InputError, match="mean nothing"):
        RawFormat(4, 4, "uint16").stored(**wrong)


def test_a_frame_that_is_not_what_the_source_said_is_refused():
    for frame in (np.zeros((48, 41), np.uint8), np.zeros((48, 40), np.uint16)):
        with pytest.raises(InputError, match="the source said uint8"):
            GRAY8.image(frame)


def test_a_launch_takes_no_more_than_it_should():
    plan = planned(
        recipe(WINDOW, {"op": "resize"}), spec_of(224, 224, 1, "NCHW"), "NCHW", RawFormat(1024, 1024, "uint16")
    )
    assert plan.block.kernel == "edgemed_resample"
    assert plan.block.threads == 256
    assert 0 < plan.block.shared_bytes <= 24 << 10
    assert plan.block.grid == (7, 28, 1)
    assert plan.block.words.nbytes < 64 << 10
    assert plan.nbytes == 224 * 224 * 4
    assert plan.bounds == pytest.approx((0, 1), abs=1e-5)
    assert plan.steps == ("window", "resize")


def test_tables_are_as_small_as_can_be():
    """256 numbers for bytes, one table where the channels are alike, none for two operations on 16 bits."""
    bytes_ = planned(recipe({"op": "scale", "divisor": 3}), spec_of(None, None, 3, "NCHW"), "NCHW", COLOR)
    own = planned(recipe({"op": "scale", "divisor": [3, 4, 5]}), spec_of(None, None, 3, "NCHW"), "NCHW", COLOR)
    assert own.block.words.nbytes - bytes_.block.words.nbytes == 2 * 256 * 4
    spec = spec_of(None, None, 1, "NCHW")
    computed = planned(recipe(WINDOW, {"op": "invert"}), spec, "NCHW", GRAY16)
    looked_up = planned(recipe(WINDOW, {"op": "invert"}, {"op": "clip", "low": 0.1}), spec, "NCHW", GRAY16)
    assert looked_up.block.words.nbytes - computed.block.words.nbytes > 65_000 * 4


def test_numbers_beyond_float32_are_as_far_out_as_the_largest():
    whole = recipe({"op": "clip", "low": -1e300, "high": 1e300}, {"op": "window", "low": -1e39, "high": 1e39})
    pixels = np.arange(48 * 40, dtype=np.int16).reshape(48, 40)
    plan = planned(whole, spec_of(None, None, 1, "NCHW"), "NCHW", RawFormat.of(plain(pixels)))
    expected = Preprocessor(whole, spec_of(None, None, 1, "NCHW"), "NCHW")(pixels)
    np.testing.assert_array_equal(twin.run(plan, pixels), expected)


def test_the_first_of_the_files_windows_is_the_default():
    pixels = np.arange(48 * 40, dtype=np.int16).reshape(48, 40)
    image = Image(pixels, Facts(48, 40), windows=(Window(500, 100), Window(900, 1000)))
    spec = spec_of(None, None, 1, "NCHW")
    found = [
        twin.run(planned(recipe({"op": "window", "file": True, "index": i}), spec, "NCHW", RawFormat.of(image)), pixels)
        for i in (0, 1)
    ]
    assert not np.array_equal(*found)
    with pytest.raises(InputError, match="only 2 VOI windows"):
        Preprocessor(recipe({"op": "window", "file": True, "index": 2}), spec, "NCHW")(image)
    missing = plan_kernels(recipe({"op": "window", "file": True, "index": 2}), spec, "NCHW", RawFormat.of(image))
    assert isinstance(missing, Refusal)
    assert "only 2 VOI windows" in missing.reason


@pytest.mark.parametrize(
    ("steps", "most"),
    [
        ([WINDOW, {"op": "resize", "filter": "nearest"}], 0),  # nothing is rounded otherwise than by the recipe
        ([{"op": "resize"}], 255),
        ([WINDOW, {"op": "resize"}], 1),
        ([{"op": "resize"}, {"op": "window", "low": 100, "high": 110}], 25.5),  # a narrow window enlarges it
        ([{"op": "resize"}, {"op": "window", "low": 0, "high": 1000}], 0.255),
        ([WINDOW, {"op": "resize"}, {"op": "zscore", "mean": 0.45, "std": 0.25}], 4),
        ([{"op": "resize"}, {"op": "window", "center": 9, "width": 100, "function": "SIGMOID"}], 2.55),
        ([WINDOW, {"op": "resize"}, {"op": "gamma", "gamma": 2}], 2),
        ([WINDOW, {"op": "resize"}, {"op": "gamma", "gamma": 0.5}], 1e3),  # a root is steep at 0
    ],
)
def test_how_far_rounding_may_take_a_value(steps: list[dict[str, Any]], most: float):
    assert planned(recipe(*steps), ONE, "NCHW", GRAY8).tolerance == pytest.approx(1e-6 * most, rel=1e-4)
