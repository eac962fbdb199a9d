"""Short forms of the bars that have no test of their own: the whole way through each script, and nothing timed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import soak

ROOT = Path(__file__).parents[2]

needs_peers = pytest.mark.skipif(
    None in (shutil.which("storescu"), shutil.which("Orthanc"), shutil.which("unshare")),
    reason="needs DCMTK and Orthanc (Debian: dcmtk orthanc)",
)
needs_dcmtk = pytest.mark.skipif(shutil.which("storescu") is None, reason="needs DCMTK (Debian: dcmtk)")


def bench(module: str, *arguments: str) -> dict[str, Any]:
    """What a script has measured; it ends with an error where something went missing."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.rpartition("BENCH ")[2])
    return found


@needs_peers
def test_intake_beside_orthanc_and_others() -> None:
    found = bench("intake", "--rounds", "1", "--objects", "4")
    assert found["name"] == "intake"
    assert min(found["vs_orthanc"], found["vs_minimal"]) > 0


def test_inference_over_http() -> None:
    found = bench("http", "--alone", "--rounds", "1", "--requests", "10", "--seconds", "0.3")
    assert found["name"] == "http"
    assert "vs_mlserver" not in found


def test_from_c_store_to_the_result() -> None:
    found = bench("end_to_end", "4", "2")
    assert found["n"] == {"image": 4, "series": 2}


def test_faults_of_the_worker_are_found_and_nothing_wrong_is_answered_after() -> None:
    found = bench("gate", "1")
    assert found["faults"] > 0
    assert found["wrong_after_found"] == found["wrong_without_drift"] == 0


@needs_dcmtk
def test_a_few_studies_of_a_day() -> None:
    day, _, troubles = soak.soak(3)
    assert troubles == []
    assert day.sent == 3 * (soak.IMAGES + 1)
    assert day.requests > 0
