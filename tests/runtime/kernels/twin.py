"""The kernels' host twin: the same source by the system's C compiler, run as a launch would run it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgemed.runtime.kernels.plan import KernelPlan

SOURCE = Path(__file__).resolve().parents[3] / "edgemed" / "runtime" / "kernels" / "prepare.cu"
FLAGS = ("-x", "c", "-std=gnu11", "-ffp-contract=off", "-fno-fast-math", "-Wall", "-Wextra", "-Werror", "-fPIC")


def _cache() -> Path:
    if chosen := os.environ.get("EDGEMED_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgemed"


CACHE = _cache()  # now: fixtures move XDG_CACHE_HOME to a private place later


def built(name: str, *more: str, sources: tuple[Path, ...] = (SOURCE,)) -> Path:
    """A library or program made of the kernels, in the cache under a key of all it is made from."""
    key = hashlib.sha256()
    for path in (SOURCE, *sources):
        key.update(path.read_bytes())
    key.update("\0".join((*FLAGS, *more)).encode())
    target = CACHE / "kernels" / f"{key.hexdigest()[:16]}-{name}"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            made = Path(scratch) / name
            command = ["cc", *FLAGS, *more, *map(str, sources), "-o", str(made), "-lm", "-lpthread"]
            subprocess.run(command, check=True)
            made.replace(target)
    return target


def library() -> Path:
    """The shared library with `NAME_host` for each kernel."""
    return built("twin.so", "-O2", "-shared")


def for_shim() -> Path:
    """The same for the host-only libcuda: it takes its device addresses, and says what it touches."""
    return built("shim-twin.so", "-O2", "-shared", "-DEDGEMED_FAKECUDA")


def run(plan: KernelPlan, frame: np.ndarray) -> np.ndarray:
    """One launch on the host: the sample that the kernels make of a raw frame."""
    assert frame.shape == plan.raw.shape
    assert frame.dtype == plan.raw.dtype
    frame = np.ascontiguousarray(frame)
    made = []
    for empty in (0x00, 0xFF):  # what a launch does not write is not the same in both
        out = np.frombuffer(bytearray([empty]) * plan.nbytes, plan.dtype).reshape(plan.shape)
        _launch(plan, frame, out)
        made.append(out)
    assert made[0].tobytes() == made[1].tobytes(), "a pixel was not written"
    return made[0]


def _launch(plan: KernelPlan, frame: np.ndarray, out: np.ndarray) -> None:
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (frame, out, plan.block.words)]
    params = (ctypes.c_void_p * 3)(*(ctypes.addressof(pointer) for pointer in pointers))
    entry: Any = getattr(ctypes.CDLL(str(library())), f"{plan.block.kernel}_host")
    entry.restype = None
    entry(params, (ctypes.c_uint * 3)(*plan.block.grid), (ctypes.c_uint * 3)(plan.block.threads, 1, 1), None)
