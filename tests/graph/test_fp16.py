"""Strongly typed graphs: what becomes FP16, what stays FP32 and why, and that the answer stays the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import defs, numpy_helper

from edgemed.base.errors import InputError
from edgemed.base.progress import SilentProgress
from edgemed.calibrate.collect import collect
from edgemed.graph.fp16 import TYPED_OPSET, to_fp16
from edgemed.graph.lint import lint
from edgemed.graph.model import float_values, infer_shapes, to_bytes
from edgemed.graph.opset import FLOOR, raise_opset
from edgemed.graph.pairs import SMALLEST_NORMAL, finer_codes, half_scale, quantized_weight
from edgemed.graph.precision import HALF_ULP, LIMIT
from edgemed.graph.rounding import rounded
from edgemed.graph.scales import ScaleTable, TensorScale, scale_of
from edgemed.quantize.insert import insert, share_scales, weight_scales
from edgemed.quantize.placement import place
from tests.graph.onnx_models import assert_same_outputs, random_feeds, run
from tests.quantize.onnx_text import conv, graph

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def small(*shape: int, scale: float = 0.1, seed: int = 0) -> np.ndarray:
    """Weights of the size that trained layers have."""
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * scale).astype(np.float32)


def seen_in(model: ir.Model, *feeds: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest magnitude of every tensor, as the build finds it."""
    histograms = collect(model, feeds, tensors=float_values(model))
    return {name: histogram.amax for name, histogram in histograms.items()}


def quantized(model: ir.Model, seen: dict[str, float]) -> ir.Model:
    """The Q/DQ graph with minmax ranges."""
    digest = "0" * 64
    tensors = {name: TensorScale(amax=a, scale=scale_of(a), seen=a) for name, a in seen.items()}
    table = ScaleTable(
        schema="edgemed/scales/1",
        method="minmax",
        images=1,
        data_digest=digest,
        recipe_digest=digest,
        graph_digest=digest,
        tensors=tensors,
    )
    copy = model.clone()
    placement = place(copy)
    assert placement.quantized_nodes
    return infer_shapes(insert(copy, placement, share_scales(table, placement)))


def node_of(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)


def kept_names(kept) -> set[str]:
    return {k.node for k in kept}


def check_types(model: ir.Model) -> None:
    """The graph is valid, and its Casts are the fewest: no chains, none beside a pair, none that changes nothing."""
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert model.opset_imports[""] >= TYPED_OPSET
    assert all(value.dtype == FLOAT for value in (*model.graph.inputs, *model.graph.outputs))
    assert [finding for finding in lint(model) if finding.severity == "error"] == []
    for node in model.graph:
        if node.op_type != "Cast":
            continue
        maker = node.inputs[0].producer()
        assert maker is None or maker.op_type != "Cast", f"chain of Casts at {node.name}"
        assert node.inputs[0].dtype != node.outputs[0].dtype
        assert all(user.op_type != "Cast" for user, _ in node.outputs[0].uses())


def unet_like() -> ir.Model:
    body = """
        c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) r1 = Relu(c1)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r1)
        c2 = Conv <pads = [1, 1, 1, 1]> (p, w2) r2 = Relu(c2)
        u = Resize <mode = "linear"> (r2, , scales)
        k = Concat <axis = 1> (r1, u)
        c3 = Conv <pads = [1, 1, 1, 1]> (k, w3) z = Conv (c3, w4, b4) y = Sigmoid(z)
    """
    weights = {"w1": small(16, 16, 3, 3), "b1": small(16), "w2": small(32, 16, 3, 3), "w3": small(16, 48, 3, 3)}
    return graph(
        "float[1,16,16,16] x",
        "float[1,1,16,16] y",
        body,
        **weights,
        w4=small(1, 16, 1, 1),
        b4=small(1),
        scales=np.array([1, 1, 2, 2], np.float32),
    )


def resnet_like() -> ir.Model:
    body = """
        c0 = Conv <pads = [1, 1, 1, 1]> (x, w0, b0) r0 = Relu(c0)
        c1 = Conv <pads = [1, 1, 1, 1]> (r0, w1, b1) r1 = Relu(c1) c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2, b2)
        s = Add(c2, r0) r2 = Relu(s) g = GlobalAveragePool(r2) f = Flatten(g) z = Gemm <transB = 1> (f, w3, b3)
        y = Softmax(z)
    """
    convs = {f"w{i}": small(32, 16 if i == 0 else 32, 3, 3, seed=i) for i in range(3)}
    return graph(
        "float[1,16,12,12] x",
        "float[1,4] y",
        body,
        **convs,
        b0=small(32),
        b1=small(32, seed=1),
        b2=small(32, seed=2),
        w3=small(4, 32),
        b3=small(4),
    )


def densenet_like() -> ir.Model:
    """BatchNormalization before its convolution cannot be folded."""
    batch_norm = "BatchNormalization({}, scale, bias, mean, var)"
    body = f"""
        c0 = Conv <pads = [1, 1, 1, 1]> (x, w0) n1 = {batch_norm.format("c0")} r1 = Relu(n1)
        c1 = Conv <pads = [1, 1, 1, 1]> (r1, w1) k = Concat <axis = 1> (c0, c1)
        n2 = BatchNormalization(k, scale2, bias2, mean2, var2) r2 = LeakyRelu(n2)
        g = ReduceMean <axes = [2, 3], keepdims = 1> (r2) e = Conv(g, w2) h = Sigmoid(e) m = Mul(r2, h)
        y = Conv(m, w3)
    """
    statistics = {
        f"{name}{suffix}": offset + small(size, seed=seed)
        for suffix, size in (("", 16), ("2", 32))
        for seed, (name, offset) in enumerate({"scale": 1, "bias": 0, "mean": 0, "var": 1}.items())
    }
    convs = {"w0": small(16, 16, 3, 3), "w1": small(16, 16, 3, 3, seed=1), "w2": small(32, 32, 1, 1)}
    return graph("float[1,16,12,12] x", "float[1,16,12,12] y", body, **statistics, **convs, w3=small(16, 32, 1, 1))


def vit_block(layer_norm: str) -> ir.Model:
    norm = {
        "one operator": "n = LayerNormalization <axis = -1, epsilon = 0.001> (x, gamma, beta)",
        "written out": """
            mean = ReduceMean <axes = [-1]> (x) d = Sub(x, mean) square = Mul(d, d)
            var = ReduceMean <axes = [-1]> (square) stable = Add(var, eps) root = Sqrt(stable) inv = Reciprocal(root)
            gain = Mul(inv, gamma) left = Mul(x, gain) shift = Mul(mean, gain)
            right = Sub(beta, shift) n = Add(left, right)
        """,
    }[layer_norm]
    body = f"""{norm}
        q = MatMul(n, wq) k = MatMul(n, wk) v = MatMul(n, wv)
        kt = Transpose <perm = [0, 2, 1]> (k) scores = MatMul(q, kt) scaled = Mul(scores, eighth) a = Softmax(scaled)
        mixed = MatMul(a, v) o = MatMul(mixed, wo) s = Add(o, x)
        h = MatMul(s, w1) half = Mul(h, rsqrt2) e = Erf(half) e1 = Add(e, one) g1 = Mul(h, e1) gelu = Mul(g1, point5)
        m = MatMul(gelu, w2) y = Add(m, s)
    """
    scalars = {"eighth": 1 / 8, "rsqrt2": 2**-0.5, "one": 1.0, "point5": 0.5, "eps": 1e-3}
    used = {name: np.float32(value) for name, value in scalars.items() if name in body}
    matrices = {name: small(32, 32, seed=i) for i, name in enumerate(("wq", "wk", "wv", "wo", "w1", "w2"))}
    return graph(
        "float[1,20,32] x",
        "float[1,20,32] y",
        body,
        gamma=1 + small(32),
        beta=small(32, seed=3),
        **matrices,
        **{name: np.asarray(value) for name, value in used.items()},
    )


MODELS = {
    "unet": (unet_like, {"y"}),
    "resnet": (resnet_like, {"y"}),
    "densenet": (densenet_like, set()),
    "vit": (lambda: vit_block("one operator"), {"n", "a"}),
    "vit, written out": (
        lambda: vit_block("written out"),
        {"mean", "d", "square", "var", "stable", "root", "inv", "gain", "left", "shift", "right", "n", "a"},
    ),
}
DEPTH = 12  # rounded tensors on the longest path of these graphs
TOLERANCE = DEPTH * HALF_ULP  # each rounds by half a unit in the last of 11 bits, and errors may add up


@pytest.mark.parametrize("name", MODELS)
def test_fp16_answers_like_float_and_keeps_only_what_must_stay(name):
    make, expected = MODELS[name]
    model = make()
    before = to_bytes(model)
    feeds = random_feeds(model)
    typed, kept = to_fp16(model, seen=seen_in(model, feeds))
    check_types(typed)
    assert kept_names(kept) == expected
    assert to_bytes(model) == before
    reference = run(model, feeds)
    assert_same_outputs(reference, run(rounded(typed), feeds), TOLERANCE)
    assert_same_outputs(reference, run(typed, feeds), TOLERANCE)
    assert any((a != b).any() for a, b in zip(reference.values(), run(rounded(typed), feeds).values(), strict=True))
    for node in typed.graph:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            assert all(v.dtype == HALF for v in (*node.inputs, *node.outputs) if v is not None), node.name


@pytest.mark.parametrize("name", MODELS)
def test_int8_with_fp16_answers_like_int8(name):
    make, _ = MODELS[name]
    model = make()
    feeds = random_feeds(model)
    seen = seen_in(model, feeds)
    int8 = quantized(model, seen)
    typed, _ = to_fp16(int8, seen=seen)
    check_types(typed)
    reference = run(model, feeds)
    errors = []
    for candidate in (int8, rounded(typed)):
        answers = run(candidate, feeds)
        errors.append(max(np.abs(answers[k] - v).max() / np.abs(v).max() for k, v in reference.items()))
    # rounding to FP16 moves a value over an INT8 boundary here and there, which is one more rounding of INT8's size
    assert errors[1] <= 2 * errors[0] + TOLERANCE


@pytest.mark.rtx
@pytest.mark.parametrize("name", MODELS)
def test_nvidias_compiler_takes_the_types(name):
    from edgemed.engine.rtx import compile_ahead

    model = MODELS[name][0]()
    seen = seen_in(model, random_feeds(model))
    plans = {}
    for precision, source in (("fp32", model), ("fp16", model), ("int8", quantized(model, seen))):
        typed = source if precision == "fp32" else to_fp16(source, seen=seen)[0]
        with SilentProgress().stage("engine") as stage:
            built = compile_ahead(to_bytes(typed), precision, stage, capabilities=("8.6",))
        assert built.strongly_typed
        assert [spec.dtype for spec in (*built.inputs, *built.outputs)] == ["float32"] * 2
        plans[precision] = built.plan
    assert plans["int8"].count(b"type=int8") > plans["fp16"].count(b"type=int8")
    assert plans["fp16"].count(b"type=half") > plans["fp32"].count(b"type=half")
    assert plans["int8"].count(b"type=half") > plans["fp32"].count(b"type=half")


# --- what real samples show


def hot_net() -> ir.Model:
    """Activations of about 1e5 between two convolutions, scaled down again by the second one's weights."""
    body = "c = Conv (x, w1) r = Relu(c) p = MaxPool <kernel_shape = [2, 2]> (r) d = Conv (p, w2) y = Conv(d, w3)"
    return graph(
        "float[1,16,8,8] x",
        "float[1,16,7,7] y",
        body,
        w1=small(16, 16, 1, 1, scale=2e4),
        w2=small(16, 16, 1, 1, scale=1e-3),
        w3=small(16, 16, 1, 1),
    )


def test_overflow_on_real_samples_is_named_and_the_answer_stays_right():
    model = hot_net()
    feeds = random_feeds(model)
    seen = seen_in(model, feeds)
    assert seen["c"] > 1e5
    naive, _ = to_fp16(model, seen={})
    assert not np.isfinite(run(rounded(naive), feeds)["y"]).all()  # what a GPU would answer
    typed, kept = to_fp16(model, seen=seen)
    check_types(typed)
    assert_same_outputs(run(model, feeds), run(rounded(typed), feeds), TOLERANCE)
    reasons = {k.node: k for k in kept}
    assert set(reasons) == {"c", "r", "p", "d"}  # those that touch the large tensors; y is FP16
    assert reasons["c"].tensor == "c"
    assert reasons["d"].tensor == "p"
    assert f"c reaches {seen['c']:.3g} on real samples; FP16 ends at 65504" in reasons["c"].reason
    assert node_of(typed, "y").inputs[1].dtype == HALF


def test_what_comes_near_the_end_of_fp16_is_left_out_too():
    model = graph("float[1,16,8,8] x", "float[1,16,8,8] y", "c = Conv (x, w) y = Conv(c, w)", w=small(16, 16, 1, 1))
    _, kept = to_fp16(model, seen={"x": 1.0, "c": 30000.0, "y": 1.0})
    assert {k.reason for k in kept} == {"c reaches 3e+04 on real samples, less than 4 times below FP16's end at 65504"}
    assert to_fp16(model, seen={"x": 1.0, "c": LIMIT, "y": 1.0})[1] == ()


def test_a_dequantizer_that_gives_large_values_stays_fp32():
    model = hot_net()
    feeds = random_feeds(model)
    seen = seen_in(model, feeds)
    int8 = quantized(model, seen)
    typed, kept = to_fp16(int8, seen=seen)
    check_types(typed)
    assert {k.node: k.tensor for k in kept}["d"] == "p"  # by the tensor's own name, not the dequantizer's
    answers = run(rounded(typed), feeds)["y"]
    reference = run(int8, feeds)["y"]
    # one INT8 step of the widest tensor may flip where FP16 rounds its neighbour
    assert np.abs(answers - reference).max() <= np.abs(reference).max() / 127


def test_values_below_the_normal_range_stay_fp32():
    body = "c = Conv (x, w) y = Conv(c, v)"
    model = graph(
        "float[1,16,8,8] x", "float[1,16,8,8] y", body, w=small(16, 16, 1, 1, scale=1e-6), v=small(16, 16, 1, 1)
    )
    feeds = random_feeds(model)
    typed, kept = to_fp16(model, seen=seen_in(model, feeds))
    assert kept_names(kept) == {"c", "y"}
    assert "below" in kept[0].reason
    assert_same_outputs(run(model, feeds), run(rounded(typed), feeds), TOLERANCE)


@pytest.mark.parametrize(
    ("weight", "why"), [(1e5, "w reaches 1e+05; FP16 ends at 65504"), (1e-6, "w would lose precision")]
)
def test_weights_that_fp16_cannot_hold_keep_their_layer_and_are_named(weight, why):
    model = graph("float[1,16,8,8] x", "float[1,16,8,8] y", "y = Conv(x, w)", w=np.full((16, 16, 1, 1), weight, "f4"))
    _, kept = to_fp16(model, seen={})
    assert kept_names(kept) == {"y"}
    assert kept[0].tensor == "w"
    assert why in kept[0].reason


def test_small_biases_beside_large_sums_do_not_matter():
    model = graph(
        "float[1,16,8,8] x", "float[1,16,8,8] y", "y = Conv(x, w, b)", w=conv(16, 16, 1), b=np.full(16, 1e-7, "f4")
    )
    _, kept = to_fp16(model, seen={"x": 1.0, "y": 10.0})
    assert kept == ()


def test_a_mean_whose_sum_overflows_stays_fp32():
    body = "c = Conv (x, w) g = GlobalAveragePool(c) y = Conv(g, v)"
    model = graph("float[1,16,64,64] x", "float[1,16,1,1] y", body, w=conv(16, 16, 1), v=conv(16, 16, 1))
    _, kept = to_fp16(model, seen={"x": 1.0, "c": 20.0, "g": 1.0, "y": 1.0})
    assert kept_names(kept) == {"g"}
    assert "the sum of 4096 values of c" in kept[0].reason
    _, kept = to_fp16(model, seen={"x": 1.0, "c": 10.0, "g": 1.0, "y": 1.0})
    assert kept == ()


def test_what_is_asked_for_stays_and_an_unknown_name_is_refused():
    model = resnet_like()
    typed, kept = to_fp16(model, keep_float=["c1"], seen={})
    assert [k.reason for k in kept if k.node == "c1"] == ["asked for"]
    assert node_of(typed, "c1").inputs[1].dtype == FLOAT
    with pytest.raises(InputError, match="no node nowhere"):
        to_fp16(model, keep_float=["nowhere"], seen={})


# --- operators


def test_indices_shapes_and_resize_scales_keep_their_types():
    body = """
        c = Conv (x, w) s = Shape(c) f = Cast <to = 1> (s) g = Mul(f, half) i = Cast <to = 7> (g)
        r = Resize <mode = "nearest"> (c, , scales) y = Conv(r, w)
        far = Cast <to = 7> (c)
    """
    model = graph(
        "float[1,16,8,8] x",
        "float[1,16,16,16] y, int64[4] i, int64[1,16,8,8] far",
        body,
        w=small(16, 16, 1, 1),
        half=np.array(0.5, np.float32),
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    feeds = random_feeds(model)
    typed, kept = to_fp16(model, seen={})
    onnx.checker.check_model(ir.to_proto(typed), full_check=True)
    assert {"f", "g"} & kept_names(kept) == {"f", "g"} or not {"f", "g"} & {
        n.name for n in typed.graph if n.op_type != "Cast"
    }
    assert node_of(typed, "r").inputs[2].dtype == FLOAT
    assert node_of(typed, "r").inputs[0].dtype == HALF
    before, after = run(model, feeds), run(typed, feeds)
    assert (before["i"] == after["i"]).all()


def test_recurrent_layers_stay_fp32_with_casts_around_them():
    body = "p = MatMul(x, w) y, h = LSTM <hidden_size = 8> (p, wx, wr) o = Squeeze(h, zero) z = MatMul(o, v)"
    model = graph(
        "float[5,1,16] x",
        "float[1,4] z",
        body,
        w=small(16, 16),
        wx=small(1, 32, 16),
        wr=small(1, 32, 8),
        zero=np.array([0], np.int64),
        v=small(8, 4),
    )
    feeds = random_feeds(model)
    typed, kept = to_fp16(model, seen=seen_in(model, feeds))
    check_types(typed)
    assert [k.reason for k in kept] == ["rounding of the state would add up over the steps"]
    assert_same_outputs(run(model, feeds), run(rounded(typed), feeds), TOLERANCE)


def test_what_leads_from_a_layer_to_a_recurrent_one_stays_fp32():
    """The Cast stands behind the layer: TensorRT-RTX fails on one in front of the recurrence."""
    body = (
        "p = MatMul(x, w) q = Relu(p) t = Transpose <perm = [1, 0, 2]> (q) "
        "y, h = LSTM <hidden_size = 8> (t, wx, wr) o = Squeeze(h, zero) z = MatMul(o, v)"
    )
    weights = {"w": small(16, 16), "wx": small(1, 32, 16), "wr": small(1, 32, 8), "v": small(8, 4)}
    model = graph("float[1,5,16] x", "float[1,4] z", body, zero=np.array([0], np.int64), **weights)
    feeds = random_feeds(model)
    typed, kept = to_fp16(model, seen=seen_in(model, feeds))
    check_types(typed)
    assert {k.op: k.reason for k in kept} == {
        "Relu": "feeds a recurrent layer, which reads FP32",
        "Transpose": "feeds a recurrent layer, which reads FP32",
        "LSTM": "rounding of the state would add up over the steps",
    }
    first = next(n for n in typed.graph if n.op_type == "Relu")
    assert first.inputs[0].producer().op_type == "Cast"
    assert_same_outputs(run(model, feeds), run(rounded(typed), feeds), TOLERANCE)


def test_bodies_of_control_flow_stay_fp32_and_get_what_they_capture_in_fp32():
    text = """<ir_version: 8, opset_import: ["" : 17]> net (float[1,16] x, bool c) => (float[1,16] y) {
        a = MatMul(x, w)
        y = If (c) <then_branch = g1 () => (float[1,16] t) { t = Relu(a) },
                    else_branch = g2 () => (float[1,16] e) { e = Exp(a) }>
    }"""
    proto = onnx.parser.parse_model(text)
    for n in proto.graph.node:
        n.name = n.output[0]
    proto.graph.initializer.append(numpy_helper.from_array(small(16, 16), "w"))
    model = infer_shapes(ir.from_proto(proto))
    typed, kept = to_fp16(model, seen={})
    onnx.checker.check_model(ir.to_proto(typed), full_check=True)
    assert kept_names(kept) == {"y"}
    x = small(1, 16, scale=1.0)
    for choice in (True, False):
        feeds = {"x": x, "c": np.array(choice)}
        assert_same_outputs(run(model, feeds), run(typed, feeds), TOLERANCE)


def test_a_loop_that_only_captures_depends_on_its_input():
    text = """<ir_version: 8, opset_import: ["" : 17]> net (float[1,16] x) => (float[1,4] y) {
        a = MatMul(x, w)
        s = Loop (n, go, start) <body = step (int64 i, bool c, float[1,16] old) => (bool more, float[1,16] new) {
            more = Identity(c)
            new = Add(old, a)
        }>
        y = MatMul(s, v)
    }"""
    proto = onnx.parser.parse_model(text)
    for n in proto.graph.node:
        n.name = n.output[0]
    weights = {"w": small(16, 16), "v": small(16, 4), "n": np.array(3), "go": np.array(True)}
    for name, array in {**weights, "start": np.zeros((1, 16), np.float32)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    model = infer_shapes(ir.from_proto(proto))
    assert float_values(model) == ["x", "a", "s", "y"]
    feeds = random_feeds(model)
    typed, kept = to_fp16(model, seen=seen_in(model, feeds))
    check_types(typed)
    assert kept_names(kept) == {"s"}
    assert node_of(typed, "y").inputs[1].dtype == HALF
    assert_same_outputs(run(model, feeds), run(rounded(typed), feeds), TOLERANCE)


def test_clip_bounds_saturate_and_batch_statistics_stay_fp32():
    body = "n = BatchNormalization(x, scale, bias, mean, var) r = Clip(n, low, high) y = Conv(r, w)"
    model = graph(
        "float[1,16,8,8] x",
        "float[1,16,8,8] y",
        body,
        w=small(16, 16, 1, 1),
        scale=1 + small(16),
        bias=small(16, seed=1),
        mean=small(16, seed=2),
        var=np.full(16, 1e-6, "f4"),  # below FP16's normal range
        low=np.array(0, np.float32),
        high=np.array(3.4e38, np.float32),
    )
    feeds = random_feeds(model)
    typed, kept = to_fp16(model, seen=seen_in(model, feeds))
    check_types(typed)
    assert kept == ()
    assert_same_outputs(run(model, feeds), run(rounded(typed), feeds), TOLERANCE)


def test_groups_without_a_layer_are_not_worth_their_casts():
    body = "s = Softmax(x) t = Transpose <perm = [1, 0]> (s) u = Mul(t, two) e = Exp(u) y = Identity(e)"
    model = graph("float[4,4] x", "float[4,4] y", body, two=np.array(2.0, np.float32))
    typed, _ = to_fp16(model, seen={})
    assert "Cast" not in {n.op_type for n in typed.graph}


# --- pairs


def test_pairs_share_one_scale_and_no_cast_stands_beside_them():
    model = resnet_like()
    seen = seen_in(model, random_feeds(model))
    typed, _ = to_fp16(quantized(model, seen), seen=seen)
    pairs = [n for n in typed.graph if n.op_type == "QuantizeLinear"]
    assert pairs
    for quantizer in pairs:
        assert quantizer.inputs[0].producer() is None or quantizer.inputs[0].producer().op_type != "Cast"
        readers = [user for user, _ in quantizer.outputs[0].uses()]
        assert {n.op_type for n in readers} == {"DequantizeLinear"}
        for node in readers:
            assert all(user.op_type != "Cast" for user, _ in node.outputs[0].uses())
            assert node.inputs[1].const_value.numpy() == pytest.approx(quantizer.inputs[1].const_value.numpy(), rel=0)
            assert node.outputs[0].dtype == HALF
    # the image comes in FP32, so the first quantizer reads FP32
    first = next(n for n in pairs if n.inputs[0].is_graph_input())
    assert first.inputs[1].const_value.dtype == FLOAT


def test_a_pair_read_in_both_types_has_a_dequantizer_for_each():
    body = "a = Conv (x, w) r = Relu(a) y = Conv (r, w) z = Conv (r, v)"
    model = graph(
        "float[1,16,8,8] x", "float[1,16,8,8] y, float[1,16,8,8] z", body, w=small(16, 16, 1, 1), v=small(16, 16, 1, 1)
    )
    seen = seen_in(model, random_feeds(model))
    typed, _ = to_fp16(quantized(model, seen), keep_float=["z"], seen=seen)
    check_types(typed)
    (quantizer,) = [n for n in typed.graph if n.op_type == "QuantizeLinear" and n.inputs[0].name == "r"]
    assert sorted(user.outputs[0].dtype.name for user, _ in quantizer.outputs[0].uses()) == ["FLOAT", "FLOAT16"]


def test_a_scale_that_fp16_cannot_hold_keeps_its_pair_fp32():
    body = "a = Conv (x, w) r = Relu(a) y = Conv (r, v)"
    model = graph(
        "float[1,16,8,8] x",
        "float[1,16,8,8] y",
        body,
        w=small(16, 16, 1, 1, scale=1e-3),
        v=small(16, 16, 1, 1, scale=1.0),
    )
    feeds = {"x": random_feeds(model)["x"] * np.float32(0.1)}
    seen = seen_in(model, feeds)
    assert seen["r"] / 127 < SMALLEST_NORMAL < seen["r"]
    int8 = quantized(model, seen)
    typed, kept = to_fp16(int8, seen=seen)
    check_types(typed)
    (quantizer,) = [n for n in typed.graph if n.op_type == "QuantizeLinear" and n.inputs[0].name.startswith("r")]
    assert quantizer.inputs[1].const_value.dtype == FLOAT
    assert {k.node: k.tensor for k in kept} == {"a": "w", "y": "r"}
    reference = run(int8, feeds)["y"]
    # a value on an INT8 boundary may fall to the other side
    assert np.abs(run(rounded(typed), feeds)["y"] - reference).max() <= np.abs(reference).max() / 127


@given(
    arrays(np.float32, (6, 5), elements=st.floats(-1, 1, width=32)),
    st.lists(st.floats(-9, 4), min_size=6, max_size=6),
)
def test_int8_codes_of_weights_are_the_same_in_both_graphs(weight, exponents):
    weight = weight * (10.0 ** np.array(exponents, np.float32))[:, None].astype(np.float32)
    scale = weight_scales(weight, 0)
    half = half_scale(scale, weight=True)
    if half is None:
        used = scale[np.abs(weight).max(axis=1) > 0]
        assert float(np.median(used)) < SMALLEST_NORMAL or scale.max() * 128 > 65504
        return
    assert (half.astype(np.float32) >= np.float32(SMALLEST_NORMAL)).all()
    stored = finer_codes(quantized_weight(weight, scale, half, 0), half, 0)
    codes = np.clip(np.rint(stored.astype(np.float32) / half.astype(np.float32)[:, None]), -128, 127)
    original = np.clip(np.rint(weight / scale[:, None]), -128, 127)
    fine = scale < SMALLEST_NORMAL
    assert (codes[~fine] == original[~fine]).all()
    # channels with finer scales are rounded to steps of 2^-14: half a step, and the rounding of FP16 itself
    restored = codes * half.astype(np.float32)[:, None]
    assert (np.abs(restored - weight)[fine] <= SMALLEST_NORMAL / 2 * 1.001).all()


@given(st.floats(2.0**-30, 2.0**20))
def test_activation_scales_are_fp16_only_within_its_precision(scale):
    half = half_scale(np.array(scale, np.float32), weight=False)
    if half is None:
        assert scale < SMALLEST_NORMAL * 1.001 or scale * 128 > 65504 * 0.999
    else:
        assert abs(float(half) - scale) <= HALF_ULP * scale * 1.001  # float32 rounds once before
        assert 127 * float(half) < 65504


# --- opset


def test_every_operator_that_changed_up_to_opset_19_was_looked_at():
    """The change log, read by a person, once; a new name here means that onnx has changed its history."""
    schemas = [s for s in defs.get_all_schemas_with_history() if s.domain == ""]
    old = {s.name for s in schemas if s.since_version <= FLOOR}
    changed = {s.name for s in schemas if FLOOR < s.since_version <= TYPED_OPSET} & old
    kinds = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
    reductions = {f"Reduce{kind}" for kind in kinds}
    only_types = (
        "Add AveragePool BatchNormalization Cast Constant CumSum DequantizeLinear Div Equal GRU GreaterOrEqual "
        "Identity If LSTM LeakyRelu LessOrEqual Loop LpPool Mul PRelu Pad Pow QuantizeLinear RNN Relu Reshape Resize "
        "Scan ScatterElements ScatterND Shape Size Sub Where"
    )
    assert changed == {*only_types.split(" ")} | reductions | {"Split", "RoiAlign"}


@pytest.mark.parametrize("start", [13, 17])
def test_raising_the_opset_does_not_change_the_answer(start):
    body = """a, b = Split <axis = 1> (x) m = ReduceMean <axes = [-1], keepdims = 1> (a)
        k = ReduceMax <axes = [2, 3]> (b) s = ReduceMin(b) t = Add(m, k) y = Mul(t, s)"""
    text = f'<ir_version: 8, opset_import: ["" : {start}]> net (float[1,4,8,8] x) => (float[1,2,8,1] y) {{ {body} }}'
    model = infer_shapes(ir.from_proto(onnx.parser.parse_model(text)))
    feeds = random_feeds(model)
    before = run(model, feeds)
    raised = infer_shapes(raise_opset(model, TYPED_OPSET))
    raised.ir_version = 9
    onnx.checker.check_model(ir.to_proto(raised), full_check=True)
    assert_same_outputs(before, run(raised, feeds), 0)


def test_the_limit_leaves_a_margin():
    assert np.finfo(np.float16).max == 4 * LIMIT
