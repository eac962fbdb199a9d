"""The system's Python, with GStreamer and the PyAV of Debian; `make debian` installs them."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

PYTHON = "/usr/bin/python3"
REPO = Path(__file__).resolve().parents[3]
_NEEDS = "import av, gi, numpy; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0')"


@cache
def _complaint() -> str | None:
    if not Path(PYTHON).exists():
        return f"there is no {PYTHON}"
    done = subprocess.run([PYTHON, "-c", _NEEDS], capture_output=True, text=True, check=False, env=environment())
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def environment() -> dict[str, str]:
    """Without what the virtual environment adds; where edgemed is found."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL"))}
    return {**kept, "PYTHONPATH": str(REPO)}


def require() -> str:
    """Its path; what is missing skips the test, and fails it in CI."""
    complaint = _complaint()
    if complaint is not None:
        text = f"GStreamer and PyAV for {PYTHON} are not installed: make debian ({complaint})"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    return PYTHON
