"""Little bundles for analyses: masks, volumes, and a model that answers NaN of what is dark."""

from __future__ import annotations

from pathlib import Path

import onnx
from evaluate.hostile import reseal, with_golden
from evaluate.masks.bundles import write_mask_bundle
from onnx import TensorProto, helper

from tests.serve import kit

CONTRACT = """
[input.contract]
modalities = ["CT", "US"]
max_frames = 600
"""
MASKS = """
assumed = false
[input.scaling]
divisor = 255.0
[output]
task = "segmentation"
activation = "sigmoid"
classes = [{ name = "bright", code = "SCT:108369006:Neoplasm" }]
"""


def chest(path: Path) -> Path:
    """`kit`'s classifier, which takes CT and ultrasound alone."""
    return kit.write_classifier(path, recipe=kit.RECIPE + CONTRACT)


def masks(path: Path) -> Path:
    """Marks what is brighter than half, on 8 x 8 pixels."""
    kit.write_segmenter(path)
    return reseal(path, files={"recipe.toml": MASKS.encode()})


def gated(path: Path) -> Path:
    """The same, calibrated on images: it can tell what is unlike them."""
    write_mask_bundle(path, int8=(0.5,))
    reseal(path, files={"recipe.toml": MASKS.encode()})
    with_golden(path)
    return path


def volume(path: Path) -> Path:
    """The same in 4 slices."""
    kit.write_segmenter(path, shape=(1, 4, 8, 8, 1))
    return reseal(path, files={"recipe.toml": MASKS.encode()})


def nan_of_dark(path: Path) -> Path:
    """The root of mean - 0.25: NaN below."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "least"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["score"]),
    ]
    constants = [
        helper.make_tensor("least", TensorProto.FLOAT, [1], [0.25]),
        helper.make_tensor("shape", TensorProto.INT64, [2], [1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "root",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, 4, 1])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    kit.write_classifier(path)
    reseal(path, files={"graphs/float.onnx": model.SerializeToString()})
    with_golden(path)
    return path
