from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.graph.lint import lint
from edgemed.graph.model import infer_shapes, static_shape, values_by_name
from edgemed.graph.passes import NearestResizeMode, ResizeSizes
from tests.graph.onnx_models import assert_same_outputs, graph, node, random_feeds, run


def _resize(source: int, target: int, mode: str = "tf_half_pixel_for_nn", rounding: str = "floor", opset: int = 11):
    """tf2onnx's Resize; at opset 13 and up ONNX Runtime warns that the mode is deprecated, the numbers are the same."""
    attributes = {"mode": "nearest", "coordinate_transformation_mode": mode, "nearest_mode": rounding}
    weights = {"roi": np.zeros(0, dtype=np.float32), "s": np.array([1, 1, 1, target / source], dtype=np.float32)}
    return graph(
        [node("Resize", "x roi s", "y", **attributes)],
        {"x": (1, 1, 1, source)},
        {"y": (1, 1, 1, "w")},
        weights,
        opset=opset,
    )


@settings(max_examples=60)
@given(source=st.integers(1, 300), factor=st.sampled_from([0.25, 0.5, 1, 1.5, 2, 3, 4, 8]))
def test_the_rewritten_mode_reads_the_same_pixels(source: int, factor: float) -> None:
    model = _resize(source, max(1, round(source * factor)))
    feeds = random_feeds(model)
    before = run(model, feeds)
    result = NearestResizeMode()(model)
    assert result.modified
    assert_same_outputs(before, run(result.model, feeds), 0)  # pixels are copied
    assert not [f for f in lint(result.model) if f.rule == "resize-mode"]


@pytest.mark.parametrize(
    ("mode", "rounding"),
    [("asymmetric", "floor"), ("half_pixel", "round_prefer_ceil"), ("tf_half_pixel_for_nn", "round_prefer_floor")],
)
def test_modes_that_tensorrt_takes_stay(mode: str, rounding: str) -> None:
    assert not NearestResizeMode()(_resize(4, 8, mode, rounding)).modified


@pytest.mark.parametrize(("source", "target", "modified"), [(12, 7, True), (12, 24, False), (12, 9, False)])
def test_sizes_replace_scales_that_round_down(source: int, target: int, modified: bool) -> None:
    # 7 / 12 in FP32 is 0.58333331, and 12 * 0.58333331 is 6.9999998; 9 / 12 and 24 / 12 are exact
    model = _resize(source, target, "half_pixel", "round_prefer_ceil", opset=13)
    feeds = random_feeds(model)
    before = run(model, feeds)  # ONNX Runtime multiplies in FP32, where the product rounds up to 7
    assert ResizeSizes()(model).modified == modified
    infer_shapes(model)
    assert static_shape(values_by_name(model)["y"]) == (1, 1, 1, target)
    assert_same_outputs(before, run(model, feeds), 0)


def test_scales_that_stand_for_no_whole_size_stay() -> None:
    model = _resize(12, 24, "half_pixel", "round_prefer_ceil", opset=13)
    model.graph.initializers["s"].const_value = ir.tensor(np.array([1, 1, 1, 0.7], dtype=np.float32))
    assert not ResizeSizes()(model).modified  # 12 * 0.7 = 8.4: floor is meant
