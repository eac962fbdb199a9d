"""A small convolutional network of 224×224 colour images, as a bundle: the load of `make bench-http`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgemed.build.writer import BundleWriter
from edgemed.bundle.manifest import (
    Fidelity,
    Golden,
    GraphRef,
    InputTensor,
    Manifest,
    OutputFidelity,
    OutputTensor,
    RecipeRef,
    Source,
)
from tests.evaluate.hostile import with_golden

SIZE = 224
CLASSES = 10
BLOCKS = ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1))
RECIPE = "assumed = false\n[input.scaling]\ndivisor = 255.0\n"


def network() -> onnx.ModelProto:
    """MobileNet's depthwise separable blocks, an eighth to a quarter of its width; random weights."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def conv(x: str, name: str, inputs: int, outputs: int, kernel: int, stride: int, *, depthwise: bool = False) -> str:
        fan = kernel * kernel * (1 if depthwise else inputs)
        shape = (outputs, 1 if depthwise else inputs, kernel, kernel)
        values = rng.normal(0, np.sqrt(2 / fan), shape).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"{name}.w"))
        weights.append(numpy_helper.from_array(np.zeros(outputs, np.float32), f"{name}.b"))
        how = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        how["group"] = inputs if depthwise else 1  # type: ignore[assignment]
        nodes.append(helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [f"{name}.conv"], **how))
        nodes.append(helper.make_node("Relu", [f"{name}.conv"], [f"{name}.out"]))
        return f"{name}.out"

    nodes.append(helper.make_node("Transpose", ["image"], ["nchw"], perm=[0, 3, 1, 2]))
    x = conv("nchw", "stem", 3, BLOCKS[0][0], 3, 2)
    for number, (inputs, outputs, stride) in enumerate(BLOCKS):
        x = conv(x, f"block{number}.depth", inputs, inputs, 3, stride, depthwise=True)
        x = conv(x, f"block{number}.point", inputs, outputs, 1, 1)
    head = rng.normal(0, 0.1, (BLOCKS[-1][1], CLASSES)).astype(np.float32)
    weights.append(numpy_helper.from_array(head, "head.w"))
    nodes += [
        helper.make_node("GlobalAveragePool", [x], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head.w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "little",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, CLASSES])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def write_bundle(path: Path) -> Path:
    """The network as a bundle; its graph lies at `graphs/float.onnx`."""
    path.mkdir()
    writer = BundleWriter(path)
    recipe = writer.add("recipe.toml", RECIPE.encode())
    writer.add("golden.npz", b"")
    graph = writer.add("graphs/float.onnx", network().SerializeToString())
    fidelity = OutputFidelity(output="scores", reference="keras", relative_error=0.0, sqnr_db=None)
    writer.finish(
        Manifest(
            schema_="edgemed/bundle/1",
            name="little",
            created="2026-01-05T10:20:30+00:00",
            edgemed="0.1.0",
            source=Source(file="model.h5", sha256="1" * 64, format="keras-h5", versions={"keras": "3.15.0"}),
            inputs=(InputTensor(name="image", dtype="float32", shape=(1, SIZE, SIZE, 3), layout="NHWC"),),
            outputs=(
                OutputTensor(
                    name="scores",
                    dtype="float32",
                    shape=(1, CLASSES),
                    layout="NC",
                    task="multiclass",
                    activation="softmax",
                    classes=tuple(f"class{i}" for i in range(CLASSES)),
                ),
            ),
            precision="fp32",
            recipe=RecipeRef(path="recipe.toml", sha256=recipe.sha256, assumed=False),
            graphs={"float": GraphRef(path="graphs/float.onnx", sha256=graph.sha256, opset=13, ir_version=8)},
            fidelity=Fidelity(samples=8, float_vs_keras=(fidelity,), int8_mac_share=0.0),
            golden=Golden(path="golden.npz", samples=8, tolerance={}),
            files=writer.files,
        )
    )
    with_golden(path)
    return path
