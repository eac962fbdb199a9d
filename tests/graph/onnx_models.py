"""Small ONNX graphs built by hand, and the two ways to use them: as a graph in memory, and run in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT8, INT64 = TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT64
Shape = Sequence[int | str]


def node(op: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    """One node; inputs and outputs are names separated by spaces, `_` stands for an input left out."""
    names = ["" if name == "_" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=outputs.split()[0], **attributes)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape | None],
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
) -> ir.Model:
    """Make a graph of FP32 inputs and outputs."""
    body = helper.make_graph(
        list(nodes),
        "main",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    ir_version = 9 if opset >= 19 else 8
    return ir.from_proto(helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version))


def run(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a graph as it is: ONNX Runtime's own rewrites are off, so that ours are what is tested."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def random_feeds(model: ir.Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Standard normal numbers for every input."""
    rng = np.random.default_rng(seed)
    return {v.name: rng.standard_normal(tuple(v.shape)).astype(np.float32) for v in model.graph.inputs}


def assert_same_outputs(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], tolerance: float) -> None:
    """Compare max|Δ| / max|reference| of every output with `tolerance`; 0 asks for equal bits."""
    assert list(before) == list(after)
    for name, reference in before.items():
        assert reference.shape == after[name].shape
        error = np.abs(reference.astype(np.float64) - after[name]).max() / max(np.abs(reference).max(), 1e-30)
        assert error <= tolerance, f"{name}: {error}"


def ops(model: ir.Model) -> list[str]:
    """Operator names in graph order."""
    return [n.op_type for n in model.graph]


def rand(*shape: int, seed: int = 1) -> np.ndarray:
    """Standard normal FP32 numbers: biases and statistics are never zero, which would hide faults."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)
