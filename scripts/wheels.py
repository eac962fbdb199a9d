"""The cache of what tests and scripts fetch from registries: folders that are whole, or not there.

It is $EDGEMED_CACHE, else edgemed/ in $XDG_CACHE_HOME or ~/.cache: outside the repository, and kept by CI by its keys.
Nothing is installed into the virtual environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_dir() -> Path:
    """Where downloads and builds are kept."""
    if chosen := os.environ.get("EDGEMED_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgemed"


def filled(target: Path, fill: Callable[[Path], None]) -> Path:
    """`target`, filled when it is not there: a sibling is, and renamed, so that a folder that exists is whole."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        fill(staging)
        staging.chmod(0o755)
        try:
            staging.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def unpack(requirement: str, folder: Path) -> None:
    """Put the files of one wheel, e.g. of `"nvidia-cuda-nvcc==13.0.88"`, into a folder; of no dependency.

    Raises:
        CalledProcessError: there is none for this Python and platform; stderr says more.
    """
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary", ":all:"]
    subprocess.run([*pip, "--target", str(folder), requirement], check=True)
