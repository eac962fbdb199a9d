"""Nodes find their Keras layers, though TensorFlow numbers scopes as Keras numbers layers."""

from __future__ import annotations

import pytest

from edgemed.graph.layers import KerasLayers


def found(names: str, nodes: str) -> list[str | None]:
    layers = KerasLayers(names.split(), nodes.split())
    return [layers.of(node) for node in nodes.split()]


@pytest.mark.parametrize(
    ("names", "nodes", "layers"),
    [
        # as Keras 3 traces a model: every scope has a number of TensorFlow's behind the layer's own
        (
            "conv2d conv2d_1 conv2d_2 dense",
            "m_1/conv2d_1/BiasAdd m_1/conv2d_1_2/BiasAdd m_1/conv2d_2_1/Relu m_1/dense_1/MatMul_Gemm__7",
            ["conv2d", "conv2d_1", "conv2d_2", "dense"],
        ),
        # as Keras 2 and SavedModels do: scopes are the layers' names
        ("conv2d conv2d_1 dense", "m/conv2d/Conv m/conv2d_1/Conv m/dense/x:0", ["conv2d", "conv2d_1", "dense"]),
        # the layer that would tell was folded away: the others are numbered, so this one is
        ("conv2d conv2d_1 dense", "m/conv2d_1/Conv m/dense_1/x", ["conv2d", "dense"]),
        ("conv2d conv2d_1 dense", "m/conv2d_1/Conv m/dense/x", ["conv2d_1", "dense"]),
        # nested models: the innermost layer
        ("inner conv", "outer/inner_1/conv_1/Conv", ["conv"]),
        # one layer called twice
        ("shared", "m/shared/Conv m/shared_1/Conv", ["shared", "shared"]),
        ("conv", "m/other/Conv Identity", [None, None]),
        ("", "m/conv_1/Conv", [None]),
    ],
)
def test_layers(names, nodes, layers):
    assert found(names, nodes) == layers


def test_a_node_without_a_name_has_no_layer():
    assert KerasLayers(["a"], ["a"]).of(None) is None
