"""Model files, made once per session in one process; and one child for the tests that may share it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.shared_child import SharedChild, shared_child  # noqa: F401 - a fixture

_MAKE = Path(__file__).with_name("make_models.py")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of model files that `make_models.py` writes."""
    folder = tmp_path_factory.mktemp("models")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_HOME": str(folder)}
    made = subprocess.run([sys.executable, str(_MAKE), str(folder)], env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEMED_TOUCH", str(folder / "touched"))
        yield folder


@pytest.fixture(scope="session")
def facts(models: Path) -> dict[str, Any]:
    """What the installed Keras and tf2onnx look like."""
    result: dict[str, Any] = json.loads((models / "facts.json").read_text())
    return result


@pytest.fixture(autouse=True)
def touched(models: Path) -> Iterator[Path]:
    """The file that every malicious payload touches: no test may leave it behind."""
    path = models / "touched"
    path.unlink(missing_ok=True)
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def one_child(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedChild]:
    """A child that knows the environment of the models' payloads."""
    child = SharedChild(tmp_path_factory.mktemp("child"))
    yield child
    child.end()
