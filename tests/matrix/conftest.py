"""Models of the matrix, made once per worker and family; builds in this process, over one shared child."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.matrix.rows import ROWS
from tests.shared_child import one_child, shared_child  # noqa: F401 - fixtures

_ZOO = Path(__file__).with_name("zoo.py")


def write_models(folder: Path, *names: str) -> None:
    """Let a process of its own write the models: this one never imports TensorFlow."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "KERAS_HOME": str(folder / ".keras")}
    command = [sys.executable, str(_ZOO), "small", str(folder), *names]
    made = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder with all models of a family of rows."""
    made: dict[str, Path] = {}

    def folder_of(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            write_models(made[family], *(name for name, row in ROWS.items() if row.family == family))
        return made[family]

    return folder_of
