"""What each TensorRT refuses, one graph for each reason, beside a release or a twin that takes it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemed.graph.lint import Finding
from edgemed.graph.model import infer_shapes
from edgemed.graph.rules.limits import LIMITS
from edgemed.graph.target import has_pairs, is_half, lint_target
from edgemed.graph.tensorrt import first_with
from tests.graph.onnx_models import graph, node, rand

INT64, INT32, UINT8, HALF = TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.FLOAT16
PICTURE = (1, 4, 8, 8)


def model(nodes, inputs=None, weights=None, opset=13, outputs=None):
    outputs = outputs or {nodes[-1].output[0]: None}
    return infer_shapes(graph(nodes, inputs or {"x": PICTURE}, outputs, weights or {}, opset=opset), strict=False)


def errors(built, tensorrt, **how) -> list[Finding]:
    return [finding for finding in lint_target(built, tensorrt, **how) if finding.severity == "error"]


def rules(built, tensorrt, severity="error") -> list[str]:
    return [finding.rule for finding in lint_target(built, tensorrt) if finding.severity == severity]


def conv(opset=13, shape=PICTURE):
    weight = rand(4, 4, *(1,) * (len(shape) - 2))
    return model([node("Conv", "x w", "y")], {"x": shape}, {"w": weight}, opset)


def layer_norm():
    return model([node("LayerNormalization", "x g", "model/norm_1/y")], {"x": (1, 4)}, {"g": rand(4)}, 17)


def test_a_plain_graph_is_taken_by_all():
    for tensorrt in ("8.0.1", "8.2.1", "8.5.2", "8.6.2", "10.3.0", "10.13.3", "10.16.2", "11.4.1"):
        assert lint_target(conv(), tensorrt) == []


def test_an_operator_that_came_later_names_its_keras_layer_and_the_way_out():
    built = layer_norm()
    (found,) = errors(built, "8.5.2.2", layers=["norm", "norm_1", "model"])
    assert (found.rule, found.layer) == ("target-operator", "norm_1")
    assert found.message == "TensorRT 8.5.2.2 has no LayerNormalization."
    assert "8.6" in found.remedy
    assert errors(built, "8.6.2.3") == []


def test_an_opset_above_the_maximum_is_told_by_the_node_that_needs_it():
    built = model(
        [node("Conv", "x w", "c"), node("HardSwish", "c", "act/y")], weights={"w": rand(4, 4, 1, 1)}, opset=14
    )
    (found,) = errors(built, "8.2.1", layers=["act"])
    assert (found.rule, found.layer) == ("target-operator", "act")  # it has none at all, told once
    # Pad of opset 18 (axes as input) on a TensorRT that pads, but reads opset 17 only
    nodes = [node("Pad", "x p _ a", "pad/y")]
    built = model(nodes, weights={"p": np.array([1, 1]), "a": np.array([2])}, opset=18)
    (found,) = errors(built, "8.5.2", layers=["pad"])
    assert (found.rule, found.layer) == ("target-opset", "pad")
    assert "needs ONNX opset 18" in found.message
    assert "reads up to 17" in found.message


def test_an_opset_that_is_declared_but_not_needed_is_told_once():
    built = conv(opset=18)
    (found,) = errors(built, "8.6.2")
    assert found.node is None
    assert "needs no more than 17" in found.message
    assert errors(built, "10.3.0") == []


def test_where_the_sources_leave_the_opset_open_it_is_a_warning():
    built = conv(opset=21)
    assert rules(built, "10.13.3") == []
    assert rules(built, "10.13.3", "warning") == ["target-opset"]
    assert rules(built, "10.3.0") == ["target-opset"]
    assert rules(built, "10.16.2") == []


def test_a_profiles_own_opset_holds():
    assert [f.rule for f in errors(conv(opset=15), "10.3.0", opset=13)] == ["target-opset"]


def test_an_operator_of_another_domain_wants_a_plugin():
    body = helper.make_graph(
        [helper.make_node("Gelu", ["x"], ["y"], name="y", domain="com.microsoft")],
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, PICTURE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, PICTURE)],
    )
    imports = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    import onnx_ir as ir

    built = ir.from_proto(helper.make_model(body, opset_imports=imports, ir_version=8))
    (found,) = errors(built, "10.3.0")
    assert (found.rule, "plugin" in found.message) == ("target-operator", True)


def _typed(op: str, kind: int, *, opset: int = 13, **attributes):
    """A graph of one operator on an input of any type."""
    import onnx_ir as ir

    body = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], name="y", **attributes)],
        "main",
        [helper.make_tensor_value_info("x", kind, PICTURE)],
        [helper.make_empty_tensor_value_info("y")],
    )
    proto = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return infer_shapes(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), strict=False)


def test_types_that_the_list_lacks():
    cast = _typed("Cast", UINT8, to=TensorProto.FLOAT)
    (found,) = errors(cast, "8.5.2")
    assert (found.rule, found.message) == (
        "target-type",
        "TensorRT 8.5.2 lists Cast for BOOL, FP16, FP32, INT32, INT8, not for UINT8.",
    )
    assert found.remedy
    assert errors(cast, "8.6.2") == []


def test_integers_are_warned_about_only_for_shapes_are_computed_with_them():
    assert rules(_typed("ReduceMax", INT32), "8.6.2") == []
    assert rules(_typed("ReduceMax", INT32), "8.6.2", "warning") == ["target-type"]
    assert rules(_typed("ReduceMax", INT32), "10.3.0", "warning") == []


def test_int64_is_read_as_int32_before_tensorrt_9():
    assert lint_target(_typed("Abs", INT64), "8.6.2") == []
    assert lint_target(_typed("Abs", HALF), "8.2.1")[0].rule == "target-typing"


def _one(op, inputs="x", weights=None, shapes=None, opset=13, outputs="y", **attributes):
    return model([node(op, inputs, outputs, **attributes)], shapes, weights, opset)


def _computed(op: str, inputs: str, **attributes):
    """The second input of `op` is computed from a graph input, as INT64."""
    nodes = [node("Shape", "t", "s"), node(op, inputs, "y", **attributes)]
    return model(nodes, {"x": PICTURE, "t": (8,)})


BIDIRECTIONAL = {"direction": "bidirectional", "hidden_size": 2}
RECURRENT = {"W": rand(2, 8, 4), "R": rand(2, 8, 2)}
PADS = np.array([0, 0, 1, 1, 0, 0, 1, 1])
SORTED = {"largest": 1}
BREACHES = {
    "activations": (
        _one(
            "LSTM",
            "x W R",
            RECURRENT,
            {"x": (3, 1, 4)},
            activations=["Sigmoid", "Tanh", "Tanh"] + ["Relu"] * 3,
            **BIDIRECTIONAL,
        ),
        "8.2.1",
        _one(
            "LSTM", "x W R", RECURRENT, {"x": (3, 1, 4)}, activations=["Sigmoid", "Tanh", "Tanh"] * 2, **BIDIRECTIONAL
        ),
    ),
    "attention": (
        _one("Attention", "x x x", {}, {"x": (1, 3, 8)}, 23, q_num_heads=2, kv_num_heads=2),
        "10.16.2",
        _one("Attention", "x x x", {}, {"x": (1, 2, 3, 4)}, 23),
    ),
    "attribute": (
        _one(
            "LSTM", "x W R", {"W": rand(1, 8, 4), "R": rand(1, 8, 2)}, {"x": (3, 1, 4)}, hidden_size=2, input_forget=1
        ),
        "10.3.0",
        _one("LSTM", "x W R", {"W": rand(1, 8, 4), "R": rand(1, 8, 2)}, {"x": (3, 1, 4)}, hidden_size=2),
    ),
    "constant": (_computed("ReduceSum", "x s"), "10.3.0", _one("ReduceSum", "x a", {"a": np.array([1])})),
    "constant-float": (
        model([node("Range", "x b c", "y")], {"x": ()}, {"b": np.float32(9), "c": np.float32(1)}),
        "8.2.1",
        model(
            [node("Range", "a b c", "y")], {"x": ()}, {k: np.float32(v) for k, v in {"a": 0, "b": 9, "c": 1}.items()}
        ),
    ),
    "dilations": (
        _one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]),
        "10.3.0",
        _one("MaxPool", kernel_shape=[2, 2], dilations=[1, 1]),
    ),
    "einsum": (
        _one("Einsum", "x x", shapes={"x": (4, 4)}, equation="ii,ij->j"),
        "8.6.2",
        _one("Einsum", "x x", shapes={"x": (4, 4)}, equation="ik,kj->ij"),
    ),
    "indices": (
        _one("Gather", "x i", {"i": np.array([-1])}),
        "8.0.1",
        _one("Gather", "x i", {"i": np.array([0])}),
    ),
    "k": (
        model([node("TopK", "x k", "v i")], {"x": (1, 5000)}, {"k": np.array([3840])}),
        "10.3.0",
        model([node("TopK", "x k", "v i")], {"x": (1, 5000)}, {"k": np.array([3839])}),
    ),
    "outputs": (
        model([node("MaxPool", "x", "y i", kernel_shape=[2, 2]), node("Cast", "i", "z", to=1)]),
        "8.5.2",
        model([node("MaxPool", "x", "y i", kernel_shape=[2, 2])]),
    ),
    "pad": (
        _one("Pad", "x p", {"p": PADS}, mode="reflect"),
        "8.0.1",
        _one("Pad", "x p", {"p": PADS}),
    ),
    "rank": (
        _one("InstanceNormalization", "x s b", {"s": rand(4), "b": rand(4)}, {"x": (1, 4, 2, 2, 2, 2)}),
        "8.5.2",
        _one("InstanceNormalization", "x s b", {"s": rand(4), "b": rand(4)}, {"x": (1, 4, 2, 2, 2)}),
    ),
    "reduction": (
        _one("ScatterND", "x i u", {"i": np.array([[0]]), "u": rand(1, 4, 8, 8)}, opset=16, reduction="add"),
        "10.3.0",
        _one("ScatterND", "x i u", {"i": np.array([[0]]), "u": rand(1, 4, 8, 8)}, opset=16),
    ),
    "resize": (
        _one(
            "Resize",
            "x r s",
            {"r": rand(8), "s": np.ones(4, np.float32)},
            coordinate_transformation_mode="tf_crop_and_resize",
        ),
        "10.3.0",
        _one("Resize", "x _ s", {"s": np.ones(4, np.float32)}, coordinate_transformation_mode="half_pixel"),
    ),
    "resize-18": (
        _one("Resize", "x _ s", {"s": np.ones(4, np.float32)}, opset=18, mode="linear", antialias=1),
        "10.3.0",
        _one("Resize", "x _ s", {"s": np.ones(4, np.float32)}, opset=18, mode="linear"),
    ),
    "resize-cubic": (
        _one("Resize", "x _ s", {"s": np.ones(4, np.float32)}, mode="cubic"),
        "8.2.1",
        _one("Resize", "x _ s", {"s": np.ones(4, np.float32)}, mode="linear"),
    ),
    "sorted": (
        model([node("TopK", "x k", "v i", sorted=0)], {"x": (1, 9)}, {"k": np.array([3])}),
        "10.3.0",
        model([node("TopK", "x k", "v i", sorted=1)], {"x": (1, 9)}, {"k": np.array([3])}),
    ),
    "spatial": (
        _one("MaxPool", shapes={"x": (1, 2, 4, 4, 4, 4)}, kernel_shape=[2] * 4),
        "8.5.2",
        _one("MaxPool", shapes={"x": (1, 2, 4)}, kernel_shape=[2]),  # one axis is widened by the importer
    ),
    "static": (
        _one("EyeLike", shapes={"x": ("n", 4)}),
        "10.3.0",
        _one("EyeLike", shapes={"x": (4, 4)}),
    ),
    "training": (
        _one("Dropout", "x r t", {"r": np.float32(0.5), "t": np.bool_(True)}),
        "10.3.0",
        _one("Dropout", "x r t", {"r": np.float32(0.5), "t": np.bool_(False)}),
    ),
}


@pytest.mark.parametrize(("keyword", "case"), BREACHES.items())
def test_a_restriction_is_seen_and_its_clean_twin_passes(keyword, case):
    broken, tensorrt, clean = case
    found = errors(broken, tensorrt)
    assert [finding.rule for finding in found] == ["target-limit"]
    assert found[0].remedy == LIMITS[keyword].remedy
    assert errors(clean, tensorrt) == []


def test_text_constants_are_a_restriction():
    text = helper.make_node("Constant", [], ["t"], name="t", value_string="abc")
    built = model([text, node("Relu", "x", "y")], outputs={"y": None})
    (found,) = errors(built, "10.3.0")
    assert found.remedy == LIMITS["constant-kind"].remedy


def test_every_restriction_is_tested():
    assert set(BREACHES) | {"constant-kind"} == set(LIMITS)


def _quantized(dtype=np.float32, opset=13):
    """A Conv with both Q/DQ pairs, FP32 weights behind theirs, as edgemed writes it."""
    weights = {
        "s": dtype(0.1),
        "z": np.int8(0),
        "w": rand(4, 4, 1, 1).astype(dtype),
        "ws": np.full(4, 0.02, dtype),
        "wz": np.zeros(4, np.int8),
    }
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("QuantizeLinear", "w ws wz", "wq", axis=0),
        node("DequantizeLinear", "wq ws wz", "wd", axis=0),
        node("Conv", "d wd", "y"),
    ]
    body = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT if dtype is np.float32 else HALF, PICTURE)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    import onnx_ir as ir

    proto = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return infer_shapes(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))


def test_a_quantized_graph_of_opset_13_is_taken_by_all_and_weights_behind_pairs_are_constants():
    built = _quantized()
    assert has_pairs(built)
    for tensorrt in ("8.0.1", "8.2.1", "8.5.2", "8.6.2", "10.3.0"):
        assert lint_target(built, tensorrt) == []


@pytest.mark.parametrize(
    ("tensorrt", "says"),
    [("10.13.3", "deprecated"), ("10.16.2", "deprecated"), ("11.4.1", "runs in FP32")],
)
def test_where_types_come_from_the_graph_the_typed_one_is_asked_for(tensorrt, says):
    (found,) = lint_target(_quantized(), tensorrt)
    assert (found.rule, found.severity) == ("target-typing", "warning")
    assert says in found.message
    assert "int8_fp16.onnx" in found.remedy


def test_a_typed_graph_is_for_tensorrt_10_12_and_later():
    built = _quantized(np.float16, 19)
    assert is_half(built)
    assert rules(built, "10.16.2", "warning") == []
    assert rules(built, "10.3.0", "warning") == ["target-typing"]
    assert "target-opset" in rules(built, "8.6.2")  # FP16 scales came with opset 19


def test_open_sizes_are_warned_about():
    built = _one("Relu", shapes={"x": ("batch", 3)})
    (found,) = lint_target(built, "10.3.0")
    assert (found.rule, found.severity) == ("target-dynamic", "warning")
    assert "'x'" in found.message


def test_the_release_that_is_named_reads_the_opset_too():
    """Loop is as old as TensorRT 8.0, but what needs opset 16 wants 8.5."""
    assert first_with("CumSum", 14) != first_with("CumSum")
    assert first_with("CumSum", 14) in ("8.5", "8.6")
    assert first_with("Loop", 99) is None


def test_an_integer_image_is_told_to_become_float():
    """edgemed keeps the dtype that Keras declares; only the model's author can change it."""
    value = helper.make_tensor_value_info
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Cast", ["x"], ["y"], name="cast", to=TensorProto.FLOAT)],
            "g",
            [value("x", TensorProto.UINT8, [1, 4])],
            [value("y", TensorProto.FLOAT, [1, 4])],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=7,
    )
    (found,) = [f for f in lint_target(infer_shapes(ir.from_proto(proto)), "8.2.1") if f.severity == "error"]
    assert "not for UINT8" in found.message
    assert found.remedy.startswith("Declare the Keras input as float32")
