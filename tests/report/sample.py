"""A report with figures of plausible size, for tests and for looking at the page; no figure in it was measured."""

from __future__ import annotations

import numpy as np

from edgemed.report.data import (
    ActivationRange,
    AmaxCandidates,
    Calibration,
    Engine,
    Fidelity,
    GraphPass,
    Int8,
    Layer,
    Machine,
    Model,
    OutputError,
    Recipe,
    Report,
    Stage,
    Tensor,
)

_RECIPE = """name = "dermoscopy-rgb"
description = "RGB, 0-1, antialiased to 256x256"

[input]
modality = "dermoscopy"
color = "rgb"
size = [256, 256]

[input.scaling]
divisor = 255.0

[output]
task = "binary"
classes = ["benign", "malignant"]
"""


def sample_report(**changes: object) -> Report:
    """A whole report; `changes` replace its top-level fields."""
    report = Report(
        schema_="edgemed/report/1",
        created="2026-01-05T10:20:30Z",
        edgemed="0.1.0",
        precision="int8",
        model=_model(),
        recipe=Recipe(
            name="dermoscopy-rgb", assumed=False, description="RGB, 0-1, antialiased to 256x256", toml=_RECIPE
        ),
        calibration=Calibration(
            method="percentile",
            percentile=99.99,
            images=96,
            digest="5b" * 32,
            files=tuple(f"IMD{i:03d}.bmp" for i in range(2, 14)),
            warnings=("96 calibration images; at least 100 give steadier ranges.",),
        ),
        passes=(
            GraphPass(name="onnxslim", nodes_before=41, nodes_after=22, changed=True),
            GraphPass(name="fold-batch-norm", nodes_before=22, nodes_after=19, changed=True),
            GraphPass(name="unshare-weights", nodes_before=19, nodes_after=19, changed=False),
        ),
        fidelity=Fidelity(
            samples=32,
            float_vs_keras=(OutputError(output="malignant", relative_error=3.1e-7, sqnr_db=131.4, limit=1e-4),),
            int8_vs_float=(OutputError(output="malignant", relative_error=0.0182, sqnr_db=38.9, limit=0.05),),
            int8_vs_keras=(OutputError(output="malignant", relative_error=0.0182, sqnr_db=38.9),),
        ),
        int8=Int8(
            mac_share=0.9987,
            weight_bytes_float=60_174_000,
            weight_bytes_int8=15_062_000,
            layers=_layers(),
            tensors=tuple(_tensor(i) for i in range(6)),
        ),
        sizes={
            "model.h5": 180_600_000,
            "graphs/float.onnx": 60_200_000,
            "graphs/int8.onnx": 60_240_000,
            "engines/rtx_int8.plan": 15_400_000,
        },
        engines=(
            Engine(
                flavour="tensorrt_rtx",
                version="1.7.0",
                precision="int8",
                compute_capabilities=("8.6", "8.9", "12.0"),
                bytes=15_400_000,
                seconds=21.4,
                status="compiled ahead of time",
            ),
            Engine(
                flavour="tensorrt", version="10.3", precision="int8", status="to be built on the device: no GPU here"
            ),
        ),
        stages=(
            Stage(name="convert", seconds=14.2, note="22 nodes, opset 17"),
            Stage(name="calibrate", seconds=6.3, note="96 images, percentile 99.99 %"),
            Stage(name="quantize", seconds=0.8, note="5 of 19 layers, 99.9 % of MACs"),
            Stage(name="verify", seconds=3.9, note="INT8 error 1.8 %"),
            Stage(name="engine", seconds=21.4, note="SM 8.6, 8.9, 12.0"),
            Stage(name="report", seconds=1.6),
        ),
        machine=Machine(
            python="3.11.9",
            packages={"tensorflow": "2.21.0", "keras": "3.15.0", "tf2onnx": "1.17.0", "onnxruntime": "1.31.0"},
            cpu="Intel Xeon",
            cores=2,
        ),
    )
    return report.model_copy(update=changes)


def _model() -> Model:
    return Model(
        name="lesion-classifier",
        file="model.h5",
        sha256="9f" * 32,
        format="keras-h5",
        versions={"keras": "3.15.0", "tensorflow": "2.21.0"},
        parameters=15_043_521,
        inputs=(Tensor(name="image", dtype="float32", shape=(1, 3, 256, 256)),),
        outputs=(Tensor(name="malignant", dtype="float32", shape=(1, 1), task="binary", activation="sigmoid"),),
    )


def _layers() -> tuple[Layer, ...]:
    quantized = "Conv with int8 input and weights"
    return (
        Layer(
            node="conv2d/Conv",
            op="Conv",
            keras_layer="conv2d",
            quantized=True,
            reason=quantized,
            macs=56_600_000,
            mac_share=0.0192,
            weight_sqnr_db=44.1,
        ),
        Layer(node="conv2d/Relu", op="Relu", keras_layer="conv2d", quantized=False, reason="fused into conv2d/Conv"),
        Layer(
            node="max_pooling2d/MaxPool",
            op="MaxPool",
            keras_layer="max_pooling2d",
            quantized=True,
            reason="passes INT8 through",
        ),
        Layer(
            node="conv2d_1/Conv",
            op="Conv",
            keras_layer="conv2d_1",
            quantized=True,
            reason=quantized,
            macs=297_000_000,
            mac_share=0.1008,
            weight_sqnr_db=42.7,
        ),
        Layer(
            node="conv2d_2/Conv",
            op="Conv",
            keras_layer="conv2d_2",
            quantized=True,
            reason=quantized,
            macs=2_590_000_000,
            mac_share=0.8782,
            weight_sqnr_db=41.3,
        ),
        Layer(
            node="dense/MatMul",
            op="MatMul",
            keras_layer="dense",
            quantized=False,
            reason="a matrix-vector product reads its weights once; INT8 kernels do not pay off",
            macs=3_800_000,
            mac_share=0.0013,
        ),
        Layer(node="dropout/Identity", op="Identity", keras_layer="dropout", quantized=False, reason="no arithmetic"),
        Layer(
            node="dense_1/Gemm",
            op="Gemm",
            keras_layer="dense_1",
            quantized=False,
            reason="small head before a sigmoid",
            macs=128,
            mac_share=4.4e-8,
        ),
        Layer(
            node="dense_1/Sigmoid",
            op="Sigmoid",
            keras_layer="dense_1",
            quantized=False,
            reason="sigmoid heads stay in float, quantization would bend the score",
        ),
    )


def _tensor(index: int) -> ActivationRange:
    rng = np.random.default_rng(index)
    values = np.abs(np.concatenate([rng.normal(0, 1 + index, 200_000), rng.exponential(2 + index, 20_000)]))
    width = 2.0**-6
    counts = np.bincount((values / width).astype(int), minlength=2048)[:2048]
    seen = float(values.max())
    amax = float(np.quantile(values, 0.9999))
    return ActivationRange(
        name=f"functional/conv2d_{index}/Relu:0",
        amax=amax,
        seen=seen,
        sqnr_db=24.0 + 2.3 * index,
        clipped=float((values > amax).mean()),
        counts=tuple(int(c) for c in counts),
        bin_width=width,
        candidates=AmaxCandidates(minmax=seen, percentile=amax, entropy=0.72 * amax),
    )
