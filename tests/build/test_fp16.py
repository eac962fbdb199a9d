"""Strongly typed graphs in whole builds: `--fp16`, and `int8_fp16.onnx` beside `int8.onnx`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgemed.base.progress import SilentProgress
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.evaluate.bundled import check_bundle
from edgemed.graph.precision import HALF_ULP
from tests.build.conftest import REPO, edgemed

DEPTH = 32  # rounded tensors on the longest path of these models, at most
TOLERANCE = DEPTH * HALF_ULP  # each rounds by half a unit in the last of 11 bits, and errors may add up


@pytest.fixture(scope="module")
def unusual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `vit.keras` and `hot.keras`."""
    folder = tmp_path_factory.mktemp("unusual")
    arguments = ["vit", str(folder / "vit.keras"), "hot_cnn:size=32", str(folder / "hot.keras")]
    subprocess.run(
        [sys.executable, str(REPO / "tests" / "keras_models.py"), *arguments],
        check=True,
        capture_output=True,
        env={**os.environ, "KERAS_HOME": str(folder / ".keras")},
    )
    return folder


def built(model: Path, folder: Path, *options: str | Path) -> tuple[Bundle, dict[str, Any]]:
    """The bundle and its report."""
    done = edgemed("build", model, *options, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return open_bundle(folder / f"{model.stem}.edgemed"), json.loads(done.stdout)


def int8_codes(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """What the quantizers make of the weights, by the quantizer's name."""
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    codes = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in constants:
            axis = next(a.i for a in node.attribute if a.name == "axis")
            weight, scale = (constants[name].astype(np.float32) for name in node.input[:2])
            scale = scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
            codes[node.name] = np.clip(np.rint(weight / scale), -128, 127)
    return codes


def check_typed(bundle: Bundle) -> None:
    """The typed graph of an INT8 bundle has the INT8 codes of the plain one, FP16 around them, and a small error."""
    plain, typed = (onnx.load_from_string(bundle.graph(name)) for name in ("int8", "int8_fp16"))
    onnx.checker.check_model(typed, full_check=True)
    assert [o.version for o in typed.opset_import if o.domain == ""] == [19]
    assert typed.ir_version == 9
    assert {v.type.tensor_type.elem_type for v in (*typed.graph.input, *typed.graph.output)} == {TensorProto.FLOAT}
    wanted, got = int8_codes(plain), int8_codes(typed)
    assert wanted.keys() == got.keys()
    assert all((got[name] == codes).all() for name, codes in wanted.items())
    halves = {i.name for i in typed.graph.initializer if i.data_type == TensorProto.FLOAT16}
    layers = [n for n in typed.graph.node if n.op_type in ("Conv", "ConvTranspose", "Gemm") and len(n.input) > 2]
    assert all(n.input[2] in halves for n in layers)
    fidelity = bundle.manifest.fidelity
    for int8, both in zip(fidelity.int8_vs_float, fidelity.int8_fp16_vs_float, strict=True):
        # FP16 moves a value over an INT8 boundary here and there: noise of INT8's own size, on few values
        assert both.relative_error <= 2 * int8.relative_error + TOLERANCE
    assert all(engine.precision == "int8" for engine in bundle.manifest.engines)


def test_fp16_builds_the_graph_that_an_engine_takes(models, images, tmp_path):
    bundle, report = built(models / "resnet", tmp_path, "--fp16", "--calibration", images)
    manifest = bundle.manifest
    assert manifest.precision == report["precision"] == "fp16"
    assert list(manifest.graphs) == ["float", "fp16"]
    assert "scales.json" not in manifest.files
    assert {output.relative_error <= TOLERANCE for output in manifest.fidelity.fp16_vs_float} == {True}
    (engine,) = manifest.engines
    assert (engine.flavour, engine.precision) == ("tensorrt_rtx", "fp16")
    assert report["engines"][0]["status"] == "compiled ahead of time from fp16.onnx; not run here"
    assert [k["op"] for k in report["fp16"]["kept"]] == ["Softmax"]
    types = [i.data_type for i in onnx.load_from_string(bundle.graph("fp16")).graph.initializer]
    assert TensorProto.FLOAT16 in types
    assert TensorProto.FLOAT not in types
    assert all(result.passed for result in check_bundle(bundle, SilentProgress()).values())
    done = edgemed("run", bundle.path, images / "image000.png", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["precision"] == "fp16"


def test_fp16_without_images_says_what_it_looked_at(unusual, tmp_path):
    bundle, report = built(unusual / "vit.keras", tmp_path, "--fp16")
    assert any("overflow" in warning and "noise" in warning for warning in report["warnings"])
    kept = report["fp16"]["kept"]
    assert {"Softmax", "Sqrt"} <= {k["op"] for k in kept}  # LayerNormalization comes written out
    assert any("normalization" in k["reason"] for k in kept)
    typed = onnx.load_from_string(bundle.graph("fp16"))
    halves = {i.name for i in typed.graph.initializer if i.data_type == TensorProto.FLOAT16}
    products = [n for n in typed.graph.node if n.op_type in ("MatMul", "Gemm", "Conv")]
    weighted = [n for n in products if n.input[1] in {i.name for i in typed.graph.initializer}]
    assert len(weighted) >= 6
    assert all(n.input[1] in halves for n in weighted)
    assert bundle.manifest.engines


@pytest.mark.parametrize("precision", ["--fp16", "--int8"])
def test_overflow_is_found_on_real_samples_and_named(unusual, images, tmp_path, precision):
    bundle, report = built(unusual / "hot.keras", tmp_path, precision, "--calibration", images)
    forced = [k for k in report["fp16"]["kept"] if k["tensor"] and "real samples" in k["reason"]]
    assert {part for k in forced for part in ("/hot", "/cool") if part in k["node"]} == {"/hot", "/cool"}
    assert all("/hot" in k["tensor"] for k in forced)
    assert all("FP16 ends at 65504" in k["reason"] and k["tensor"] in k["reason"] for k in forced)
    html = bundle.read("report.html").decode()
    assert "FP16 ends at 65504" in html
    assert all(result.passed for result in check_bundle(bundle, SilentProgress()).values())
    fidelity = bundle.manifest.fidelity
    for output in fidelity.fp16_vs_float or fidelity.int8_fp16_vs_float:
        assert output.relative_error < (TOLERANCE if precision == "--fp16" else 0.1)
