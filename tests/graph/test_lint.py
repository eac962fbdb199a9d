"""Each rule is tested by a graph that breaks it and no other, beside one of the same kind that is clean."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from edgemed.base.errors import GateError
from edgemed.graph.lint import RULES, lint, require_clean
from edgemed.graph.model import infer_shapes
from tests.graph.onnx_models import FLOAT, graph, node, rand

PICTURE = (1, 4, 8, 8)


class Net:
    """Collects nodes and weights; every method returns the name of the value that it makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def op(self, op: str, inputs: str, output: str, **attributes: object) -> str:
        self.nodes.append(node(op, inputs, output, **attributes))
        return output

    def const(self, name: str, array: object, dtype: type = np.float32) -> str:
        self.weights[name] = np.asarray(array, dtype=dtype)
        return name

    def pair(self, value: str, scale: object = 0.1, zero: object = 0, dtype: type = np.int8, **attributes: int) -> str:
        """Q/DQ behind `value`."""
        scale = np.asarray(scale, dtype=getattr(scale, "dtype", np.float32))
        self.weights[f"{value}_s"] = scale
        self.const(f"{value}_z", np.full(scale.shape, zero), dtype)
        self.op("QuantizeLinear", f"{value} {value}_s {value}_z", f"{value}_q", **attributes)
        return self.op("DequantizeLinear", f"{value}_q {value}_s {value}_z", f"{value}_dq", **attributes)

    def weight(self, name: str, shape: tuple[int, ...], axis: int, count: int | None = None) -> str:
        """INT8 weights behind DequantizeLinear, the stored form."""
        count = shape[axis] if count is None else count
        self.const(f"{name}_i", np.clip(rand(*shape) * 40, -127, 127), np.int8)
        self.const(f"{name}_s", np.full(count, 0.02) if count > 1 else 0.02)
        self.const(f"{name}_z", np.zeros(count) if count > 1 else 0, np.int8)
        return self.op("DequantizeLinear", f"{name}_i {name}_s {name}_z", name, axis=axis)

    def conv(self, value: str, output: str, **attributes: object) -> str:
        """A Conv of 4 channels with quantized weights and FP32 bias."""
        weight = self.weight(f"{output}_w", (4, 4, 1, 1), 0)
        return self.op("Conv", f"{value} {weight} {self.const(f'{output}_b', rand(4))}", output, **attributes)

    def model(self, inputs=None, outputs=None, opset: int = 17, infer: bool = True):
        inputs = inputs or {"x": PICTURE}
        outputs = outputs or {self.nodes[-1].output[0]: None}
        built = graph(self.nodes, inputs, outputs, self.weights, opset=opset)
        return infer_shapes(built) if infer else built


def _clean_conv() -> Net:
    net = Net()
    net.op("Relu", net.conv(net.pair("x"), "y"), "z")
    return net


def _clean_residual() -> Net:
    net = Net()
    net.op("Relu", net.conv(net.pair("x"), "y"), "r")
    skip = net.pair("r")
    net.conv(skip, "c")
    net.op("Relu", net.op("Add", f"c {skip}", "a"), "z")
    return net


def _clean_dense() -> Net:
    net = Net()
    net.op("Gemm", f"{net.pair('x')} {net.weight('w', (16, 5), 1)} {net.const('b', rand(5))}", "y")
    net.op("MatMul", f"{net.pair('y')} {net.weight('v', (5, 3), 1)}", "m")
    net.op("Softmax", net.op("Add", f"m {net.const('c', rand(3))}", "a"), "z")
    return net


def test_clean_graphs_have_no_findings() -> None:
    assert lint(_clean_conv().model()) == []
    assert lint(_clean_residual().model()) == []
    assert lint(_clean_dense().model({"x": (2, 16)})) == []
    assert require_clean(_clean_conv().model(), target_opset_max=17) == []


def test_weights_behind_a_pair_are_as_clean_as_stored_int8() -> None:
    net = Net()
    net.const("w", rand(4, 4, 1, 1))
    net.op("Conv", f"{net.pair('x')} {net.pair('w', np.full(4, 0.02, np.float32), axis=0)}", "z")
    assert lint(net.model()) == []


def _zero_point() -> Net:
    net = Net()
    net.conv(net.pair("x", zero=3), "z")
    return net


def _computed_zero_point() -> Net:
    net = _clean_conv()
    net.nodes.insert(0, node("Cast", "f", "x_z", to=onnx.TensorProto.INT8))
    net.nodes.insert(0, node("ReduceMax", "x", "f", keepdims=0))
    del net.weights["x_z"]
    return net


def _int32() -> Net:
    net = Net()  # not a bias, so that only the type is wrong
    net.const("k_i", np.arange(4).reshape(1, 4, 1, 1), np.int32)
    net.op("DequantizeLinear", f"k_i {net.const('k_s', 0.1)}", "k")
    net.op("Concat", "x k8", "z", axis=1)
    net.nodes.insert(1, node("Expand", f"k {net.const('shape', PICTURE, np.int64)}", "k8"))
    return net


def _uint8() -> Net:
    net = Net()
    net.conv(net.pair("x", dtype=np.uint8), "z")
    return net


def _uint8_by_default() -> Net:
    net = Net()
    net.op("QuantizeLinear", f"x {net.const('s', 0.1)}", "q")
    net.conv(net.op("DequantizeLinear", "q s", "dq"), "z")
    return net


def _scale_computed() -> Net:
    net = Net()
    net.op("ReduceMax", "x", "s", keepdims=0)
    zero = net.const("zero", 0, np.int8)
    net.conv(net.op("DequantizeLinear", f"{net.op('QuantizeLinear', f'x s {zero}', 'q')} s {zero}", "dq"), "z")
    return net


def _scale(value: float) -> Net:
    net = Net()
    net.conv(net.pair("x", value), "z")
    return net


def _per_channel_activation() -> Net:
    net = Net()
    net.conv(net.pair("x", np.full(4, 0.1, np.float32), axis=1), "z")
    return net


def _axis(op: str, shape: tuple[int, ...], axis: int, **attributes: int) -> Net:
    net = Net()
    net.op(op, f"{net.pair('x')} {net.weight('w', shape, axis)}", "z", **attributes)
    return net


def _scale_length() -> Net:
    net = Net()
    net.op("Conv", f"{net.pair('x')} {net.weight('w', (4, 4, 1, 1), 0, count=3)}", "z")
    return net


def _mismatch() -> Net:
    net = _clean_conv()
    net.nodes[1].input[1] = net.const("other", 0.2)
    return net


def _lone_quantizer() -> Net:
    net = _clean_conv()
    zero = net.const("zero", 0, np.int8)
    net.op("Cast", net.op("QuantizeLinear", f"y {net.const('s', 0.1)} {zero}", "q"), "extra", to=FLOAT)
    return net


def _lone_dequantizer() -> Net:
    net = Net()
    net.op("Cast", "x", "i", to=onnx.TensorProto.INT8)
    net.conv(net.op("DequantizeLinear", f"i {net.const('s', 0.1)} {net.const('zero', 0, np.int8)}", "dq"), "z")
    return net


def _bias() -> Net:
    net = Net()
    net.op("Conv", f"{net.pair('x')} {net.weight('w', (4, 4, 1, 1), 0)} {net.weight('b', (4,), 0, count=1)}", "z")
    return net


def _bias_of_matmul() -> Net:
    net = Net()
    net.op("MatMul", f"{net.pair('x')} {net.weight('w', (8, 4), 1)}", "m")
    net.op("Add", f"m {net.weight('b', (4,), 0, count=1)}", "z")
    return net


def _output() -> Net:
    net = Net()
    net.pair(net.conv(net.pair("x"), "y"))
    return net


def _recurrent() -> Net:
    net = Net()
    net.const("w", rand(1, 32, 4))
    net.const("r", rand(1, 32, 8))
    net.nodes.append(node("LSTM", f"{net.pair('x')} w r", "z", hidden_size=8))
    return net


def _body() -> Net:
    inner = Net()
    inner.conv(inner.pair("x"), "t")
    out = [helper.make_tensor_value_info("t", FLOAT, PICTURE)]
    weights = [onnx.numpy_helper.from_array(a, n) for n, a in inner.weights.items()]
    then = helper.make_graph(inner.nodes, "then", [], out, weights)
    other = helper.make_graph(
        [node("Relu", "x", "e")], "else", [], [helper.make_tensor_value_info("e", FLOAT, PICTURE)]
    )
    net = Net()
    net.const("flag", True, bool)
    net.op("If", "flag", "z", then_branch=then, else_branch=other)
    return net


def _scalar() -> Net:
    net = Net()
    net.op("Mul", f"x {net.weight('k', (1,), 0, count=1)}", "z")
    return net


def _pad() -> Net:
    net = Net()
    net.op("Pad", f"x {net.const('pads', [0, 0, 1, 1, 0, 0, 1, 1], np.int64)}", "p")
    net.conv(net.pair("p"), "z")
    return net


def _head_input() -> Net:
    net = Net()
    net.conv(net.pair("x"), "y")
    net.op("Sigmoid", net.pair("y"), "z")
    return net


def _head_output() -> Net:
    net = Net()
    net.op("Sigmoid", net.conv(net.pair("x"), "y"), "s")
    net.op("Reshape", f"{net.pair('s')} {net.const('shape', [1, -1], np.int64)}", "z")
    return net


def _fusion() -> Net:
    net = Net()
    net.conv(net.pair("x"), "y")
    net.op("Relu", net.pair("y"), "z")
    return net


def _both_branches() -> Net:
    net = _clean_residual()
    add = next(n for n in net.nodes if n.op_type == "Add")
    at = net.nodes.index(add)
    tail, net.nodes = net.nodes[at:], net.nodes[:at]
    add.input[0] = net.pair("c")
    net.nodes += tail
    return net


def _conv_branch() -> Net:
    net = Net()
    net.op("Relu", net.conv(net.pair("x"), "y"), "r")
    net.conv(net.pair("r"), "c")
    net.op("Relu", net.op("Add", f"{net.pair('c')} r", "a"), "z")
    return net


def _useless() -> Net:
    net = Net()
    net.op("Relu", "x", "r")
    net.op("Mul", f"{net.pair('r')} x", "z")
    return net


def _concat(first: float, second: float) -> Net:
    net = Net()
    net.op("Relu", "x", "a")
    net.op("Neg", "x", "b")
    net.op("Concat", f"{net.pair('a', first)} {net.pair('b', second)}", "z", axis=1)
    return net


def _fp16_scale() -> Net:
    net = Net()
    net.op("Cast", "x", "h", to=onnx.TensorProto.FLOAT16)
    half = net.pair("h", np.float16(0.1).reshape(()))
    net.conv(net.op("Cast", half, "f", to=FLOAT), "z")
    return net


def _integer_operator() -> Net:
    net = Net()
    net.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "zp"], name="q"))
    net.op("Cast", "q", "z", to=FLOAT)
    return net


def _resize(mode: str, rounding: str) -> Net:
    net = Net()
    attributes = {"mode": "nearest", "coordinate_transformation_mode": mode, "nearest_mode": rounding}
    net.op("Resize", f"x _ {net.const('s', [1, 1, 2, 2])}", "z", **attributes)
    return net


def _transposes(count: int) -> Net:
    net, value = Net(), "x"
    for i in range(count):
        value = net.op("Transpose", value, f"t{i}", perm=[0, 2, 3, 1])
    return net


def _half(data: bool) -> Net:
    net = Net()
    value, weight = (
        (net.pair("x"), net.const("w", rand(4, 4, 1, 1))) if data else ("x", net.weight("w", (4, 4, 1, 1), 0))
    )
    net.op("Conv", f"{value} {weight}", "z")
    return net


def _scalar_input() -> Net:
    net = Net()
    net.op("ReduceMean", "x", "m", keepdims=0)
    shape = net.const("shape", PICTURE, np.int64)
    net.conv(net.pair(net.op("Expand", f"{net.pair('m')} {shape}", "e")), "z")
    return net


DENSE, SERIES = {"x": (2, 8)}, {"x": (3, 1, 4)}
BROKEN = [
    ("zero-point", _zero_point(), {}),
    ("zero-point", _computed_zero_point(), {}),
    ("int32-dequantize", _int32(), {}),
    ("not-int8", _uint8(), {}),
    ("not-int8", _uint8_by_default(), {}),
    ("scale-constant", _scale_computed(), {}),
    ("scale-value", _scale(0.0), {}),
    ("scale-value", _scale(-0.1), {}),
    ("scale-value", _scale(float("inf")), {}),
    ("scale-value", _scale(float("nan")), {}),
    ("activation-per-channel", _per_channel_activation(), {}),
    ("weight-axis", _axis("Conv", (4, 4, 1, 1), 1), {}),
    ("weight-axis", _axis("ConvTranspose", (4, 4, 1, 1), 0), {}),
    ("weight-axis", _axis("MatMul", (8, 8), 0), {"inputs": DENSE}),
    ("weight-axis", _axis("Gemm", (8, 8), 0), {"inputs": DENSE}),
    ("weight-axis", _axis("Gemm", (8, 8), 1, transB=1), {"inputs": DENSE}),
    ("scale-length", _scale_length(), {}),
    ("pair-mismatch", _mismatch(), {}),
    ("dangling", _lone_quantizer(), {"outputs": {"z": None, "extra": None}}),
    ("dangling", _lone_dequantizer(), {}),
    ("quantized-bias", _bias(), {}),
    ("quantized-bias", _bias_of_matmul(), {"inputs": DENSE}),
    ("graph-output", _output(), {}),
    ("recurrent", _recurrent(), {"inputs": SERIES}),
    ("subgraph", _body(), {}),
    ("elementwise-constant", _scalar(), {}),
    ("pad-conv", _pad(), {}),
    ("head", _head_input(), {}),
    ("head", _head_output(), {}),
    ("fusion", _fusion(), {}),
    ("residual", _both_branches(), {}),
    ("residual", _conv_branch(), {}),
    ("int8-reader", _useless(), {}),
    ("scalar-input", _scalar_input(), {}),
    ("half-layer", _half(data=True), {}),
    ("half-layer", _half(data=False), {}),
    ("concat-scales", _concat(0.1, 0.2), {}),
    ("opset-axis", _clean_conv(), {"opset": 10, "infer": False}),
    ("opset-fp16-scale", _fp16_scale(), {"opset": 17, "infer": False}),
    ("operator", _integer_operator(), {}),
    ("resize-mode", _resize("tf_half_pixel_for_nn", "floor"), {}),
    ("resize-mode", _resize("half_pixel_symmetric", "floor"), {"opset": 19}),
    ("transposes", _transposes(3), {}),
]


@pytest.mark.parametrize(("rule", "net", "how"), BROKEN, ids=[f"{i}-{r}" for i, (r, _, _) in enumerate(BROKEN)])
def test_a_graph_that_breaks_one_rule_is_found_by_that_rule_alone(rule: str, net: Net, how: dict) -> None:
    findings = lint(net.model(**how))
    assert {finding.rule for finding in findings} == {rule}, findings
    assert {finding.severity for finding in findings} == {RULES[rule].severity}


@pytest.mark.parametrize(
    ("net", "how"),
    [
        (_axis("Conv", (4, 4, 1, 1), 0), {}),
        (_axis("Conv", (4, 4, 1, 1), -4), {}),
        (_axis("ConvTranspose", (4, 4, 1, 1), 1), {}),
        (_axis("MatMul", (8, 8), 1), {"inputs": DENSE}),
        (_axis("Gemm", (8, 8), 1), {"inputs": DENSE}),
        (_axis("Gemm", (8, 8), 0, transB=1), {"inputs": DENSE}),
        (_concat(0.1, 0.1), {}),
        (_resize("half_pixel", "round_prefer_ceil"), {}),
        (_resize("asymmetric", "floor"), {}),
        (_transposes(2), {}),
        (_fp16_scale(), {"opset": 19}),
    ],
)
def test_their_clean_twins_pass(net: Net, how: dict) -> None:
    assert lint(net.model(**how)) == []


def test_the_opset_is_held_against_the_target() -> None:
    model = _clean_conv().model()
    assert lint(model, target_opset_max=17) == []
    assert [finding.rule for finding in lint(model, target_opset_max=13)] == ["opset-target"]


def test_every_rule_is_tested_and_gives_its_reason() -> None:
    assert set(RULES) == {rule for rule, _, _ in BROKEN} | {"opset-target"}
    assert all(rule.reason.endswith((".", ").")) and "\n" not in rule.reason for rule in RULES.values())


def test_require_clean_raises_on_errors_and_returns_warnings() -> None:
    with pytest.raises(GateError, match=r"zero-point at 'x_q': The zero point is not zero; zero-point at 'x_dq'"):
        require_clean(_zero_point().model())
    assert [finding.rule for finding in require_clean(_transposes(3).model())] == ["transposes"]


def test_errors_come_before_warnings_and_long_lists_are_cut() -> None:
    net = _concat(0.1, 0.0)
    findings = lint(net.model())
    assert [f.severity for f in findings] == ["error", "error", "warning"]
    many = Net()
    value = "x"
    for i in range(3):
        value = many.conv(many.pair(value, 0.0), f"y{i}")
    with pytest.raises(GateError, match="and 3 more"):
        require_clean(many.model())


def test_the_keras_layer_is_named_where_it_is_known() -> None:
    model = graph(
        [node("Resize", "x  scales", "y", mode="nearest", coordinate_transformation_mode="tf_crop_and_resize")],
        {"x": (1, 1, 2, 2)},
        {"y": None},
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    )
    model.graph[0].name = "model_1/shrink_1/resize/Resize"
    (finding,) = [found for found in lint(model, layers=["shrink"]) if found.rule == "resize-mode"]
    assert finding.layer == "shrink"
    assert str(finding).startswith("resize-mode at the layer 'shrink':")
    (finding,) = [found for found in lint(model) if found.rule == "resize-mode"]
    assert str(finding).startswith("resize-mode at 'model_1/shrink_1/resize/Resize':")
