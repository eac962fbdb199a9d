"""Every placement rule on the smallest graph that shows it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgemed.graph.lint import lint
from edgemed.graph.scales import ScaleTable, TensorScale, scale_of
from edgemed.quantize.insert import insert
from edgemed.quantize.placement import Placement, place
from tests.quantize.onnx_text import conv, graph


def placed(model: ir.Model) -> Placement:
    """Place, and hold what would be written against our own lint: the two must never disagree."""
    copy = model.clone()
    tensors = {v.name: TensorScale(amax=1.0, scale=scale_of(1.0), seen=1.0) for v in model.graph.inputs}
    tensors |= {v.name: tensors[model.graph.inputs[0].name] for node in model.graph for v in node.outputs}
    digests = dict.fromkeys(("data_digest", "recipe_digest", "graph_digest"), "0" * 64)
    table = ScaleTable(schema="edgemed/scales/1", method="minmax", images=1, tensors=tensors, **digests)
    written = insert(copy, place(copy), table)
    assert [finding for finding in lint(written) if finding.severity == "error"] == []
    return place(model)


def pairs(placement: Placement) -> dict[str, set[str]]:
    """Tensor name -> names of the nodes that read its Q/DQ pair."""
    return {a.tensor.name: {node.name for node, _ in a.uses} for a in placement.activations}


def reason(placement: Placement, node: str) -> str:
    return next(layer.reason for layer in placement.layers if layer.node == node)


def test_a_conv_gets_a_pair_on_its_input_and_per_channel_weights_but_none_on_bias_or_output():
    model = graph("float[1,16,8,8] x", "float[1,32,6,6] y", "c = Conv(x, w, b) y = Relu(c)", w=conv(32, 16), b=(32,))
    placement = placed(model)
    assert pairs(placement) == {"x": {"c"}}
    assert [(w.node.name, w.index, w.axis) for w in placement.weights] == [("c", 1, 0)]


@pytest.mark.parametrize(
    ("op", "shape", "axis"),
    [
        ("Gemm <transB=1> (x, w)", (32, 64), 0),
        ("Gemm (x, w)", (64, 32), 1),
        ("MatMul (x, w)", (64, 32), 1),
    ],
)
def test_matrices_are_quantized_per_output_feature(op, shape, axis):
    placement = placed(graph("float[16,64] x", "float[16,32] y", f"y = {op}", w=shape))
    assert [(w.node.name, w.axis) for w in placement.weights] == [("y", axis)]


def test_a_transposed_convolution_is_quantized_along_axis_one():
    model = graph(
        "float[1,32,8,8] x", "float[1,16,16,16] y", "y = ConvTranspose <strides=[2,2]> (x, w)", w=(32, 16, 2, 2)
    )
    assert [w.axis for w in placed(model).weights] == [1]


@pytest.mark.parametrize(
    ("body", "weights", "x", "y", "why"),
    [
        ("y = MatMul(x, w)", {"w": (64, 32)}, "1,64", "1,32", "matrix times vector"),
        ("y = MatMul(x, w)", {"w": (64, 1)}, "16,64", "16,1", "matrix times vector"),
        ("y = MatMul(x, w)", {"w": (64, 8)}, "16,64", "16,8", "too few features"),
        ("y = Conv <group=16> (x, w)", {"w": conv(16, 1, 1)}, "1,16,8,8", "1,16,8,8", "grouped"),
        ("y = Conv <group=4> (x, w)", {"w": conv(4, 1)}, "1,4,8,8", "1,4,6,6", "grouped"),
        ("y = ConvTranspose (x, w)", {"w": (8, 8, 2, 2)}, "1,8,8,8", "1,8,9,9", "too few channels"),
        (
            "r = Relu(x) c = Conv(r, v) y = Conv(c, w)",
            {"v": conv(32, 3), "w": conv(1, 32, 1)},
            "1,3,8,8",
            "1,1,6,6",
            "",
        ),
    ],
)
def test_layers_that_int8_does_not_help_stay_float_with_a_reason(body, weights, x, y, why):
    placement = placed(graph(f"float[{x}] x", f"float[{y}] y", body, **weights))
    assert not next(layer for layer in placement.layers if layer.node == "y").quantized
    assert why in reason(placement, "y")
    assert "y" not in {w.node.name for w in placement.weights}


def test_the_first_layer_may_have_three_channels_and_a_later_one_may_not():
    body = "c = Conv(x, v) r = Relu(c) y = Conv(r, w)"
    placement = placed(graph("float[1,3,8,8] x", "float[1,32,4,4] y", body, v=conv(8, 3), w=conv(32, 8)))
    assert placement.quantized_nodes == {"c"}
    assert "8 in, 32 out" in reason(placement, "y")


def test_depthwise_of_kernel_three_and_channels_in_eights_is_quantized():
    placement = placed(graph("float[1,16,8,8] x", "float[1,16,6,6] y", "y = Conv <group=16> (x, w)", w=conv(16, 1)))
    assert placement.quantized_nodes == {"y"}


def test_of_a_residual_add_only_the_skip_is_quantized():
    body = "a = Conv <pads=[1,1,1,1]> (x, v) r = Relu(a) b = Conv <pads=[1,1,1,1]> (r, w) s = Add(x, b) y = Relu(s)"
    placement = placed(graph("float[1,16,8,8] x", "float[1,16,8,8] y", body, v=conv(16, 16), w=conv(16, 16)))
    assert pairs(placement) == {"x": {"a", "s"}, "r": {"b"}}


def test_of_two_conv_branches_the_longer_one_stays_open_for_fusion():
    body = "a = Conv <pads=[1,1,1,1]> (x, v) r = Relu(a) b = Conv <pads=[1,1,1,1]> (r, w) p = Conv (x, u) y = Add(p, b)"
    placement = placed(
        graph("float[1,16,8,8] x", "float[1,16,8,8] y", body, v=conv(16, 16), w=conv(16, 16), u=conv(16, 16, 1))
    )
    assert pairs(placement) == {"x": {"a", "p"}, "r": {"b"}, "p": {"y"}}


def test_adds_of_transformers_and_of_constants_get_no_pair():
    body = "m = MatMul(x, w) s = Add(x, m) y = Add(s, c)"
    placement = placed(graph("float[16,32] x", "float[16,32] y", body, w=(32, 32), c=(32,)))
    assert pairs(placement) == {"x": {"m"}}


def test_concat_shares_one_scale_over_its_inputs():
    body = "a = Relu(x) b = Conv <pads=[1,1,1,1]> (x, v) k = Concat <axis=1> (a, b) y = Conv(k, w)"
    placement = placed(graph("float[1,16,8,8] x", "float[1,16,6,6] y", body, v=conv(16, 16), w=conv(16, 32)))
    assert set(placement.shared_scales[0]) == {"k", "a", "b"}
    assert pairs(placement)["k"] == {"y"}


def test_a_zero_pad_keeps_touching_its_conv():
    ring = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    body = "p = Pad(x, n) y = Conv(p, w)"
    placement = placed(graph("float[1,16,8,8] x", "float[1,32,8,8] y", body, n=ring, w=conv(32, 16)))
    assert pairs(placement) == {"x": {"p"}}


@pytest.mark.parametrize(
    ("pad", "outputs", "rest"),
    [
        ("p = Pad(x, n, v)", "float[1,32,8,8] y", "y = Conv(p, w)"),  # a border of 1.5
        ('p = Pad <mode="reflect"> (x, n)', "float[1,32,8,8] y", "y = Conv(p, w)"),
        ("p = Pad(x, n)", "float[1,32,8,8] y, float[1,16,10,10] p", "y = Conv(p, w)"),
        ("p = Pad(x, n)", "float[1,32,8,8] y, float[1,16,10,10] z", "y = Conv(p, w) z = Neg(p)"),
    ],
    ids=["constant", "reflect", "graph output", "other reader"],
)
def test_a_pad_that_cannot_take_int8_keeps_its_conv_float(pad, outputs, rest):
    ring = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    weights = {"n": ring, "v": np.array(1.5, np.float32), "w": conv(32, 16)}
    placement = placed(graph("float[1,16,8,8] x", outputs, f"{pad} {rest}", **weights))
    assert "between its Pad and itself" in reason(placement, "y")
    assert pairs(placement) == {}


def test_two_convs_behind_one_zero_pad_share_the_pair_before_it():
    ring = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    body = "p = Pad(x, n) a = Conv(p, v) b = Conv(p, w) y = Mul(a, b)"
    placement = placed(graph("float[1,16,8,8] x", "float[1,32,8,8] y", body, n=ring, v=conv(32, 16), w=conv(32, 16)))
    assert pairs(placement) == {"x": {"p"}}


@pytest.mark.parametrize(
    ("skip", "inputs"),
    [
        ("g = Sigmoid(x)", "float[1,16,8,8] x"),
        ("m = GlobalAveragePool(x) g = Relu(m)", "float[1,16,8,8] x"),
        ("g = Relu(t)", "float[1,16,8,8] x, float[1,16,1,1] t"),
    ],
    ids=["head", "pooled", "embedding"],
)
def test_a_gate_or_a_broadcast_is_no_residual(skip, inputs):
    body = f"{skip} b = Conv <pads=[1,1,1,1]> (x, w) y = Add(g, b)"
    placement = placed(graph(inputs, "float[1,16,8,8] y", body, w=conv(16, 16)))
    assert pairs(placement) == {"x": {"b"}}


def test_a_transposed_gemm_counts_its_rows_along_the_last_axis():
    vector = placed(graph("float[64,1] x", "float[1,32] y", "y = Gemm <transA=1> (x, w)", w=(64, 32)))
    assert "matrix times vector" in reason(vector, "y")


def test_layers_in_another_float_type_are_left_alone():
    text = "h = Cast <to=11> (x) v = Cast <to=11> (w) m = MatMul(h, v) y = Cast <to=1> (m)"
    placement = place(graph("float[16,32] x, float[32,32] w", "float[16,32] y", text))
    assert "double" in reason(placement, "m")


def test_recurrent_layers_are_named_and_left_alone():
    body = "y, h, c = LSTM <hidden_size=32> (x, w, r)"
    placement = placed(graph("float[4,1,16] x", "float[4,1,1,32] y", body, w=(1, 128, 16), r=(1, 128, 32)))
    assert not placement.quantized_nodes
    assert "recurrent layers" in placement.layers[0].reason


def test_attention_products_are_quantized_on_both_sides_unless_the_sequence_is_long():
    short = placed(graph("float[4,64,32] q, float[4,32,64] k", "float[4,64,64] y", "y = MatMul(q, k)"))
    assert pairs(short) == {"q": {"y"}, "k": {"y"}}
    assert not short.weights
    long = placed(graph("float[4,640,32] q, float[4,32,640] k", "float[4,640,640] y", "y = MatMul(q, k)"))
    assert "512" in reason(long, "y")
