"""A whole little bundle: a classifier of 4x4 gray images by their mean, and an INT8 graph that errs by an offset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from edgemed.base.hashing import sha256_bytes
from edgemed.build.writer import BundleWriter
from edgemed.bundle.manifest import (
    Calibration,
    Fidelity,
    FileEntry,
    Golden,
    GraphRef,
    InputTensor,
    Manifest,
    OutputFidelity,
    OutputTensor,
    RecipeRef,
    Source,
)

RECIPE = "[input.scaling]\ndivisor = 255.0\n"


def classifier(boundary: float, steepness: float = 20.0) -> bytes:
    """`sigmoid(steepness * (mean - boundary))` of a 1x4x4x1 image in 0-1."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "boundary"], ["distance"]),
        helper.make_node("Mul", ["distance", "steepness"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["score"]),
    ]
    constants = [
        helper.make_tensor("boundary", TensorProto.FLOAT, [1], [boundary]),
        helper.make_tensor("steepness", TensorProto.FLOAT, [1], [steepness]),
        helper.make_tensor("shape", TensorProto.INT64, [2], [1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, 4, 1])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_bundle(
    path: Path,
    *,
    boundaries: dict[str, float],
    classes: tuple[str, ...] = (),
    calibrated_on: tuple[str, ...] = (),
    assumed: bool = False,
) -> Path:
    """A bundle with one classifier per graph name of `boundaries`."""
    path.mkdir()
    writer = BundleWriter(path)
    recipe = writer.add("recipe.toml", f"assumed = {str(assumed).lower()}\n{RECIPE}".encode())
    writer.add("golden.npz", b"not read here")
    samples = [{"file": f"{i}.png", "sha256": digest} for i, digest in enumerate(calibrated_on)]
    writer.add_json(
        "calibration.json",
        {"schema": "edgemed/calibration-set/1", "samples": samples, "found": len(samples), "digest": "0" * 64},
    )
    graphs = {name: _graph(name, writer.add(f"graphs/{name}.onnx", classifier(b))) for name, b in boundaries.items()}
    writer.finish(
        Manifest(
            schema_="edgemed/bundle/1",
            name="little",
            created="2026-01-05T10:20:30+00:00",
            edgemed="0.1.0",
            source=Source(file="model.h5", sha256="1" * 64, format="keras-h5", versions={"keras": "3.15.0"}),
            inputs=(InputTensor(name="image", dtype="float32", shape=(1, 4, 4, 1), layout="NHWC"),),
            outputs=(
                OutputTensor(
                    name="score",
                    dtype="float32",
                    shape=(1, 1),
                    layout="NC",
                    task="binary",
                    activation="sigmoid",
                    classes=classes,
                ),
            ),
            precision="int8" if "int8" in boundaries else "fp32",
            recipe=RecipeRef(path="recipe.toml", sha256=recipe.sha256, assumed=assumed),
            calibration=Calibration(method="minmax", digest="0" * 64, images=1) if "int8" in boundaries else None,
            graphs=graphs,
            fidelity=Fidelity(
                samples=8,
                float_vs_keras=(OutputFidelity(output="score", reference="keras", relative_error=0.0, sqnr_db=None),),
                int8_mac_share=0.5 if "int8" in boundaries else None,
            ),
            golden=Golden(path="golden.npz", samples=8, tolerance={}),
            files=writer.files,
        )
    )
    return path


def write_images(folder: Path, levels: dict[str, list[int]]) -> Path:
    """One class folder per key, with one image per gray level; a corner pixel makes every file's bytes its own."""
    serial = 0
    for name, values in levels.items():
        (folder / name).mkdir(parents=True)
        for value in values:
            pixels = np.full((4, 4), value, dtype=np.uint8)
            pixels[0, 0] = serial % 256
            serial += 1
            Image.fromarray(pixels).save(folder / name / f"{serial:04d}.png")
    return folder


def first_hash(folder: Path) -> str:
    """SHA-256 of the first image below a folder."""
    return sha256_bytes(sorted(folder.rglob("*.png"))[0].read_bytes())


def _graph(name: str, entry: FileEntry) -> GraphRef:
    return GraphRef(path=f"graphs/{name}.onnx", sha256=entry.sha256, opset=13, ir_version=8)
