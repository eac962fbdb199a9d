"""A folded recipe gives what the recipe gives in Python, for every step that can be folded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.build.fold import Folding, fold, plan, require_way_back
from edgemed.graph.model import to_bytes
from edgemed.graph.values import PREFIX, is_preprocessing
from edgemed.recipe.apply import Preprocessor
from edgemed.recipe.image import Image, plain
from edgemed.recipe.schema import Layout, Recipe
from edgemed.runners.ort import OnnxRuntimeRunner

_CLOSE = 3e-6
"""Of the largest value: FP32 sums of up to some hundred products in another order, each rounded at 6e-8."""


def recipe(*steps: dict[str, object], **given: object) -> Recipe:
    return Recipe.model_validate({"input": {"steps": steps, **given}})


def identity(spec: TensorSpec) -> ir.Model:
    source = ir.Value(name=spec.name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(spec.shape))
    node = ir.node("Identity", [source], outputs=[ir.Value(name="out")], name="model")
    node.outputs[0].type, node.outputs[0].shape = source.type, source.shape
    graph = ir.Graph([source], node.outputs, nodes=[node], opset_imports={"": 17}, name="g")
    return ir.Model(graph, ir_version=8)


def both_ways(
    whole: Recipe, spec: TensorSpec, image: np.ndarray, layout: Layout = "NHWC"
) -> tuple[Folding, np.ndarray, np.ndarray]:
    """What Python makes of an image, and what the rest of the recipe and the folded graph make of it."""
    expected = Preprocessor(whole, spec, layout)(image)
    folding = plan(whole, spec, layout, [plain(image)])
    fed = Preprocessor(folding.rest, folding.spec)(image)
    assert fed.dtype == folding.spec.dtype
    with OnnxRuntimeRunner(to_bytes(fold(identity(spec), folding))) as runner:
        found = runner.infer({spec.name: fed})["out"]
    return folding, expected, found


def pixels(*shape: int, dtype: type = np.uint16, top: int = 4096) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, shape).astype(dtype)


GRAY = TensorSpec("x", "float32", (1, 24, 20, 1))
COLOR = TensorSpec("x", "float32", (1, 24, 20, 3))

STEPS: dict[str, list[dict[str, object]]] = {
    "window": [{"op": "window", "center": 2000, "width": 1500}],
    "window-exact": [{"op": "window", "center": 2000, "width": 1500, "function": "LINEAR_EXACT"}],
    "window-sigmoid": [{"op": "window", "center": 2000, "width": 1500, "function": "SIGMOID"}],
    "window-step": [{"op": "window", "center": 2000, "width": 1}],
    "window-limits": [{"op": "window", "low": 200, "high": 3200}],
    "scale": [{"op": "scale", "offset": 1000, "divisor": 3}],
    "zscore": [{"op": "zscore", "mean": 900, "std": 77}],
    "clip": [{"op": "clip", "low": 100, "high": 900}, {"op": "clip", "low": 200}, {"op": "clip", "high": 800}],
    "invert": [{"op": "invert", "low": 0, "high": 4095}],
    "gamma": [{"op": "window", "low": 0, "high": 4095}, {"op": "gamma", "gamma": 0.6}],
    "crop": [{"op": "crop", "size": [21, 19]}],
    "crop-box": [{"op": "crop", "box": [3, 2, 30, 17]}],
    "pad": [{"op": "pad", "size": [70, 60], "fill": 7}, {"op": "pad", "size": [80, 60], "where": "end"}],
    "flip": [{"op": "flip", "axis": "rows"}, {"op": "flip", "axis": "columns"}],
    "rotate": [{"op": "rotate90", "turns": 1}],
    "rotate-back": [{"op": "rotate90", "turns": 3}],
    "resize-pad": [{"op": "resize", "size": [24, 20], "fit": "pad", "fill": 3}],
    "resize-crop": [{"op": "resize", "size": [24, 20], "fit": "crop"}],
    "resize-model": [{"op": "resize", "filter": "area"}, {"op": "window", "low": 0, "high": 4095}],
} | {
    f"resize-{how}": [{"op": "resize", "size": [31, 17], "filter": how}]
    for how in ("antialias", "nearest", "bilinear", "bicubic", "lanczos", "area")
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_every_foldable_step_is_equal_to_python(name: str, layout: Layout):
    spec = GRAY if layout == "NHWC" else TensorSpec("x", "float32", (1, 1, 24, 20))
    folding, expected, found = both_ways(recipe(*STEPS[name], color="gray"), spec, pixels(53, 47), layout)
    assert not folding.rest.input.steps
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=_CLOSE * np.abs(expected).max())


def test_flat_keys_are_folded_and_bytes_stay_bytes():
    whole = recipe(scaling={"offset": [123.7, 116.8, 103.9], "divisor": [58.4, 57.1, 57.4]})
    folding, expected, found = both_ways(whole, COLOR, pixels(48, 40, 3, dtype=np.uint8, top=256))
    assert folding.spec == TensorSpec("x", "uint8", (1, 48, 40, 3))
    np.testing.assert_allclose(found, expected, rtol=0, atol=_CLOSE * np.abs(expected).max())


@pytest.mark.parametrize("how", ["antialias", "nearest"])
@pytest.mark.parametrize("shape", [(53, 47), (13, 9), (48, 40), (24, 20)])
def test_the_flat_size_is_folded_as_it_is_read(how: str, shape: tuple[int, int]):
    _, expected, found = both_ways(recipe(color="gray", resize=how), GRAY, pixels(*shape))
    np.testing.assert_allclose(found, expected, rtol=0, atol=_CLOSE * 4096)


def test_gray_images_for_a_colour_model_and_colour_for_a_gray_one():
    whole = recipe(scaling={"divisor": 255})
    for spec, shape in ((COLOR, (48, 40)), (GRAY, (48, 40, 3))):
        folding, expected, found = both_ways(whole, spec, pixels(*shape, dtype=np.uint8, top=256))
        np.testing.assert_allclose(found, expected, rtol=0, atol=_CLOSE)
        assert folding.spec.shape == (1, 48, 40, 3)  # gray is repeated before the model, colour reduced inside
        assert folding.spec.dtype == "uint8"


def test_what_only_python_can_do_stays_there_with_all_before_it():
    steps = [
        {"op": "scale", "divisor": 2},
        {"op": "window", "percentiles": [1, 99]},
        {"op": "resize", "filter": "area"},
        {"op": "invert"},
    ]
    folding, expected, found = both_ways(recipe(*steps, color="gray"), GRAY, pixels(48, 40))
    assert [step.op for step in folding.rest.input.steps] == ["scale", "window"]
    assert folding.described.startswith("resize, invert")
    assert folding.spec.dtype == "float32"
    np.testing.assert_allclose(found, expected, rtol=0, atol=_CLOSE)


def test_other_batches_than_one():
    spec = TensorSpec("x", "float32", (None, 24, 20, 1))
    model = identity(spec)
    model.graph.inputs[0].shape = model.graph.outputs[0].shape = ir.Shape(["batch", 24, 20, 1])
    whole = recipe({"op": "window", "low": 0, "high": 4095}, color="gray")
    images = [pixels(53, 47), pixels(53, 47)[::-1]]
    folding = plan(whole, spec, "NHWC", [plain(image) for image in images])
    fed = np.concatenate([Preprocessor(folding.rest, folding.spec)(image) for image in images])
    with OnnxRuntimeRunner(to_bytes(fold(model, folding))) as runner:
        found = runner.infer({"x": fed})["out"]
    expected = np.concatenate([Preprocessor(whole, spec)(image) for image in images])
    np.testing.assert_allclose(found, expected, rtol=0, atol=_CLOSE)


def test_the_nodes_are_known_by_their_names():
    folding = plan(recipe(color="gray", scaling={"divisor": 2}), GRAY, "NHWC", [plain(pixels(24, 20))])
    model = fold(identity(GRAY), folding)
    assert [is_preprocessing(node) for node in model.graph][-1] is False
    assert all(node.name.startswith(PREFIX) for node in list(model.graph)[:-1])
    assert model.graph.inputs[0].name == "x"


@pytest.mark.parametrize(
    ("whole", "spec", "images", "message"),
    [
        (recipe(), GRAY, [pixels(48, 40), pixels(40, 48)], "differ in size .48×40, 40×48."),
        (recipe(), TensorSpec("x", "float32", (1, 5)), [pixels(48, 40)], "Only what makes an image"),
        (recipe({"op": "scale", "divisor": 2}), GRAY, [pixels(48, 40)], "makes them gray after its steps"),
        (Recipe(assumed=True), GRAY, [pixels(48, 40)], "the recipe is assumed"),
    ],
)
def test_what_cannot_be_folded_is_refused(whole: Recipe, spec: TensorSpec, images: list[np.ndarray], message: str):
    with pytest.raises(InputError, match=message):
        plan(whole, spec, "NHWC", [plain(image) for image in images])


def test_a_crop_beyond_the_image_is_refused():
    whole = recipe({"op": "crop", "size": [30, 30]}, color="gray")
    folding = plan(whole, GRAY, "NHWC", [Image(pixels(24, 20), plain(pixels(24, 20)).facts)])
    with pytest.raises(InputError, match="crops more than the 24×20 image has"):
        fold(identity(GRAY), folding)


@pytest.mark.parametrize(
    ("step", "moves"),
    [
        ({"op": "flip", "axis": "rows"}, True),
        ({"op": "rotate90", "turns": 2}, True),
        ({"op": "pad", "size": [60, 60]}, True),
        ({"op": "crop", "size": [30, 30]}, True),
        ({"op": "resize", "fit": "pad"}, True),
        ({"op": "resize", "fit": "crop"}, True),
        ({"op": "resize", "filter": "area"}, False),
        ({"op": "scale", "divisor": 2}, False),
    ],
)
def test_maps_are_not_moved_by_a_graph(step: dict[str, object], moves: bool):
    """`map_to_source` would lay them on the wrong pixels: it knows what Python did alone."""
    folding = plan(recipe(step, color="gray"), GRAY, "NHWC", [plain(pixels(53, 47))])
    score = ir.Value(name="score", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 2]))
    require_way_back(folding, [score])
    if moves:
        with pytest.raises(InputError, match="The output out is a map"):
            require_way_back(folding, identity(GRAY).graph.outputs)
    else:
        require_way_back(folding, identity(GRAY).graph.outputs)


def test_maps_of_channels_first_models_are_not_folded():
    """The folded graph takes channels last and still answers with channels first."""
    first = TensorSpec("x", "float32", (1, 1, 24, 20))
    folding = plan(recipe({"op": "scale", "divisor": 2}, color="gray"), first, "NCHW", [plain(pixels(53, 47))])
    with pytest.raises(InputError, match="the layout NCHW"):
        require_way_back(folding, identity(first).graph.outputs)


def test_a_graph_of_bytes_takes_no_deeper_images():
    """They would be held to 255, in silence."""
    whole = recipe({"op": "window", "low": 0, "high": 255}, color="gray")
    folding = plan(whole, GRAY, "NHWC", [plain(pixels(48, 40, dtype=np.uint8, top=256))])
    assert folding.spec.dtype == "uint8"
    fed = Preprocessor(folding.rest, folding.spec)
    for deeper in (pixels(48, 40), pixels(48, 40).astype(np.int16) - 1024, pixels(48, 40).astype(np.float32)):
        with pytest.raises(InputError, match="the graph prepares images of uint8 itself"):
            fed(deeper)
    gray = np.repeat(pixels(48, 40, 1, dtype=np.uint8, top=256), 3, axis=2)
    np.testing.assert_array_equal(fed(gray)[0, ..., 0], gray[..., 0])  # gray stored as colour is exact
    with pytest.raises(InputError, match="comes as float32"):
        fed(pixels(48, 40, 3, dtype=np.uint8, top=256))  # luma is not whole
