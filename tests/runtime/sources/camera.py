"""The stand-in camera: compiled once per test session, preloaded into child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPO = HERE.parents[2]
DEVICE = "/dev/video77"


def build(folder: Path) -> Path:
    library = folder / "fake_v4l2.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-sign-compare"]
    subprocess.run(
        [os.environ.get("CC", "cc"), *flags, "-o", str(library), str(HERE / "fake_v4l2.c"), "-ldl", "-lpthread"],
        check=True,
    )
    return library


def environment(library: Path, jpeg: Path | None = None, **camera: int) -> dict[str, str]:
    """Of a process that sees the camera."""
    extra = {
        "LD_PRELOAD": str(library),
        "FAKE_V4L2_DEVICE": DEVICE,
        "FAKE_V4L2": ",".join(f"{key}={value}" for key, value in camera.items()),
        "PYTHONPATH": str(REPO),
    }
    if jpeg is not None:
        extra["FAKE_V4L2_JPEG"] = str(jpeg)
    return {**os.environ, **extra}


def read(library: Path, action: str = "read", jpeg: Path | None = None, *, camera: dict[str, int], **asked: Any) -> Any:
    """What a child reads from the camera."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "v4l2_child.py"), action, json.dumps(asked)],
        env=environment(library, jpeg, **camera),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def buffer(sequence: int, size: int) -> bytes:
    """What the camera writes into the buffer of frame `sequence`."""
    return bytes((sequence * 31 + i * 7 + (i >> 8)) & 255 for i in range(size))
