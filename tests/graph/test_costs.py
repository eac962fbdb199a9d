"""Every number here is derived by hand in the comment beside it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgemed.base.errors import InputError
from edgemed.graph.costs import LayerCost, costs
from tests.graph.onnx_models import FLOAT, graph, node, rand

BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64


def test_conv_relu() -> None:
    # 4 out channels on 6x6 places, each a sum over 3 channels x 3x3: 4 * 36 * 27 = 3888 MACs.
    # Weights 4*3*3*3 + bias 4 = 112 FP32; reads 3*8*8 = 192 FP32, writes 4*6*6 = 144 FP32.
    nodes = [node("Conv", "x w b", "y"), node("Relu", "y", "z")]
    model = graph(nodes, {"x": (1, 3, 8, 8)}, {"z": (1, 4, 6, 6)}, {"w": rand(4, 3, 3, 3), "b": rand(4)})
    assert costs(model) == (
        LayerCost("y", "Conv", 3888, 448, 768, 576),
        LayerCost("z", "Relu", 0, 0, 576, 576),
    )


def test_depthwise_conv() -> None:
    # one channel per group: 8 * 4*4 places * 1 * 9 = 1152
    model = graph(
        [node("Conv", "x w", "y", group=8, strides=[2, 2], pads=[1, 1, 1, 1])],
        {"x": (1, 8, 8, 8)},
        {"y": (1, 8, 4, 4)},
        {"w": rand(8, 1, 3, 3)},
    )
    assert costs(model)[0].macs == 1152


def test_conv_transpose_in_groups() -> None:
    # each of 4 * 5*5 inputs is spread over 6/2 channels x 2x2: 100 * 12 = 1200; without gaps or overlap that is also
    # the 6 * 10*10 outputs times 4/2 inputs each
    model = graph(
        [node("ConvTranspose", "x w", "y", group=2, strides=[2, 2])],
        {"x": (1, 4, 5, 5)},
        {"y": (1, 6, 10, 10)},
        {"w": rand(4, 3, 2, 2)},
    )
    assert costs(model)[0].macs == 1200 == 6 * 100 * 2


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed: int) -> None:
    # 3x7 times 7x5
    model = graph(
        [node("Gemm", "x w c", "y", transA=transposed, transB=transposed)],
        {"x": (7, 3) if transposed else (3, 7)},
        {"y": (3, 5)},
        {"w": rand(5, 7) if transposed else rand(7, 5), "c": rand(5)},
    )
    assert costs(model) == (LayerCost("y", "Gemm", 105, 160, 84, 60),)


def test_batched_matmul_of_two_activations_has_no_weights() -> None:
    # 2 heads, 5x3 times 3x4: 2 * 5 * 4 * 3 = 120; reads 2*15 + 2*12 = 54 FP32, writes 40
    model = graph([node("MatMul", "x y", "z")], {"x": (1, 2, 5, 3), "y": (1, 2, 3, 4)}, {"z": (1, 2, 5, 4)})
    assert costs(model) == (LayerCost("z", "MatMul", 120, 0, 216, 160),)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_recurrent_layers(op: str, gates: int, direction: str) -> None:
    # 10 steps, per direction and gate 8 units of 6 inputs and 8 states: 10 * gates * 8 * 14
    n = 2 if direction == "bidirectional" else 1
    weights = {"w": rand(n, gates * 8, 6), "r": rand(n, gates * 8, 8)}
    nodes = [node(op, "x w r", "y", hidden_size=8, direction=direction)]
    cost = costs(graph(nodes, {"x": (10, 1, 6)}, {"y": (10, n, 1, 8)}, weights))[0]
    assert cost.macs == n * gates * 1120
    assert cost.weight_bytes == n * gates * 8 * 14 * 4


@pytest.mark.parametrize(("rounds", "macs"), [(5, 5 * 2 * 3 * 4), (2**40, 0)])
def test_a_loop_counts_its_body_once_per_round(rounds: int, macs: int) -> None:
    """tf2onnx writes a huge number where only a condition ends the loop."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("MatMul", ["s", "w"], ["t"]), helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [value("i", INT64, []), value("c", BOOL, []), value("s", FLOAT, [2, 3])],
        [value("d", BOOL, []), value("t", FLOAT, [2, 4])],
    )
    weights = {"w": rand(3, 4), "n": np.int64(rounds), "on": np.array(True)}
    loop = helper.make_node("Loop", ["n", "on", "x"], ["y"], name="y", body=body)
    (cost,) = costs(graph([loop], {"x": (2, 3)}, {"y": (2, 4)}, weights))
    assert cost.macs == macs


def test_int8_weights_count_as_they_are_stored() -> None:
    # 4*3*3*3 = 108 bytes INT8, 4 FP32 scales and 4 INT8 zero points; their dequantizer is not a layer
    weights = {"i": np.ones((4, 3, 3, 3), np.int8), "s": np.full(4, 0.1, np.float32), "z": np.zeros(4, np.int8)}
    nodes = [node("DequantizeLinear", "i s z", "w", axis=0), node("Conv", "x w", "y")]
    model = graph(nodes, {"x": (1, 3, 8, 8)}, {"y": (1, 4, 6, 6)}, weights)
    assert costs(model) == (LayerCost("y", "Conv", 3888, 108 + 16 + 4, 768, 576),)


def test_a_weight_read_twice_by_one_node_counts_once() -> None:
    model = graph([node("Sum", "x w w", "y")], {"x": (2, 3)}, {"y": (2, 3)}, {"w": rand(2, 3)})
    assert costs(model)[0].weight_bytes == 24


def test_unknown_shapes_are_refused_by_name() -> None:
    model = graph([node("Conv", "x w", "y")], {"x": ("n", 3, 8, 8)}, {"y": None}, {"w": rand(4, 3, 3, 3)})
    with pytest.raises(InputError, match="shape of 'y' at Conv 'y' is not known"):
        costs(model)


def test_mixed_types_count_their_own_bytes() -> None:
    # 6 FP32 read, 6 FP16 written
    nodes = [node("Cast", "x", "h", to=10), node("Cast", "h", "y", to=FLOAT)]
    found = costs(graph(nodes, {"x": (2, 3)}, {"y": (2, 3)}))
    assert [(c.input_bytes, c.output_bytes) for c in found] == [(24, 12), (12, 24)]
