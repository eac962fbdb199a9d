"""Boards are asked before a build, in its midst and of its bundle; the plain graph is the float graph, proved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from onnx import numpy_helper

from edgemed.build import target
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.engine.calib_cache import read_calib_cache
from tests.build.conftest import edgemed

KERAS = """
import sys, keras
from keras import layers as L
x = keras.Input((16, 16, 3), batch_size=1, name="image")
kind = keras.Input((1,), batch_size=1, dtype="int32", name="kind")
y = L.GlobalAveragePooling2D(name="pool")(L.Conv2D(16, 3, name="first")(x))
z = L.CategoryEncoding(4, output_mode="one_hot", name="encoded")(kind)
y = L.Concatenate(name="both")([y, z])
keras.Model([x, kind], L.Dense(2, activation="softmax", name="answer")(y)).save(sys.argv[1])
"""


@pytest.fixture(scope="module")
def folder(models: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`seed.h5`, `kind.keras` with a layer that TensorRT 8.2 cannot do, images, and `seed.edgemed` for two boards."""
    import os
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("boards")
    shutil.copy(models / "seed.h5", folder / "seed.h5")
    shutil.copytree(images, folder / "calibration")
    environment = {**os.environ, "KERAS_HOME": str(folder / ".keras")}
    subprocess.run(
        [sys.executable, "-c", KERAS, str(folder / "kind.keras")], check=True, capture_output=True, env=environment
    )
    boards = ["--device", "xavier-nx@5.1.3", "--device", "orin-nano-8gb@6.2"]
    done = edgemed("build", "seed.h5", "--int8", *boards, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return open_bundle(folder / "seed.edgemed")


def without_pairs(model: onnx.ModelProto) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Nodes and weights of a graph by name, with every Q/DQ pair taken out and its readers given its input."""
    through = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            through[node.output[0]] = node.input[0]
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            through[node.output[0]] = through[node.input[0]]
    nodes = {}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        kept.input[:] = [through.get(name, name) for name in node.input]
        assert node.name not in nodes
        nodes[node.name] = kept.SerializeToString(deterministic=True)
    read = {name for node in nodes.values() for name in onnx.NodeProto.FromString(node).input}
    weights = {w.name: numpy_helper.to_array(w).tobytes() for w in model.graph.initializer if w.name in read}
    return nodes, weights


def check_plain(bundle: Bundle) -> None:
    """The Q/DQ graph without its pairs is float.onnx: nodes, tensor names, weights, inputs, outputs."""
    ours, plain = (onnx.load_from_string(bundle.graph(name)) for name in ("int8", "plain"))
    nodes, weights = without_pairs(ours)
    assert nodes == {n.name: n.SerializeToString(deterministic=True) for n in plain.graph.node}
    assert weights == {w.name: numpy_helper.to_array(w).tobytes() for w in plain.graph.initializer}
    for side in ("input", "output"):
        mine, theirs = (getattr(model.graph, side) for model in (ours, plain))
        assert [v.SerializeToString() for v in mine] == [v.SerializeToString() for v in theirs]


def test_the_plain_graph_is_the_float_graph(bundle):
    graphs = bundle.manifest.graphs
    assert graphs["plain"] == graphs["float"]
    assert {p for p in bundle.manifest.files if p.startswith("graphs/")} == {
        "graphs/float.onnx",
        "graphs/int8.onnx",
        "graphs/int8_fp16.onnx",
    }
    check_plain(bundle)


@pytest.mark.parametrize("name", ["unet.keras", "resnet"])
def test_so_it_is_of_other_models(models, images, tmp_path, name):
    """Concats with shared scales, residuals, shared weights: pairs are put in, and nothing else changes."""
    done = edgemed("build", models / name, "--calibration", images, "--device", "orin-nano-8gb@6.2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_plain(open_bundle(tmp_path / f"{Path(name).stem}.edgemed"))


def test_the_caches_hold_the_scales_of_the_qdq_graph_and_every_float_tensor(bundle):
    assert {p for p in bundle.manifest.files if p.startswith("calib/")} == {"calib/8.5.2.cache", "calib/10.3.0.cache"}
    scales = read_calib_cache(bundle.read("calib/8.5.2.cache"))
    plain = onnx.load_from_string(bundle.graph("plain"))
    assert set(scales) == {v.name for v in plain.graph.input} | {o for n in plain.graph.node for o in n.output}
    assert {v.name for v in plain.graph.output} <= set(scales)
    table = json.loads(bundle.read("scales.json"))["tensors"]
    assert {
        name: scale == pytest.approx(table[name]["scale"], rel=1e-6) for name, scale in scales.items()
    } == dict.fromkeys(table, True)
    assert bundle.read("calib/8.5.2.cache").startswith(b"TRT-8502-EntropyCalibration2\nimage: ")


def test_the_report_names_the_keras_layers(bundle):
    document = json.loads(bundle.read("report.json"))
    assert {"conv2d", "conv2d_1", "dense", "probability"} <= set(document["model"]["keras_layers"])
    layers = [layer["keras_layer"] for layer in document["int8"]["layers"]]
    assert len(set(layers)) == len(layers)
    assert set(layers) <= set(document["model"]["keras_layers"])


def test_a_whole_bundle_still_verifies_and_says_what_plain_is(folder):
    assert edgemed("verify", "seed.edgemed", cwd=folder).returncode == 0
    shown = edgemed("inspect", "seed.edgemed", cwd=folder).stdout
    assert "plain: graphs/float.onnx" in shown


def test_boards_that_take_the_bundle_are_exit_zero(folder):
    done = edgemed("inspect", "seed.edgemed", "--device", "xavier-nx@5.1.3", "--device", "thor-t5000", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "xavier-nx@5.1.3  takes it" in done.stdout
    assert "trtexec --onnx=seed.edgemed/graphs/int8.onnx --saveEngine=seed-int8.plan --int8 --fp16" in done.stdout
    assert "--calib=seed.edgemed/calib/8.5.2.cache --useDLACore=0 --allowGPUFallback" in done.stdout
    assert "edgemed build seed.edgemed" in done.stdout
    assert "int8_fp16" in done.stdout


def test_a_board_without_int8_is_exit_one_and_doubtful_figures_are_marked(folder):
    done = edgemed("inspect", "seed.edgemed", "--device", "tx2", cwd=folder)
    assert done.returncode == 1
    assert "tx2  refuses it" in done.stdout
    assert "no INT8 kernels" in done.stdout
    assert "TensorRT 8.2.1?" in done.stdout
    assert "on Jetson TX2.?" in done.stdout
    assert "rests on a secondary or unconfirmed source" in done.stdout
    assert "--fp16" in done.stdout
    assert edgemed("inspect", "seed.edgemed", "--fp16", "--device", "tx2", cwd=folder).returncode == 0


def test_json_is_one_document_with_the_same_facts(folder):
    done = edgemed("inspect", "seed.edgemed", "--device", "nano", "--device", "orin-nano-8gb@6.2", "--json", cwd=folder)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert (document["takes"], document["precision"]) == (False, "int8")
    nano, orin = document["boards"]
    assert (nano["takes"], nano["findings"][0]["rule"], nano["unverified"]) == (False, "device-int8", ["tensorrt"])
    assert (orin["takes"], orin["graph"], orin["tensorrt"]) == (True, "int8", "10.3.0.30")
    assert orin["commands"][0]["line"] == "edgemed build seed.edgemed"


def test_a_keras_model_is_judged_before_it_is_built(folder):
    boards = ["--device", "xavier-nx@4.6.1", "--device", "xavier-nx@5.1.3"]
    done = edgemed("inspect", "kind.keras", *boards, "--json", cwd=folder)
    assert done.returncode == 1, done.stderr
    old, new = json.loads(done.stdout)["boards"]
    assert [(f["severity"], f["layer"]) for f in old["findings"]] == [("error", "encoded")]
    assert "TensorRT 8.2.1 has no OneHot." in old["findings"][0]["message"]
    assert "8.5" in old["findings"][0]["remedy"]
    assert new["takes"] is True
    assert new["graph"] == "int8"
    assert "kind.edgemed/graphs/int8.onnx" in new["commands"][0]["line"]
    assert not (folder / "kind.edgemed").exists()


def test_a_build_for_a_board_that_refuses_stops_and_names_the_layer(folder, tmp_path):
    done = edgemed("build", folder / "kind.keras", "--fp32", "--device", "xavier-nx@4.6.1", cwd=tmp_path)
    assert done.returncode == 2
    assert "xavier-nx@4.6.1 will refuse layer 'encoded'" in done.stderr
    assert "TensorRT 8.2.1 has no OneHot" in done.stderr
    assert "what to do: Replace the layer" in done.stderr
    assert "rests on unconfirmed fields of its profile: tensorrt" in " ".join(done.stderr.split())
    assert "✓ parity" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_onnx_file_is_judged_too(folder):
    onnx_file = "seed.edgemed/graphs/int8.onnx"
    done = edgemed(
        "inspect", onnx_file, "--device", "xavier-nx@5.1.3", "--device", "thor-t5000@7.2.2", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    old, new = json.loads(done.stdout)["boards"]
    assert (old["precision"], old["findings"]) == ("int8", [])
    assert [f["rule"] for f in new["findings"]] == ["target-typing"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["seed.edgemed", "--device", "orin-mini"], "orin-mini"),
        (["seed.edgemed", "--device", "rtx-ada"], "names no TensorRT"),
        (["seed.edgemed", "--device", "nano", "--fp16", "--fp32"], "exclude each other"),
        (["seed.edgemed", "--fp16"], "belong to --device"),
        (["seed.edgemed", "--device", "nano", "--input", "image=1x32x32x3"], "belong to a Keras model"),
        (["seed.edgemed/graphs/int8.onnx", "--device", "nano", "--fp16"], "what stands in it"),
        (["seed.h5", "--device", "nano", "--input", "image=0"], "is not NAME=1x512x512x1"),
        (["seed.h5"], "is not a bundle"),
        (["none.keras", "--device", "nano"], "none.keras"),
    ],
)
def test_wrong_usage_is_exit_two(folder, arguments, says):
    done = edgemed("inspect", *arguments, cwd=folder)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("report", ["[]", "{}", '{"model": 3}', '{"model": {"keras_layers": 3}}', "no json"])
def test_a_report_that_says_nothing_names_no_layers(report: str):
    files = {"report.json": None}
    bundle = SimpleNamespace(manifest=SimpleNamespace(files=files), read=lambda name: report.encode())
    assert target._layers(bundle) == ()
