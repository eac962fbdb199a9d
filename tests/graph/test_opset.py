"""Lowering the opset changes the number, never the answers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgemed.graph.opset import lower_opset, lowest_opset
from tests.graph.onnx_models import assert_same_outputs, graph, node, rand, random_feeds, run


def lowered(model: ir.Model, expected: int) -> None:
    feeds = random_feeds(model)
    before = run(model, feeds)
    after = lower_opset(model.clone())
    assert after.opset_imports[""] == lowest_opset(model) == expected
    after.ir_version = 7 if expected < 15 else 8
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    assert_same_outputs(before, run(after, feeds), 0)


def test_a_convolutional_graph_with_q_dq_needs_thirteen():
    weights = {
        "w": rand(8, 3, 3, 3),
        "s": np.float32(0.02),
        "z": np.int8(0),
        "shape": np.array([1, -1]),
        "b": rand(8, 1, 1),
    }
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Conv", "d w", "c"),
        node("Add", "c b", "a"),
        node("Relu", "a", "r"),
        node("Reshape", "r shape", "f", allowzero=0),
        node("LeakyRelu", "f", "y", alpha=0.1),
    ]
    lowered(graph(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 288]}, weights), 13)


@pytest.mark.parametrize(
    ("nodes", "weights", "expected"),
    [
        ([node("LayerNormalization", "x g", "y")], {"g": rand(8)}, 17),
        ([node("Mish", "x", "y")], {}, 18),
        (
            [node("BatchNormalization", "x g g g v", "y")],
            {"g": rand(3), "v": np.abs(rand(3)) + 1},
            14,
        ),
        ([node("Pow", "x p", "y")], {"p": np.float32(2)}, 13),
    ],
)
def test_an_operator_that_came_later_keeps_its_number(nodes, weights, expected):
    lowered(graph(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 3, 8, 8]}, weights, opset=max(17, expected)), expected)


def test_an_attribute_that_means_something_new_keeps_its_number():
    nodes = [node("Shape", "x", "n", start=1, end=3), node("Reshape", "x n", "y", allowzero=1)]
    model = graph(nodes, {"x": [1, 3, 4]}, {"y": [3, 4]})
    lowered(model, 15)
