"""A U-Net from Keras to an evaluation of its masks, by the real command line: PNG masks, and DICOM with SEG."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.build.conftest import edgemed, write_images
from tests.evaluate.hostile import reseal
from tests.evaluate.masks.dicom import write_seg, write_slices

pytestmark = pytest.mark.filterwarnings("ignore")  # highdicom's and pydicom's, of what old slices lack

# the network is random: its mask is what lies above its own median, found below
RECIPE = """
[input]
color = "gray"
steps = [{ op = "range", of = "image" }, { op = "resize", size = [32, 32], filter = "area", fit = "pad" }]
[output]
classes = ["liver"]
geometry = "source"
"""


def evaluated(folder: Path, *arguments: str | Path) -> dict[str, Any]:
    done = edgemed("evaluate", *arguments, "--json", cwd=folder)
    assert done.returncode in (0, 1, 3), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "code": done.returncode}


def maps(folder: Path, bundle: str, precision: str, files: list[Path]) -> np.ndarray:
    """`(files, rows, columns)`, as `edgemed run` brings them back onto the source."""
    out = folder / precision
    done = edgemed("run", bundle, *files, "--precision", precision, "--save", out, cwd=folder)
    assert done.returncode == 0, done.stderr
    saved = [np.load(out / f"{file.stem}.npz") for file in files]
    return np.stack([next(iter(s.values()))[0, ..., 0] for s in saved])


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(one, other, strict=True)]))


@pytest.fixture(scope="module")
def built(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A folder with `unet.edgemed`, whose threshold halves what the network answers for the calibration images."""
    folder = tmp_path_factory.mktemp("masks")
    images = write_images(folder / "calibration", 16)
    (images / "recipe.toml").write_text(RECIPE)
    done = edgemed("build", models / "unet.keras", "--int8", "--calibration", images, cwd=folder)
    assert done.returncode == 0, done.stderr
    middle = float(np.median(maps(folder, "unet.edgemed", "fp32", sorted(images.glob("*.png")))))
    # as if the recipe had said so; a second build would cost another 15 s
    reseal(folder / "unet.edgemed", edit=lambda manifest: manifest["outputs"][0].update(threshold=middle))
    return folder, middle


def test_masks_beside_images(built: tuple[Path, float]) -> None:
    """Every figure is what `edgemed run` gives, counted here."""
    folder, threshold = built
    files = sorted(write_images(folder / "data" / "images", 24, size=48, seed=9).glob("*.png"))
    marked = {p: maps(folder, "unet.edgemed", p, files) >= threshold for p in ("fp32", "int8")}
    truth = np.roll(marked["fp32"], 1, axis=2)
    truth[:, 0, 0] = True  # none is empty
    (folder / "data" / "masks").mkdir()
    for file, mask in zip(files, truth, strict=True):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "data" / "masks" / file.name)
    gate = ["--gate", "dice >= float - 0.5", "--gate", "dice >= float + 0.5"]
    found = evaluated(folder, "unet.edgemed", "data", *gate)
    assert found["code"] == 1
    assert [gate["verdict"] for gate in found["gates"]] == ["pass", "fail"]
    values = {r["precision"]: r["metrics"]["dice"]["value"] for r in found["results"]}
    for precision, masks in marked.items():
        assert values[precision] == pytest.approx(dice(truth, masks), abs=1e-9)
    assert found["differences"]["dice"]["value"] == pytest.approx(values["int8"] - values["fp32"], abs=1e-9)
    assert found["disagreement"]["value"] == pytest.approx((marked["fp32"] != marked["int8"]).mean())
    assert found["disagreement"]["value"] > 0
    assert found["masks"]["agreement"]["value"] == pytest.approx(dice(marked["fp32"], marked["int8"]))
    table = edgemed("evaluate", "unet.edgemed", "data", cwd=folder)
    assert f"{values['int8']:.4f}" in table.stdout
    shutil.copy(folder / "calibration" / "image003.png", folder / "data" / "images" / "image003.png")
    seen = edgemed("evaluate", "unet.edgemed", "data", cwd=folder)
    assert seen.returncode == 2
    assert "1 of 24 images were used for calibration" in " ".join(seen.stderr.split())


def test_dicom_with_segmentations(built: tuple[Path, float]) -> None:
    folder, threshold = built
    paths = [p for i in range(3) for p in write_slices(folder / "ct", f"p{i}", 2, seed=i)]
    marked = maps(folder, "unet.edgemed", "fp32", paths) >= threshold
    truth = np.roll(marked, 2, axis=1)
    truth[:, :3, :3] = True
    for i in range(3):
        write_seg(folder / "ct" / f"p{i}.seg", paths[2 * i :][:2], truth[2 * i :][:2, ..., None], ("Liver",))
    found = evaluated(folder, "unet.edgemed", "ct")
    (float_,) = [r["metrics"]["dice"] for r in found["results"] if r["precision"] == "fp32"]
    assert float_["value"] == pytest.approx(dice(truth, marked), abs=1e-9)
    assert (float_["n"], found["masks"]["units"], found["masks"]["left_out"]) == (6, 3, 0)
    assert any("6 images of 3 independent units" in text for text in found["warnings"])
