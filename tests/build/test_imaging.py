"""Whole builds from DICOM: films, series, cines, and a film with a row of a table; folded and not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgemed.bundle.read import open_bundle
from edgemed.graph.values import PREFIX
from tests.build.conftest import REPO, edgemed
from tests.imaging.make_dicom import write, write_series

_MODELS = """
import sys
from pathlib import Path
from tests.keras_models import randomize, save, seed_cnn
from tests.matrix import models
folder = Path(sys.argv[1])
save(seed_cnn(size=32, channels=1), folder / "film.keras")
for name, made in {
    "volume": models.unet3d(size=16, filters=16, depth=1),
    "fusion": models.fusion(size=32),
    "cine": models.cine_lstm(size=32, frames=4),
}.items():
    save(randomize(made), folder / f"{name}.keras")
"""
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imaging-models")
    environment = {**os.environ, "KERAS_HOME": str(folder / ".keras"), "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", _MODELS, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def smooth(*shape: int, top: int) -> np.ndarray:
    """Noise with large structures: random numbers alone average out to one gray when they are reduced."""
    coarse = RNG.integers(0, top, [4] * len(shape))
    for axis, side in enumerate(shape):
        coarse = coarse.take(np.arange(side) * 4 // side, axis)
    return np.clip(coarse + RNG.normal(0, top / 50, shape), 0, top).astype(np.uint16)


def bundle_json(folder: Path, *arguments: str | Path) -> dict[str, object]:
    done = edgemed(*arguments, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


FILM = """
[input]
color = "gray"
steps = [
  { op = "window", low = 100, high = 3900 },
  { op = "resize", filter = "area" },
]
[input.contract]
modalities = ["CT"]
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for index in range(12):
        write(folder / "calibration" / f"{index:02d}", smooth(96, 80, top=4095), BitsStored=12, HighBit=11)
    (folder / "calibration" / "recipe.toml").write_text(FILM)
    return folder


def test_films_build_and_the_folded_bundle_answers_the_same(films: Path, models: Path):
    bundle_json(films, "build", models / "film.keras")
    report = bundle_json(films, "build", models / "film.keras", "--fold-preprocessing", "--output", "folded.edgemed")
    (said,) = [stage["note"] for stage in report["stages"] if stage["name"] == "fold"]
    assert said.startswith("window, resize of ")
    (warning,) = [text for text in report["calibration"]["warnings"] if "go into the bundle" in text]
    assert "12 of 12 DICOM images do not say that the patient's identity was removed" in warning
    folded = open_bundle(films / "folded.edgemed")
    assert folded.manifest.inputs[0].shape == (1, 96, 80, 1)
    assert folded.manifest.inputs[0].dtype == "float32"
    image = films / "calibration" / "03"
    answers = {
        (name, precision): bundle_json(films, "run", f"{name}.edgemed", image, "--precision", precision)
        for name in ("film", "folded")
        for precision in ("fp32", "int8")
    }
    values = {key: found["results"][0]["outputs"] for key, found in answers.items()}
    for precision, close in (("fp32", 1e-5), ("int8", 1e-2)):  # FP32 sums in another order; INT8 codes one step off
        (one,), (other,) = values["film", precision].values(), values["folded", precision].values()
        np.testing.assert_allclose(other["values"], one["values"], rtol=0, atol=close)
    assert edgemed("verify", "folded.edgemed", cwd=films).returncode == 0


def test_folded_nodes_stay_in_fp32_and_the_model_keeps_its_int8_share(films: Path, models: Path):
    for name, fold in (("plain", []), ("inside", ["--fold-preprocessing"])):
        bundle_json(films, "build", models / "film.keras", *fold, "--output", f"{name}.edgemed")
    plain, inside = (open_bundle(films / f"{name}.edgemed") for name in ("plain", "inside"))
    assert inside.manifest.fidelity.int8_mac_share == plain.manifest.fidelity.int8_mac_share
    for name in ("int8", "int8_fp16"):
        graph = onnx.load(inside.path / "graphs" / f"{name}.onnx").graph
        mine = [node for node in graph.node if node.name.startswith(PREFIX)]
        assert {"Sub", "Div", "MatMul"} <= {node.op_type for node in mine}
        assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in mine}
        weights = {i.name: i.data_type for i in graph.initializer if i.name.startswith(PREFIX)}
        assert onnx.TensorProto.FLOAT16 not in weights.values()


def test_the_contract_refuses_at_run_time_what_it_refuses_in_calibration(films: Path, models: Path):
    bundle_json(films, "build", models / "film.keras", "--output", "contract.edgemed")
    other = write(films / "mr.dcm", smooth(96, 80, top=4095), Modality="MR")
    done = edgemed("run", "contract.edgemed", other, cwd=films)
    assert done.returncode == 2
    assert "Modality is 'MR'" in " ".join(done.stderr.split())


def test_series_build_a_model_of_volumes(tmp_path: Path, models: Path):
    for index in range(8):
        write_series(tmp_path / "calibration" / f"patient{index}", smooth(16, 24, 20, top=2000).astype(np.int16))
    (tmp_path / "recipe.toml").write_text(
        """
[input]
kind = "volume"
axes = "SPL"
size = [16, 16]
steps = [{ op = "window", center = 0, width = 2000 }]
[output]
task = "segmentation"
geometry = "source"
"""
    )
    report = bundle_json(tmp_path, "build", models / "volume.keras", "--recipe", "recipe.toml")
    assert report["calibration"]["images"] == 8
    done = edgemed("run", "volume.edgemed", "calibration/patient0", "--save", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (saved,) = np.load(tmp_path / "out" / "patient0.npz").values()
    assert saved.shape == (1, 16, 24, 20, 3)  # on the voxels of the series, not of the model
    np.testing.assert_allclose(saved.sum(axis=-1), 1, atol=1e-3)  # probabilities, interpolated


def test_cines_build_a_model_of_time(tmp_path: Path, models: Path):
    for index in range(8):
        frames = np.stack([smooth(40, 48, top=255) for _ in range(9)]).astype(np.uint8)
        write(tmp_path / "calibration" / f"{index}.dcm", frames)
    (tmp_path / "calibration" / "recipe.toml").write_text(
        "[input]\nscaling = { divisor = 255 }\ntime = { frames = 4, stride = 4 }\n"
    )
    bundle_json(tmp_path, "build", models / "cine.keras")
    found = bundle_json(tmp_path, "run", "cine.edgemed", "calibration/0.dcm")
    assert [answer["index"] for answer in found["results"]] == [0, 1, 2]  # frames 0-3, 4-7, and 5-8 to hold the last


def test_a_table_builds_a_model_of_an_image_and_numbers(tmp_path: Path, models: Path):
    rows = ["image," + ",".join(f"c{i}" for i in range(8))]
    for index in range(8):
        write(tmp_path / "calibration" / f"{index}.dcm", smooth(40, 40, top=4095))
        rows.append(f"{index}.dcm," + ",".join(f"{v:.3f}" for v in RNG.normal(0, 1, 8)))
    (tmp_path / "calibration" / "samples.csv").write_text("\n".join(rows))
    columns = json.dumps([f"c{i}" for i in range(8)])
    (tmp_path / "calibration" / "recipe.toml").write_text(
        f"[inputs.image]\nscaling = {{ divisor = 4095 }}\n[inputs.table]\ncolumns = {columns}\n"
    )
    report = bundle_json(tmp_path, "build", models / "fusion.keras")
    assert report["calibration"]["files"][0].endswith(".csv")
    assert report["calibration"]["images"] == 8
    found = bundle_json(tmp_path, "run", "fusion.edgemed", "calibration/samples.csv")
    assert len(found["results"]) == 8


def patient_films(folder: Path, patients: list[str]) -> None:
    for patient in patients:
        for film in range(2):
            name = f"{patient}-{film}.dcm"
            write(folder / name, smooth(96, 80, top=4095), PatientID=patient, PatientName=f"Zyxwvut^{patient}")


def test_a_set_that_names_nobody_is_held_apart_by_patient(tmp_path: Path, models: Path):
    """Raw films, to a de-identified calibration set, to a bundle; evaluation on other patients, and on the same."""
    (tmp_path / "recipe.toml").write_text(FILM + '[output]\nclasses = ["ill", "well"]\n')
    patient_films(tmp_path / "raw", [f"P{i}" for i in range(8)])
    for name, patients in {"ill": ["Q0", "Q1", "Q2"], "well": ["Q3", "Q4", "Q5"], "known": ["P3"]}.items():
        patient_films(tmp_path / name, patients)
    (tmp_path / "test").mkdir()
    common = ["--recipe", "recipe.toml", "--key", "key"]
    bundle_json(tmp_path, "calibrate", "raw", "--output", "calibration", *common)
    for name in ("ill", "well", "known"):
        bundle_json(tmp_path, "calibrate", name, "--output", f"test/{name}", *common)
    report = bundle_json(tmp_path, "build", models / "film.keras")
    assert not [text for text in report["calibration"]["warnings"] if "go into the bundle" in text]
    bundle = open_bundle(tmp_path / "film.edgemed")
    assert b"Zyxwvut" not in b"".join(bundle.read(name) for name in bundle.manifest.files)

    known = sorted((tmp_path / "test" / "known").glob("*.dcm"))[0]
    shutil.copytree(tmp_path / "test" / "known", tmp_path / "kept")
    shutil.rmtree(tmp_path / "test" / "known")
    evaluation = bundle_json(tmp_path, "evaluate", "film.edgemed", "test")
    assert any("by hash and by patient" in text for text in evaluation["warnings"])
    shutil.copy(tmp_path / "kept" / known.name, tmp_path / "test" / "ill" / "other.dcm")
    done = edgemed("evaluate", "film.edgemed", "test", cwd=tmp_path)
    assert done.returncode == 2
    assert "1 of 13 images are of patients that calibration has seen" in " ".join(done.stderr.split())
