"""The three models the first release promises, at full size: `.h5` to INT8 bundle to RTX plan. Minutes, so `slow`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgemed.bundle.read import open_bundle
from tests.build.conftest import REPO, edgemed, write_images
from tests.build.test_build import check_int8

MODELS = {"seed": "seed_cnn:size=256", "unet": "unet:size=256", "resnet50": "resnet50:size=224"}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_h5_becomes_an_int8_bundle_with_a_plan(tmp_path: Path, name: str):
    subprocess.run(
        [sys.executable, str(REPO / "tests" / "keras_models.py"), MODELS[name], str(tmp_path / "model.h5")],
        check=True,
        capture_output=True,
        env={**os.environ, "KERAS_HOME": str(tmp_path / ".keras")},
    )
    write_images(tmp_path / "calibration", 40, size=256)
    done = edgemed("build", "model.h5", "--int8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    bundle = open_bundle(tmp_path / "model.edgemed")
    check_int8(bundle)
    (engine,) = bundle.manifest.engines
    assert engine.compute_capabilities == ("8.6", "8.9", "12.0")
    assert edgemed("verify", "model.edgemed", cwd=tmp_path).returncode == 0
