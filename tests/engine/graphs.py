"""Small ONNX graphs for the engine tests: a convolution net, in FP32 and with Q/DQ pairs around int8 weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def conv_net(*, batch: int | str = 1, second_op: str = "Relu") -> onnx.ModelProto:
    """Conv 3×3 (3→16), `second_op`, Conv 1×1 (16→4) on 32×32; the batch may be symbolic."""
    rng = np.random.default_rng(7)
    weights = {
        "w1": rng.normal(size=(16, 3, 3, 3)).astype(np.float32),
        "b1": rng.normal(size=16).astype(np.float32),
        "w2": rng.normal(size=(4, 16, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node(second_op, ["c"], ["r"], name="middle"),
        helper.make_node("Conv", ["r", "w2"], ["y"], name="head"),
    ]
    return _model(nodes, weights, batch)


def qdq_net(*, zero_point: int = 0) -> onnx.ModelProto:
    """The same net with int8 weights (per channel) and Q/DQ on both activations."""
    rng = np.random.default_rng(7)
    constants: dict[str, Any] = {"b1": rng.normal(size=16).astype(np.float32), "zp": np.int8(zero_point)}
    for name, shape in (("w1", (16, 3, 3, 3)), ("w2", (4, 16, 1, 1))):
        constants[name] = rng.integers(-127, 128, size=shape).astype(np.int8)
        constants[f"{name}_s"] = np.full(shape[0], 0.01, np.float32)
        constants[f"{name}_z"] = np.zeros(shape[0], np.int8)
    constants |= {"x_s": np.float32(0.02), "r_s": np.float32(0.05)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_s", "zp"], ["xq"], name="x_q"),
        helper.make_node("DequantizeLinear", ["xq", "x_s", "zp"], ["xd"], name="x_dq"),
        helper.make_node("DequantizeLinear", ["w1", "w1_s", "w1_z"], ["w1d"], name="w1_dq", axis=0),
        helper.make_node("Conv", ["xd", "w1d", "b1"], ["c"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="middle"),
        helper.make_node("QuantizeLinear", ["r", "r_s", "zp"], ["rq"], name="r_q"),
        helper.make_node("DequantizeLinear", ["rq", "r_s", "zp"], ["rd"], name="r_dq"),
        helper.make_node("DequantizeLinear", ["w2", "w2_s", "w2_z"], ["w2d"], name="w2_dq", axis=0),
        helper.make_node("Conv", ["rd", "w2d"], ["y"], name="head"),
    ]
    return _model(nodes, constants, 1)


def big_net(blocks: int = 60) -> onnx.ModelProto:
    """A chain of 3×3 convolutions whose build takes long enough to be interrupted."""
    rng = np.random.default_rng(7)
    weights, nodes, last = {}, [], "x"
    for index in range(blocks):
        channels = 3 if index == 0 else 32
        width = 4 if index == blocks - 1 else 32
        weights[f"w{index}"] = rng.normal(size=(width, channels, 3, 3)).astype(np.float32)
        out = "y" if index == blocks - 1 else f"t{index}"
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [out], name=f"conv{index}", pads=[1, 1, 1, 1]))
        if out != "y":
            nodes.append(helper.make_node("Sigmoid", [out], [f"s{index}"], name=f"act{index}"))
        last = f"s{index}"
    return _model(nodes, weights, 1)


def _model(nodes: list[Any], constants: dict[str, Any], batch: int | str) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4, 32, 32])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model
