"""A little segmentation bundle: it marks pixels by their brightness alone, and INT8 errs by an offset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from evaluate.bundles import write_bundle
from evaluate.hostile import reseal


def segmenter(bounds: tuple[float, ...], shape: tuple[int, ...] = (1, 8, 8, 1), *, softmax: bool = False) -> bytes:
    """`100 * (pixel - bound)` for each channel through a sigmoid, or a softmax over them."""
    count = len(bounds)
    nodes = [
        helper.make_node("Sub", ["image", "bounds"], ["distance"]),
        helper.make_node("Mul", ["distance", "steepness"], ["logit"]),
        helper.make_node("Softmax", ["logit"], ["mask"], axis=-1) if softmax else
        helper.make_node("Sigmoid", ["logit"], ["mask"]),
    ]  # fmt: skip
    steepness = [100.0 * (i + 1 if softmax else 1) for i in range(count)]
    constants = [
        helper.make_tensor("bounds", TensorProto.FLOAT, [count], bounds),
        helper.make_tensor("steepness", TensorProto.FLOAT, [count], steepness),
    ]
    graph = helper.make_graph(
        nodes,
        "segmenter",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, (*shape[:-1], count))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_mask_bundle(
    path: Path,
    *,
    float_: tuple[float, ...] = (0.5,),
    int8: tuple[float, ...] | None = (0.6,),
    shape: tuple[int, ...] = (1, 8, 8, 1),
    classes: tuple[str, ...] = (),
    recipe: str = "[input.scaling]\ndivisor = 255.0\n",
    softmax: bool = False,
    calibrated_on: tuple[str, ...] = (),
) -> Path:
    """A bundle that says `task = segmentation`; each channel has its own brightness."""
    graphs = {"float": float_} | ({} if int8 is None else {"int8": int8})
    write_bundle(path, boundaries=dict.fromkeys(graphs, 0.5), calibrated_on=calibrated_on)
    layout = "NHWC" if len(shape) == 4 else "NDHWC"

    def edit(manifest: dict[str, Any]) -> None:
        manifest["inputs"][0].update(shape=list(shape), layout=layout)
        manifest["outputs"][0].update(
            name="mask",
            shape=[*shape[:-1], len(float_)],
            layout=layout,
            task="segmentation",
            activation="softmax" if softmax else "sigmoid",
            classes=list(classes),
        )

    files = {f"graphs/{name}.onnx": segmenter(bounds, shape, softmax=softmax) for name, bounds in graphs.items()}
    return reseal(path, files={**files, "recipe.toml": recipe.encode()}, edit=edit)


def write_pair(folder: Path, name: str, pixels: np.ndarray, mask: np.ndarray) -> None:
    """`images/NAME.png` and `masks/NAME.png`."""
    for kind, values in (("images", pixels), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(np.uint8)).save(folder / kind / f"{name}.png")
