"""Whole builds through the real command line: what the user types, what he sees, what lies on disk afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from pydicom.data import get_testdata_file

from edgemed.build.fidelity import PARITY_LIMIT
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.evaluate.bundled import golden_of
from edgemed.evaluate.likeness import Reference, answers_of, features
from edgemed.graph.model import digest, load
from tests.build.conftest import REPO, edgemed, write_images
from tests.build.test_fp16 import check_typed

STAGES = ["convert", "clean", "parity", "calibrate", "quantize", "verify", "fp16", "engine", "bundle"]


@pytest.fixture(scope="module")
def folder(models: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds only `model.h5` and `calibration/`."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copy(models / "seed.h5", folder / "model.h5")
    shutil.copytree(images, folder / "calibration")
    return folder


@pytest.fixture(scope="module")
def built(folder: Path) -> tuple[Path, str, str]:
    """The bundle of `edgemed build model.h5 --int8`, with what stdout and stderr said."""
    done = edgemed("build", "model.h5", "--int8", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "model.edgemed", done.stdout, done.stderr


def check_int8(bundle: Bundle) -> onnx.ModelProto:
    """No int32 DequantizeLinear, no non-zero zero point, no quantized bias; parity within its limit."""
    model = onnx.load_from_string(bundle.graph("int8"))
    onnx.checker.check_model(model, full_check=True)
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    quantizers = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantizers
    for node in quantizers:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        assert (constants[node.input[1]] > 0).all()
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2:
            assert node.input[2] not in producers, f"the bias of {node.name} is computed"
            assert constants[node.input[2]].dtype == np.float32
    assert not {o.name for o in model.graph.output} & {o for n in quantizers for o in n.output}
    for output in bundle.manifest.fidelity.float_vs_keras:
        assert output.relative_error <= PARITY_LIMIT
    check_typed(bundle)
    return model


def test_every_stage_has_its_line_and_the_summary_comes_last(built):
    _, stdout, stderr = built
    positions = [stderr.index(f"✓ {name}") for name in STAGES]
    assert positions == sorted(positions)
    assert "INT8 differs from the Keras original by at most" in " ".join(stdout.split())
    assert "model.edgemed/report.html" in stdout
    assert "\x1b" not in stdout + stderr  # no colours and no bars off a terminal


def test_the_bundle_is_whole_and_says_where_it_comes_from(built, folder):
    path, _, _ = built
    bundle = open_bundle(path)
    manifest = bundle.manifest
    assert {p.name for p in folder.iterdir()} == {"model.h5", "calibration", "model.edgemed"}
    assert manifest.source.file == "model.h5"
    assert manifest.source.format == "keras-h5"
    assert [(t.name, t.shape, t.layout) for t in manifest.inputs] == [("image", (1, 32, 32, 3), "NHWC")]
    assert [(t.name, t.task, t.activation) for t in manifest.outputs] == [("probability", "binary", "sigmoid")]
    assert manifest.recipe.assumed
    assert manifest.calibration is not None
    assert manifest.calibration.images == 32  # of 40; the 8 others judge
    assert manifest.golden.samples >= 8
    assert {"recipe.toml", "scales.json", "calibration.json", "costs.json", "report.json", "report.html"} <= set(
        manifest.files
    )
    reference = Reference.of(bundle)
    assert reference.images == 8
    golden = golden_of(bundle)
    rows = [features(golden.feeds(i), reference.layouts) for i in range(golden.samples)]
    assert max(map(reference.score, rows)) <= 1  # they are among those images
    answers = answers_of(bundle)
    assert len(answers) == 8
    for name, expected in golden.outputs["fp32"].items():  # eight are judged with, and all of them are golden
        np.testing.assert_allclose(np.stack([each[name] for each in answers]), expected, rtol=1e-5)


def test_the_int8_graph_keeps_every_rule(built):
    model = check_int8(open_bundle(built[0]))
    assert [o.version for o in model.opset_import if o.domain == ""] == [13]  # nothing in it needs more
    assert model.ir_version == 7
    assert [i.name for i in model.graph.input] == ["image"]


def test_an_engine_was_compiled_by_the_real_builder(built):
    (engine,) = open_bundle(built[0]).manifest.engines
    assert engine.flavour == "tensorrt_rtx"
    assert engine.compute_capabilities == ("8.6", "8.9", "12.0")
    assert engine.precision == "int8"


def test_scales_cover_every_tensor_and_reach_the_graph(built):
    bundle = open_bundle(built[0])
    scales = json.loads(bundle.read("scales.json"))
    model = onnx.load_from_string(bundle.graph("int8"))
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    float_graph = onnx.load_from_string(bundle.graph("float"))
    computed = {o for n in float_graph.graph.node for o in n.output} | {i.name for i in float_graph.graph.input}
    assert set(scales["tensors"]) == computed
    used = 0
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in scales["tensors"]:
            assert constants[node.input[1]] == np.float32(scales["tensors"][node.input[0]]["scale"])
            used += 1
    assert used == 3


def test_verify_and_run_agree_with_the_bundle(built, folder):
    assert edgemed("verify", "model.edgemed", cwd=folder).returncode == 0
    done = edgemed("run", "model.edgemed", "calibration/image000.png", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)["results"]
    assert 0 < answer["score"] < 1
    assert answer["precision"] == "int8"
    assert answer["bundle_digest"] == open_bundle(folder / "model.edgemed").digest
    both = [
        json.loads(
            edgemed("run", "model.edgemed", "calibration/image000.png", "--json", "--precision", p, cwd=folder).stdout
        )
        for p in ("fp32", "int8")
    ]
    float_score, int8_score = (document["results"][0]["score"] for document in both)
    assert float_score != int8_score
    assert abs(float_score - int8_score) < 0.05  # the report's error of this model is about 0.1 %


def test_a_flipped_byte_is_exit_code_five(built, folder, tmp_path):
    copy = Path(shutil.copytree(built[0], tmp_path / "model.edgemed"))
    plan = next((copy / "engines").iterdir())
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(data)
    for command in (["verify"], ["inspect"], ["run"]):
        arguments = [*command, copy, *([folder / "calibration" / "image000.png"] if command == ["run"] else [])]
        done = edgemed(*arguments, cwd=tmp_path)
        assert done.returncode == 5, command
        assert "does not match its hash" in done.stderr


def test_an_existing_bundle_is_kept_unless_forced(built, folder):
    before = open_bundle(built[0]).digest
    done = edgemed("build", "model.h5", "--int8", cwd=folder)
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert open_bundle(built[0]).digest == before


def test_the_same_build_gives_the_same_graph_and_scales(built, folder, tmp_path):
    before = open_bundle(built[0])
    arguments = ["build", "model.h5", "--int8", "--output", tmp_path / "again.edgemed", "--json"]
    done = edgemed(*arguments, cwd=folder, PYTHONHASHSEED="7")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # --json: one document, nothing else
    assert report["schema"] == "edgemed/report/1"
    after = open_bundle(tmp_path / "again.edgemed")
    assert json.loads(after.read("scales.json"))["graph_digest"] == digest(load(after.file("graphs/float.onnx")))
    for name in (
        "graphs/float.onnx",
        "graphs/int8.onnx",
        "graphs/int8_fp16.onnx",
        "scales.json",
        "golden.npz",
        "calibration.json",
    ):
        assert after.read(name) == before.read(name), name


@pytest.mark.parametrize(
    ("name", "op", "task"), [("unet.keras", "Concat", "segmentation"), ("resnet", "Add", "multiclass")]
)
def test_other_formats_and_shapes_take_the_same_path(models, images, tmp_path, name, op, task):
    done = edgemed("build", models / name, "--int8", "--calibration", images, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    bundle = open_bundle(tmp_path / f"{Path(name).stem}.edgemed")
    model = check_int8(bundle)
    assert op in {n.op_type for n in model.graph.node}
    assert bundle.manifest.engines
    assert bundle.manifest.fidelity.int8_mac_share > 0
    assert bundle.manifest.outputs[0].task == task


def test_float_needs_no_images(models, tmp_path):
    done = edgemed("build", models / "seed.h5", "--fp32", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    bundle = open_bundle(tmp_path / "seed.edgemed")
    assert list(bundle.manifest.graphs) == ["float"]
    assert bundle.manifest.calibration is None
    assert "noise" in done.stdout
    assert edgemed("verify", "seed.edgemed", cwd=tmp_path).returncode == 0


def test_a_name_that_would_steer_the_terminal_is_written_out(models, tmp_path):
    name = os.fsdecode(b"m\x1b[2J\xff")
    shutil.copy(models / "seed.h5", tmp_path / f"{name}.h5")
    done = edgemed("build", f"{name}.h5", "--fp32", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert r"m\x1b[2J\xff.edgemed/report.html" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    manifest = open_bundle(tmp_path / f"{name}.edgemed").manifest
    assert (manifest.name, manifest.source.file) == (r"m\x1b[2J\xff", r"m\x1b[2J\xff.h5")


def documented_commands() -> list[str]:
    """Every `$ edgemed ...` line of the README, in order."""
    text = (REPO / "README.md").read_text(encoding="utf-8")
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ edgemed ")]


def shown_below(command: str) -> str:
    """What the README shows below a command."""
    return (REPO / "README.md").read_text(encoding="utf-8").split(f"$ {command}\n")[1].split("```")[0]


def untimed(table: str) -> list[list[str]]:
    """The words of a table without its last column, `ms`, which no two runs share; of its last line, all."""
    *rows, last = (line.split() for line in table.splitlines())
    return [*(row[:-1] for row in rows), last]


def test_the_readme_shows_commands_that_run(built, folder, tmp_path):
    commands = documented_commands()
    assert commands[0] == "edgemed build model.h5 --int8"  # what the fixture has typed
    assert {command.split()[1] for command in commands} >= {"build", "run", "evaluate"}
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    write_images(tmp_path / "test" / "different", 6, seed=1)
    write_images(tmp_path / "test" / "similar", 6, seed=2)
    (tmp_path / "test" / "similar" / "image000.png").rename(tmp_path / "test" / "similar" / "0000.png")
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), tmp_path)
    for command in commands[1:]:
        done = edgemed(*command.split()[1:], cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout
        if command.startswith("edgemed recipe check"):
            assert untimed(done.stdout) == untimed(shown_below(command))
    for command in ("inspect model.edgemed", "verify model.edgemed", "devices"):
        assert edgemed(*command.split(), cwd=tmp_path).returncode == 0, command
    shown = set(re.findall(r"^\| `edgemed (\w+)", (REPO / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    listed = set(re.findall(r"^│ (\w+) ", edgemed("--help", cwd=tmp_path).stdout, re.MULTILINE))
    assert shown == listed
