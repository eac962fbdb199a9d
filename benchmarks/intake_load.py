"""A classifier that answers requests at a steady pace, on the CPU, beside whoever receives: a dot for each answer.

python -m benchmarks.intake_load PER_SECOND
"""

from __future__ import annotations

import itertools
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

CHANNELS = (1, 16, 32, 64)


def network() -> bytes:
    """Three strided convolutions of a 512x512 image, and their mean: about 10 ms of one core."""
    rng = np.random.default_rng(0)
    nodes, constants, at = [], [], "image"
    for layer, (before, after) in enumerate(itertools.pairwise(CHANNELS)):
        weights = rng.normal(0, 0.1, (after, before, 3, 3)).astype(np.float32)
        constants.append(onnx.numpy_helper.from_array(weights, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [at, f"w{layer}"], [f"c{layer}"], strides=[2, 2], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        at = f"r{layer}"
    nodes.append(helper.make_node("GlobalAveragePool", [at], ["score"]))
    graph = helper.make_graph(
        nodes,
        "load",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 512, 512])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 64, 1, 1])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()


def main(per_second: float) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(network(), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 1, 512, 512), np.float32)
    step_ns = int(1e9 / per_second)
    due_ns = time.monotonic_ns()
    while True:
        session.run(None, {"image": image})
        print(".", end="", flush=True)
        due_ns = max(due_ns + step_ns, time.monotonic_ns() - step_ns)
        time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)


if __name__ == "__main__":
    main(float(sys.argv[1]))
