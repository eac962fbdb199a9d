"""Model files and images for whole builds, made once per session."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPO = Path(__file__).resolve().parents[2]
MODELS = {"seed.h5": "seed_cnn:size=32", "unet.keras": "unet:size=32,up=nearest", "resnet": "tiny_resnet"}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `seed.h5` (binary classifier), `unet.keras` (segmentation) and `resnet` (SavedModel)."""
    folder = tmp_path_factory.mktemp("models")
    arguments = [text for name, spec in MODELS.items() for text in (spec, str(folder / name))]
    subprocess.run(
        [sys.executable, str(REPO / "tests" / "keras_models.py"), *arguments],
        check=True,
        capture_output=True,
        env={**os.environ, "KERAS_HOME": str(folder / ".keras")},
    )
    return folder


def write_images(folder: Path, count: int = 40, *, size: int = 32, seed: int = 0) -> Path:
    """Smooth random RGB images with a little noise: no structure, but the spectrum of photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)) + rng.normal(0, 8, (size, size, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"image{index:03d}.png")
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty calibration images."""
    return write_images(tmp_path_factory.mktemp("data") / "calibration")


def edgemed(
    *arguments: str | Path, cwd: Path, preexec: object = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the real command line, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "edgemed", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=preexec,  # type: ignore[arg-type]
        env={**os.environ, **environment},
    )
