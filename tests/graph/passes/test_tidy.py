from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgemed.base.errors import InputError
from edgemed.graph.model import to_bytes
from edgemed.graph.passes import (
    FiniteWeights,
    LiftConstants,
    RemoveIdentity,
    RemoveUnused,
    StripDocumentation,
    UniqueNames,
)
from tests.graph.onnx_models import assert_same_outputs, graph, node, ops, rand, random_feeds, run


def _conv(weight: np.ndarray):
    return graph([node("Conv", "x w", "z")], {"x": (1, 2, 4, 4)}, {"z": (1, 2, 4, 4)}, {"w": weight})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value: float) -> None:
    weight = rand(2, 2, 1, 1)
    weight[1, 0] = value
    with pytest.raises(InputError, match="'w' hold NaN or infinity"):
        FiniteWeights()(_conv(weight))


def test_infinite_masks_and_limits_are_legal() -> None:
    nodes = [node("Add", "x mask", "z")]
    mask = np.array([0, -np.inf], dtype=np.float32)
    assert not FiniteWeights()(graph(nodes, {"x": (1, 2)}, {"z": (1, 2)}, {"mask": mask})).modified


def test_constants_become_initializers_and_identities_go() -> None:
    value = onnx.numpy_helper.from_array(rand(2, 2, 1, 1))
    nodes = [
        onnx.helper.make_node("Constant", [], ["k"], name="k", value=value),
        node("Identity", "k", "w"),
        node("Conv", "x w", "y"),
        node("Identity", "y", "z"),
    ]
    model = graph(nodes, {"x": (1, 2, 4, 4)}, {"z": (1, 2, 4, 4)})
    feeds = random_feeds(model)
    before = run(model, feeds)
    assert LiftConstants()(model).modified
    assert RemoveIdentity()(model).modified
    assert ops(model) == ["Conv"]
    assert model.graph[0].inputs[1].is_initializer()
    assert_same_outputs(before, run(model, feeds), 0)


def test_what_nothing_uses_is_removed() -> None:
    model = graph([node("Neg", "x", "unused"), node("Relu", "x", "z")], {"x": (1, 2)}, {"z": (1, 2)}, {"w": rand(3)})
    model.opset_imports["ai.onnx.ml"] = 2
    assert RemoveUnused()(model).modified
    assert (ops(model), list(model.graph.initializers), dict(model.opset_imports)) == (["Relu"], [], {"": 17})


def test_every_node_gets_a_name_and_interface_names_stay() -> None:
    model = graph([node("Relu", "x", "y"), node("Neg", "y", "z")], {"x": (1, 2)}, {"z": (1, 2)})
    model.graph[0].name = None
    model.graph[1].name = ""
    assert UniqueNames()(model).modified
    assert [n.name for n in model.graph] == ["Relu_0", "Neg_1"]
    assert [v.name for v in (*model.graph.inputs, *model.graph.outputs)] == ["x", "z"]
    assert not UniqueNames()(model).modified


def test_no_path_of_the_training_machine_is_left() -> None:
    model = graph([node("Add", "x w", "z")], {"x": (1, 2)}, {"z": (1, 2)}, {"w": rand(2)})
    secret = "home/somebody/train.py"
    model.doc_string = model.graph.doc_string = model.graph[0].doc_string = secret
    model.metadata_props["source"] = model.graph.metadata_props["source"] = secret
    model.graph[0].metadata_props["stack"] = model.graph[0].outputs[0].metadata_props["stack"] = secret
    model.graph.inputs[0].doc_string = secret
    proto = ir.to_proto(model)
    proto.graph.initializer[0].doc_string = secret
    model = ir.from_proto(proto)
    assert secret.encode() in to_bytes(model)
    assert StripDocumentation()(model).modified
    assert secret.encode() not in to_bytes(model)
