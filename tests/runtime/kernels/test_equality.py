"""The kernels, compiled for the host, give what the recipe gives: every step, format, layout, type and size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.base.errors import InputError
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.image import Facts, Image, LookupTable, Window, plain
from edgemed.runtime.kernels.plan import KernelPlan, Refusal, plan_kernels
from edgemed.runtime.kernels.raw import RawFormat
from tests.runtime.kernels import twin
from tests.runtime.kernels.compare import agree, difference, planned, recipe, spec_of

RNG = np.random.default_rng(17)
FILTERS = ("antialias", "nearest", "bilinear", "bicubic", "lanczos", "area")

STEPS: dict[str, list[dict[str, Any]]] = {
    "window": [{"op": "window", "center": 120, "width": 150}],
    "window-exact": [{"op": "window", "center": 120, "width": 150, "function": "LINEAR_EXACT"}],
    "window-sigmoid": [{"op": "window", "center": 120, "width": 150, "function": "SIGMOID"}],
    "window-one": [{"op": "window", "center": 120, "width": 1}],
    "window-limits": [{"op": "window", "low": 20, "high": 220}],
    "scale": [{"op": "scale", "offset": 100, "divisor": 3}],
    "range": [{"op": "range", "of": "type"}],
    "zscore": [{"op": "zscore", "mean": 90, "std": 7.7}],
    "clip": [{"op": "clip", "low": 10, "high": 190}, {"op": "clip", "low": 20}, {"op": "clip", "high": 180}],
    "invert": [{"op": "invert", "low": 0, "high": 255}],
    "gamma": [{"op": "window", "low": 0, "high": 200}, {"op": "gamma", "gamma": 0.6}],
    "crop": [{"op": "crop", "size": [21, 19]}],
    "crop-box": [{"op": "crop", "box": [3, 2, 30, 17]}],
    "pad": [{"op": "pad", "size": [70, 60], "fill": 7}, {"op": "pad", "size": [80, 60], "where": "end", "fill": 3}],
    "pad-crossed": [{"op": "pad", "size": [70, 47], "fill": 7}, {"op": "pad", "size": [70, 60], "fill": 3}],
    "pads-crossed": [{"op": "pad", "size": [70, 47], "fill": 7}, {"op": "pad", "size": [70, 60], "fill": 3}],
    "flip": [{"op": "flip", "axis": "rows"}, {"op": "flip", "axis": "columns"}],
    "rotate": [{"op": "rotate90", "turns": 1}],
    "rotate-half": [{"op": "rotate90", "turns": 2}],
    "rotate-back": [{"op": "rotate90", "turns": 3}, {"op": "crop", "box": [0, 1, 40, 50]}],
    "gray": [{"op": "scale", "divisor": 2}, {"op": "gray"}, {"op": "window", "low": 3, "high": 100}],
    "rgb": [{"op": "rgb"}, {"op": "scale", "offset": [1, 2, 3], "divisor": [4, 5, 6]}],
    "nearest-twice": [{"op": "resize", "size": [31, 60], "filter": "nearest"}, {"op": "pad", "size": [64, 64]},
                      {"op": "resize", "size": [40, 40], "filter": "nearest"}],
    "pads-around": [{"op": "pad", "size": [60, 60], "fill": 200}, {"op": "resize", "filter": "area"},
                    {"op": "pad", "size": [40, 40], "fill": 90}, {"op": "invert", "low": 0, "high": 255},
                    {"op": "crop", "size": [24, 20]}, {"op": "scale", "divisor": 255}],
    "values-after": [{"op": "resize", "filter": "antialias"}, {"op": "window", "low": 30, "high": 220},
                     {"op": "gamma", "gamma": 2.2}, {"op": "zscore", "mean": 0.4, "std": 0.2}],
    "sigmoid-after": [{"op": "resize"}, {"op": "window", "center": 120, "width": 150, "function": "SIGMOID"}],
    "turned-after": [{"op": "resize", "size": [20, 24], "filter": "bilinear"}, {"op": "rotate90", "turns": 1}],
    "turned-before": [{"op": "rotate90", "turns": 3}, {"op": "flip", "axis": "rows"}, {"op": "resize"}],
} | {
    f"resize-{how}-{fit}": [{"op": "resize", "filter": how, "fit": fit, "fill": 9}]
    for how in FILTERS for fit in ("stretch", "pad", "crop")
}  # fmt: skip


GAIN = {"values-after": 65_536 / 190 / 0.2, "sigmoid-after": 65_536 / 150}  # of the deeper types: range by window


def frame(kind: str, rows: int = 53, columns: int = 47, rng: np.random.Generator = RNG) -> np.ndarray:
    if kind == "color":
        return rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    limits = {"uint8": (0, 256), "uint16": (0, 65_536), "int16": (-32_768, 32_768)}[kind]
    return rng.integers(*limits, (rows, columns)).astype(kind)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "color"])
@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_equal_to_the_recipes(name: str, kind: str):
    for layout in ("NHWC", "NCHW"):
        for channels in (1, 3):
            for dtype in ("float32", "float16"):
                rows, columns = (None, None) if name.startswith(("crop", "pad-", "rotate")) else (24, 20)
                spec = spec_of(rows, columns, channels, layout, dtype)
                plan = plan_kernels(recipe(*STEPS[name]), spec, layout, RawFormat.of(plain(frame(kind))))
                if isinstance(plan, Refusal):  # 16 bits in float16, and nothing else
                    assert dtype == "float16"
                    assert "float16 does not hold" in plan.reason
                    continue
                gain = GAIN.get(name, 1.0) if kind in ("uint16", "int16") else 1.0
                difference(recipe(*STEPS[name]), spec, layout, frame(kind), gain=gain)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16"])
def test_values_that_are_looked_up_or_computed_once_are_equal_to_the_last_bit(kind: str):
    """Gray frames without resampling, or with the recipe's own FP32 filters: no sum is taken in another order."""
    window = {"op": "window", "low": 11, "high": 199}
    for more in ([], [{"op": "resize", "filter": "area"}], [{"op": "resize", "filter": "nearest"}]):
        for size in ((53, 47), (60, 48), (72, 80), (24, 20)):
            whole = recipe(window, *more, {"op": "zscore", "mean": 0.4, "std": 0.3})
            spec = spec_of(*((24, 20) if more else (None, None)), 1, "NHWC")
            assert difference(whole, spec, "NHWC", frame(kind, *size)) == 0


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, ...]:
    side = st.one_of(st.integers(1, 9), st.integers(10, 90), st.integers(91, 400))
    rows, columns, high, wide = (draw(side) for _ in range(4))
    kind = draw(st.sampled_from(["uint8", "uint16", "int16", "color"]))
    low = draw(st.floats(-40_000, 40_000, width=32))
    width = draw(st.floats(1, 50_000))
    steps: list[dict[str, Any]] = [{"op": "window", "low": low, "high": low + width}]
    resize = {"op": "resize", "filter": draw(st.sampled_from(FILTERS)), "fill": draw(st.floats(-1, 1)),
              "fit": draw(st.sampled_from(["stretch", "pad", "crop"]))}  # fmt: skip
    steps.insert(draw(st.integers(0, 1)), resize)
    if draw(st.booleans()):
        before = draw(st.integers(0, steps.index(resize)))  # behind, it would ask for a second resize
        steps.insert(before, {"op": "rotate90", "turns": draw(st.integers(1, 3))})
    if draw(st.booleans()):
        steps.insert(draw(st.integers(0, 2)), {"op": "flip", "axis": draw(st.sampled_from(["rows", "columns"]))})
    if draw(st.booleans()):
        steps.append({"op": "zscore", "mean": 0.45, "std": 0.22})
    layout = draw(st.sampled_from(["NHWC", "NCHW"]))
    spec = spec_of(high, wide, draw(st.sampled_from([1, 3])), layout, draw(st.sampled_from(["float32", "float16"])))
    color = draw(st.sampled_from(["gray", None]))
    gain = (
        1.0 if steps[0]["op"] == "window" else max(1.0, 65_536 / width)
    )  # nothing is rounded before the window, or all
    return recipe(*steps, color=color), spec, layout, kind, (rows, columns), gain


@given(cases(), st.integers(0, 2**32 - 1))
@settings(max_examples=400)
def test_any_geometry_window_and_type(case: tuple[Any, ...], seed: int):
    whole, spec, layout, kind, size, gain = case
    pixels = frame(kind, *size, rng=np.random.default_rng(seed))
    try:
        Preprocessor(whole, spec, layout)(pixels)
    except InputError:  # a side beyond the limit of resampling
        with pytest.raises(InputError):
            plan_kernels(whole, spec, layout, RawFormat.of(plain(pixels)))
        return
    difference(whole, spec, layout, pixels, gain=gain)


@pytest.mark.parametrize("how", FILTERS)
@pytest.mark.parametrize(("old", "new"), [((1, 700), (1, 3)), ((900, 1), (7, 1)), ((3, 5), (300, 1)), ((1, 1), (9, 8))])
def test_lines_and_single_pixels(how: str, old: tuple[int, int], new: tuple[int, int]):
    for kind in ("uint8", "int16", "color"):
        difference(recipe({"op": "resize", "filter": how}), spec_of(*new, 1, "NCHW"), "NCHW", frame(kind, *old))


@pytest.mark.parametrize("how", ["antialias", "area", "lanczos"])
def test_a_large_reduction_takes_smaller_tiles(how: str):
    spec = spec_of(5, 4, 3, "NCHW")
    whole = recipe(
        {"op": "resize", "filter": how},
        {"op": "range", "of": "type"} if how == "area" else {"op": "flip", "axis": "rows"},
    )
    pixels = frame("color", 1500, 1900)
    plan = planned(whole, spec, "NCHW", RawFormat.of(plain(pixels)))
    assert plan.block.shared_bytes <= 48 << 10
    difference(whole, spec, "NCHW", pixels)


def test_flat_keys_alone():
    for how in ("antialias", "nearest"):
        whole = recipe(resize=how, scaling={"offset": [123.7, 116.8, 103.9], "divisor": [58.4, 57.1, 57.4]})
        for shape in ((53, 47), (13, 9), (48, 40), (24, 20)):
            for kind in ("uint8", "color"):
                difference(whole, spec_of(24, 20, 3, "NHWC"), "NHWC", frame(kind, *shape))


def test_a_color_frame_whose_channels_are_equal_is_gray_exactly():
    gray = frame("uint8")
    color = np.repeat(gray[..., None], 3, axis=-1)
    assert difference(recipe(color="gray"), spec_of(None, None, 1, "NHWC"), "NHWC", color) == 0


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("width", [1, 1.5, 2, 400, 65_535])
def test_windows_of_the_file_of_any_width(function: str, width: float):
    pixels = frame("int16")
    pixels[:8, :] = np.arange(-188, 188).reshape(8, 47)
    image = Image(pixels, Facts(*pixels.shape, bits=16), windows=(Window(0, 9), Window(40, width, function)))
    whole = recipe({"op": "window", "file": True, "index": 1}, {"op": "resize", "fit": "pad"})
    difference(whole, spec_of(24, 20, 1, "NHWC"), "NHWC", image)


def test_voi_tables_of_the_file():
    table = LookupTable(-300, RNG.integers(0, 4096, 700).astype(np.uint16), 12)
    pixels = RNG.integers(-800, 800, (53, 47)).astype(np.int16)
    image = Image(pixels, Facts(53, 47, bits=12), tables=(table,))
    whole = recipe({"op": "window", "file": True}, {"op": "resize", "filter": "bicubic"})
    difference(whole, spec_of(24, 20, 1, "NHWC"), "NHWC", image)


def test_a_file_without_a_window_takes_the_range_of_its_stored_bits():
    image = Image(frame("uint16") & 4095, Facts(53, 47, bits=12), stored_range=(0.0, 4095.0))
    whole = recipe({"op": "window", "file": True, "otherwise": "range"})
    assert difference(whole, spec_of(None, None, 1, "NHWC"), "NHWC", image) == 0


def test_pixels_as_far_apart_as_the_recipe_says():
    image = Image(frame("int16"), Facts(53, 47, bits=16, spacing=(0.7, 0.4)))
    spacing, window = {"op": "spacing", "mm": [1.0, 0.5], "filter": "area"}, {"op": "window", "low": -9, "high": 2000}
    resize = {"op": "resize", "size": [30, 60], "filter": "nearest"}
    for before in (
        [],
        [{"op": "rotate90"}],
        [resize],
        [{"op": "crop", "size": [20, 30]}, {"op": "rotate90", "turns": 3}],
    ):
        difference(recipe(*before, spacing, window), spec_of(None, None, 1, "NHWC"), "NHWC", image, gain=16.0)


@pytest.mark.parametrize("layout", ["NDHWC", "NCDHW", "NTHWC"])
def test_all_frames_of_a_clip_in_one_launch(layout: Any):
    pixels = RNG.integers(0, 256, (5, 53, 47, 3), dtype=np.uint8)
    pixels[2] = pixels[2, ..., :1]
    image = Image(pixels, Facts(53, 47, 5, bits=8), stacked=True)
    shape = (1, 1, 5, 24, 20) if layout == "NCDHW" else (1, 5, 24, 20, 1)
    whole = recipe({"op": "range", "of": "type"}, {"op": "resize", "fit": "pad"}, color="gray", kind="cine")
    difference(whole, spec_of(1, 1, 1, "NHWC").__class__("x", "float32", shape), layout, image)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (1, -1024), (2, 7), (0.5, -3.25), (-1, 0)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_stored_values_with_rescale_and_inversion(dtype: str, slope: float, intercept: float, inverted: bool):
    """12 bits in 16, the others full of something else, as old files with overlays have them."""
    bits = 8 if dtype == "uint8" else 12
    stored = frame(dtype)
    low = RawFormat(53, 47, dtype).stored(bits=bits, slope=slope, intercept=intercept, inverted=inverted)
    image = low.image(stored)
    signed = dtype == "int16"
    number = stored.astype(np.int64) & (1 << bits) - 1
    number = np.where(signed & (number >= 1 << bits - 1), number - (1 << bits), number)
    expected = number * slope + intercept
    ends = np.array([-(1 << bits - 1), (1 << bits - 1) - 1] if signed else [0, (1 << bits) - 1]) * slope + intercept
    np.testing.assert_array_equal(image.pixels, ends.sum() - expected if inverted else expected)
    whole = recipe({"op": "window", "center": 300, "width": 900}, {"op": "resize", "filter": "area"})
    plan = planned(whole, spec_of(24, 20, 1, "NHWC"), "NHWC", low)
    sample = Preprocessor(whole, spec_of(24, 20, 1, "NHWC"))(image)
    assert agree(plan, sample, stored) == 0


def camera_plan(raw: RawFormat, layout: Any = "NCHW") -> tuple[KernelPlan, Any]:
    whole = recipe({"op": "range", "of": "type"}, {"op": "resize", "fit": "pad"})
    spec = spec_of(24, 20, 3, layout)
    return planned(whole, spec, layout, raw), Preprocessor(whole, spec, layout)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["601", "709", "2020"])
@pytest.mark.parametrize("pixels", ["yuyv", "uyvy", "nv12", "nv21"])
def test_camera_formats(pixels: Any, matrix: Any, full_range: bool):
    raw = RawFormat(54, 46, pixels=pixels, matrix=matrix, full_range=full_range)
    taken = RNG.integers(0, 256, raw.shape, dtype=np.uint8)
    plan, make = camera_plan(raw)
    agree(plan, make(raw.image(taken)), taken)


@pytest.mark.parametrize("pixels", ["yuyv", "uyvy", "nv12", "nv21"])
def test_camera_pixels_are_equal_to_the_last_bit(pixels: Any):
    raw = RawFormat(54, 46, pixels=pixels)
    taken = RNG.integers(0, 256, raw.shape, dtype=np.uint8)
    spec = spec_of(None, None, 3, "NHWC")
    plan = planned(recipe(), spec, "NHWC", raw)
    np.testing.assert_array_equal(twin.run(plan, taken)[0], raw.image(taken).pixels)


@pytest.mark.parametrize(
    "raw",
    [
        RawFormat(54, 46, "int16", stride=64),
        RawFormat(54, 46, pixels="bgr", stride=160),
        RawFormat(54, 46, pixels="yuyv", stride=93),
        RawFormat(54, 46, pixels="nv12", stride=64, frames=None),
        RawFormat(54, 46, "uint16", stride=47).stored(bits=12, slope=0.1),
    ],
    ids=lambda raw: raw.pixels + raw.dtype,
)
def test_rows_with_something_behind_them(raw: RawFormat):
    limits = np.iinfo(raw.dtype)
    taken = RNG.integers(limits.min, limits.max, raw.shape, endpoint=True).astype(raw.dtype)
    whole = recipe({"op": "rotate90"}, {"op": "resize", "filter": "area"})
    spec = spec_of(30, 24, 3, "NCHW")
    agree(planned(whole, spec, "NCHW", raw), Preprocessor(whole, spec, "NCHW")(raw.image(taken)), taken)


def test_bytes_for_a_graph_that_prepares_them_itself():
    """What a folded graph takes: bytes as they are, whatever the camera's format."""
    whole = recipe({"op": "crop", "box": [2, 4, 40, 32]}, {"op": "flip", "axis": "columns"}, folded=True, resize="none")
    spec = spec_of(None, None, 3, "NHWC", "uint8")
    for raw in (RawFormat(54, 46, pixels="nv12"), RawFormat(54, 46, pixels="bgr")):
        taken = RNG.integers(0, 256, raw.shape, dtype=np.uint8)
        plan = planned(whole, spec, "NHWC", raw)
        np.testing.assert_array_equal(twin.run(plan, taken), Preprocessor(whole, spec)(raw.image(taken)))


def test_whole_numbers_are_rounded_and_held_as_the_recipe_does():
    whole = recipe({"op": "scale", "offset": 100, "divisor": 2.5})
    spec = spec_of(None, None, 1, "NHWC", "uint8")
    pixels = np.arange(-300, 900, dtype=np.int16).reshape(30, 40)
    plan = planned(whole, spec, "NHWC", RawFormat.of(plain(pixels)))
    np.testing.assert_array_equal(twin.run(plan, pixels), Preprocessor(whole, spec)(pixels))


def test_blue_first():
    color = frame("color")
    raw = RawFormat(53, 47, pixels="bgr")
    plan, make = camera_plan(raw)
    agree(plan, make(color), np.ascontiguousarray(color[..., ::-1]))


def test_several_frames_of_a_camera():
    raw = RawFormat(54, 46, pixels="nv12", frames=3)
    taken = RNG.integers(0, 256, raw.shape, dtype=np.uint8)
    whole = recipe({"op": "range", "of": "type"}, kind="cine", color="gray")
    spec = spec_of(1, 1, 1, "NHWC").__class__("x", "float32", (1, 3, 24, 20, 1))
    plan = planned(whole, spec, "NTHWC", raw)
    agree(plan, Preprocessor(whole, spec, "NTHWC")(raw.image(taken)), taken)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_the_way_back_is_the_recipes(layout: Any):
    """A map of two classes comes back to the same pixels of the frame."""
    whole = recipe({"op": "crop", "box": [3, 2, 40, 40]}, {"op": "rotate90"}, {"op": "resize", "fit": "pad"})
    pixels, spec = frame("uint8"), spec_of(24, 20, 1, layout)
    plan = planned(whole, spec, layout, RawFormat.of(plain(pixels)))
    prepared = Preprocessor(whole, spec, layout).prepare(pixels)
    assert plan.transform == prepared.transform
    answer = RNG.random((1, 2, 24, 20) if layout == "NCHW" else (1, 24, 20, 2)).astype(np.float32)
    np.testing.assert_array_equal(plan.way_back.to_source(answer), prepared.to_source(answer))


@pytest.mark.parametrize("towards", [None, -np.inf, np.inf])
def test_float16_is_rounded_as_numpy_does(towards: float | None):
    """The middle between each two float16 numbers, subnormal ones too, and the float32 on either side of it."""
    numbers = np.arange(0x7BFF, dtype=np.uint16)
    middles = (numbers.view(np.float16).astype(np.float32) + (numbers + 1).view(np.float16).astype(np.float32)) / 2
    values = np.zeros(1 << 16, np.float32)
    values[: 2 * len(middles)] = np.concatenate([middles, -middles])
    if towards is not None:
        values = np.nextafter(values, np.float32(towards))
    raw = RawFormat(256, 256, "uint16", values=values)
    stored = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    found = twin.run(planned(recipe(), spec_of(None, None, 1, "NHWC", "float16"), "NHWC", raw), stored)
    assert found.tobytes() == values.astype(np.float16).tobytes()
