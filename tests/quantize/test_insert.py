"""The Q/DQ graph: its form, and its arithmetic against numpy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import numpy_helper

from edgemed.base.errors import InputError
from edgemed.graph.lint import lint
from edgemed.graph.model import to_bytes
from edgemed.graph.scales import ScaleTable, TensorScale, scale_of
from edgemed.quantize.insert import insert, share_scales, weight_scales, weight_sqnr_db
from edgemed.quantize.placement import place
from edgemed.runners.ort import OnnxRuntimeRunner
from tests.quantize.onnx_text import conv, graph

DIGEST = "0" * 64


def table(**amax: float) -> ScaleTable:
    return ScaleTable(
        schema="edgemed/scales/1",
        method="minmax",
        images=1,
        data_digest=DIGEST,
        recipe_digest=DIGEST,
        graph_digest=DIGEST,
        tensors={name: TensorScale(amax=a, scale=scale_of(a), seen=a) for name, a in amax.items()},
    )


def conv_net() -> ir.Model:
    return graph("float[1,16,8,8] x", "float[1,32,6,6] y", "c = Conv(x, w, b) y = Relu(c)", w=conv(32, 16), b=(32,))


def test_the_graph_has_symmetric_int8_and_float_biases_and_is_clean():
    model = conv_net()
    quantized = insert(model, place(model), table(x=3.0))
    assert [finding for finding in lint(quantized) if finding.severity == "error"] == []
    proto = ir.to_proto(quantized)
    weights = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    quantizers = [n for n in proto.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(quantizers) == 4
    for node in quantizers:
        zero = weights[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        assert (weights[node.input[1]] > 0).all()
    bias = next(n for n in proto.graph.node if n.op_type == "Conv").input[2]
    assert weights[bias].dtype == np.float32
    assert proto.opset_import[0].version == 17


def test_its_arithmetic_is_that_of_int8_with_wide_accumulators():
    model = conv_net()
    weights = {v.name: v.const_value.numpy() for v in model.graph.initializers.values()}
    x = np.random.default_rng(1).standard_normal((1, 16, 8, 8)).astype(np.float32)
    quantized = insert(model, place(model), table(x=2.5))
    with OnnxRuntimeRunner(to_bytes(quantized)) as runner:
        got = runner.infer({"x": x})["y"]
    scale_x = np.float32(2.5 / 127)
    scale_w = np.abs(weights["w"]).max(axis=(1, 2, 3)) / 127
    x8 = np.clip(np.rint(x / scale_x), -128, 127).astype(np.int64)
    w8 = np.rint(weights["w"] / scale_w[:, None, None, None]).astype(np.int64)
    exact = np.zeros((32, 6, 6), np.int64)
    for i in range(3):
        for j in range(3):
            exact += np.einsum("chw,oc->ohw", x8[0, :, i : i + 6, j : j + 6], w8[:, :, i, j])
    want = np.maximum(exact * (scale_x * scale_w)[:, None, None] + weights["b"][:, None, None], 0)
    # FP32 accumulation of 144 products of up to 127 * 127 steps: relative error below 144 * 2**-24
    np.testing.assert_allclose(got[0], want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_a_tensor_with_two_quantized_readers_gets_one_pair():
    body = "a = Conv(x, v) b = Conv(x, w) y = Add(a, b)"
    model = graph("float[1,16,8,8] x", "float[1,16,6,6] y", body, v=conv(16, 16), w=conv(16, 16))
    quantized = insert(model, place(model), table(x=1.0, a=1.0, b=1.0))
    readers = [n for n in quantized.graph if n.op_type == "QuantizeLinear" and n.inputs[0].name == "x"]
    assert len(readers) == 1


def test_a_table_of_another_graph_is_refused():
    model = conv_net()
    with pytest.raises(InputError, match="no tensor x"):
        insert(model, place(model), table(other=1.0))


def test_shared_scales_take_the_largest_range_and_join_overlapping_groups():
    body = (
        "a = Relu(x) b = Conv <pads=[1,1,1,1]> (x, u) k = Concat <axis=1> (a, b) c = Conv <pads=[1,1,1,1]> (k, v) "
        "l = Concat <axis=1> (a, c) y = Conv(l, w)"
    )
    model = graph("float[1,16,8,8] x", "float[1,16,6,6] y", body, u=conv(16, 16), v=conv(16, 32), w=conv(16, 32))
    shared = share_scales(table(x=9.0, a=1.0, b=2.0, k=2.0, c=3.0, l=3.0, y=1.0), place(model))
    assert {name: shared.tensors[name].amax for name in "abkcl"} == dict.fromkeys("abkcl", 3.0)
    assert shared.tensors["x"].amax == 9.0
    assert shared.tensors["a"].seen == 1.0


@given(arrays(np.float32, (4, 3, 2), elements=st.floats(-1e3, 1e3, width=32)), st.integers(0, 2))
def test_weight_scales_reach_every_weight_and_are_never_zero(weight, axis):
    scales = weight_scales(weight, axis)
    assert scales.shape == (weight.shape[axis],)
    assert (scales > 0).all()
    assert np.isfinite(scales).all()
    moved = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    assert (np.abs(np.rint(moved / scales[:, None])) <= 127).all()


def test_weight_sqnr_of_values_on_the_grid_is_none():
    weight = np.array([[127.0, 1.0], [-127.0, 64.0]], np.float32)
    assert weight_sqnr_db(weight, 0) is None
    assert weight_sqnr_db(weight + np.float32(0.3), 0) > 20


def test_a_concat_input_of_a_far_smaller_range_keeps_its_own_scale():
    body = "a = Relu(x) b = Conv <pads=[1,1,1,1]> (x, v) k = Concat <axis=1> (a, b) y = Conv(k, w)"
    model = graph("float[1,16,8,8] x", "float[1,16,6,6] y", body, v=conv(16, 16), w=conv(16, 32))
    shared = share_scales(table(x=1.0, a=1.0, b=100.0, k=100.0), place(model))
    assert (shared.tensors["a"].amax, shared.tensors["b"].amax) == (1.0, 100.0)


def test_names_that_exist_already_are_not_taken_again():
    body = "x_ = Relu(x) c = Conv(x_, w) y = Relu(c)"
    model = graph("float[1,16,8,8] x", "float[1,32,6,6] y", body, w=conv(32, 16))
    relu = next(iter(model.graph))
    relu.outputs[0].name, model.graph.initializers["w"].name = "r", "r/scale"
    quantized = insert(model, place(model), table(r=1.0))
    names = [v.name for n in quantized.graph for v in n.outputs] + list(quantized.graph.initializers)
    assert len(names) == len(set(names))
    with OnnxRuntimeRunner(to_bytes(quantized)) as runner:
        runner.infer({"x": np.zeros((1, 16, 8, 8), np.float32)})


def test_a_weight_that_two_layers_share_gets_a_pair_for_each():
    body = "a = Conv <pads=[1,1,1,1]> (x, w) y = Conv(a, w)"
    model = graph("float[1,16,8,8] x", "float[1,16,6,6] y", body, w=conv(16, 16))
    quantized = insert(model, place(model), table(x=1.0, a=1.0))
    assert [f for f in lint(quantized) if f.severity == "error"] == []
