"""Graphs from ONNX's text form, for tests of placement and insertion."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from edgemed.graph.model import infer_shapes

rng = np.random.default_rng(0)


def graph(inputs: str, outputs: str, body: str, **weights: tuple[int, ...] | np.ndarray) -> ir.Model:
    """A model from ONNX's text form; shapes become random FP32 initializers. Nodes are named after their output."""
    text = f'<ir_version: 8, opset_import: ["" : 17]> net ({inputs}) => ({outputs}) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    for node in proto.graph.node:
        node.name = node.output[0]
    for name, weight in weights.items():
        array = weight if isinstance(weight, np.ndarray) else rng.standard_normal(weight).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return infer_shapes(ir.from_proto(proto))


def conv(out: int, inp: int, k: int = 3) -> tuple[int, ...]:
    return (out, inp, k, k)
