from __future__ import annotations

import numpy as np

from edgemed.graph.passes import SplitSharedWeights
from tests.graph.onnx_models import assert_same_outputs, graph, node, rand, random_feeds, run


def _weight_names(model) -> list[str]:
    return [n.inputs[1].name for n in model.graph if n.op_type in ("Conv", "Gemm", "MatMul", "Gather")]


def test_each_layer_gets_weights_of_its_own() -> None:
    nodes = [node("Conv", "x w b", "p"), node("Relu", "p", "q"), node("Conv", "q w b", "r"), node("Conv", "r w", "z")]
    model = graph(nodes, {"x": (1, 4, 5, 5)}, {"z": (1, 4, 5, 5)}, {"w": rand(4, 4, 1, 1), "b": rand(4)})
    feeds = random_feeds(model)
    before = run(model, feeds)
    assert SplitSharedWeights()(model).modified
    assert len(set(_weight_names(model))) == 3
    assert_same_outputs(before, run(model, feeds), 0)  # copies of the same numbers
    assert not SplitSharedWeights()(model).modified


def test_a_table_that_gather_reads_too_is_parted_from_the_layer() -> None:
    nodes = [node("Gather", "w i", "g"), node("MatMul", "x w", "m"), node("Add", "m g", "z")]
    weights = {"w": rand(4, 4), "i": np.array([0], dtype=np.int64)}
    model = graph(nodes, {"x": (1, 4)}, {"z": (1, 4)}, weights)
    feeds = random_feeds(model)
    before = run(model, feeds)
    assert SplitSharedWeights()(model).modified
    assert next(n for n in model.graph if n.op_type == "MatMul").inputs[1].name != "w"
    assert_same_outputs(before, run(model, feeds), 0)


def test_a_layer_that_multiplies_an_activation_stays() -> None:
    nodes = [node("MatMul", "x x", "y"), node("MatMul", "y x", "z")]
    assert not SplitSharedWeights()(graph(nodes, {"x": (3, 3)}, {"z": (3, 3)})).modified
