"""A Python process of its own on the shim: for what happens at exit, after a fork, and without pycuda."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.runtime.fakecuda import fetch, handle

REPO = Path(__file__).resolve().parents[3]

PRELUDE = """
import os, sys, threading
from tests.runtime.fakecuda import handle
fake = handle.activate()
import numpy as np
from edgemed.base.errors import *
from edgemed.runtime.cuda import NotCaptured, open_cuda
"""


def run(code: str, *, prelude: str = PRELUDE, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run it with warnings as errors; what it printed and its exit code are for the test to judge."""
    where = {"PYTHONPATH": str(REPO), "EDGEMED_CACHE": str(fetch.CACHE), **handle.environment(), **(env or {})}
    command = [sys.executable, "-W", "error", "-c", prelude + textwrap.dedent(code)]
    return subprocess.run(command, env={**os.environ, **where}, capture_output=True, text=True, check=False, timeout=60)


def quiet(code: str, *, env: dict[str, str] | None = None) -> str:
    """What it printed; it must end well, and say nothing on stderr: pycuda's complaints go there."""
    done = run(code, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
