"""Shared fixtures, and the rules every test runs under."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["COLUMNS"] = "120"  # help pages and tables wrap at the terminal's width
os.environ["NO_COLOR"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # also where a test imports onnxruntime by itself

# no deadline: the first example pays for imports, and CI's cores are shared
hypothesis.settings.register_profile("edgemed", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("edgemed")

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo() -> Path:
    """The top of the source checkout."""
    return REPO


@pytest.fixture(autouse=True)
def _private_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines, caches and settings of a test never touch the user's own."""
    home = tmp_path_factory.mktemp("home")
    for name in ("STATE", "CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))


@pytest.fixture(scope="session")
def chest_npz() -> Path:
    """PneumoniaMNIST's file, from the folder that EDGEMED_DATA names."""
    folder = os.environ.get("EDGEMED_DATA")
    if not folder:
        pytest.skip("EDGEMED_DATA names no folder; give it the one that holds pneumoniamnist.npz")
    path = Path(folder) / "pneumoniamnist.npz"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    return path


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test that was skipped for a missing package is a failure: everything is installed there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("CI") != "true":
        return
    missing = [r for r in reporter.stats.get("skipped", []) if "could not import" in str(r.longrepr)]
    for report in missing:
        reporter.write_line(f"skipped for a missing package: {report.nodeid}: {report.longrepr}", red=True)
    if missing:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
