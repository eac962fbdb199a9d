"""The kernels touch nothing outside their buffers, do nothing undefined, and their barriers stand where they must."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemed.runtime.kernels import block
from edgemed.runtime.kernels.plan import KernelPlan
from edgemed.runtime.kernels.raw import RawFormat
from tests.runtime.kernels import twin
from tests.runtime.kernels.compare import planned, recipe, spec_of

MAIN = Path(__file__).with_name("run_case.c")
INCLUDE = f"-I{twin.SOURCE.parent}"
CHECKED = ("-O1", "-g", INCLUDE, "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
RACES = ("-O1", "-g", INCLUDE, "-fsanitize=thread", "-DEDGEMED_TEAM=5")
RNG = np.random.default_rng(3)

RESIZE = {"op": "resize"}
PADS = [
    {"op": "pad", "size": [50, 60], "fill": 7},
    {"op": "rotate90"},
    {"op": "resize", "size": [20, 20], "filter": "area"},
    {"op": "pad", "size": [24, 24], "fill": 1},
]
TABLE = [{"op": "window", "center": 40, "width": 400, "function": "SIGMOID"}, {"op": "gamma", "gamma": 2}]
CUT = [{"op": "crop", "box": [1, 3, 20, 21]}, {"op": "flip", "axis": "columns"}]

CASES: dict[str, tuple[RawFormat, list[dict[str, Any]], tuple[Any, ...]]] = {
    "window-down": (RawFormat(67, 51, "uint16"), [{"op": "window", "low": 3, "high": 9000}, RESIZE], (24, 40, 1)),
    "up": (RawFormat(7, 5, "int16"), [{"op": "resize", "filter": "lanczos", "fit": "pad"}], (33, 70, 1)),
    "line": (RawFormat(1, 300), [{"op": "resize", "filter": "area"}], (1, 3, 3)),
    "pixel": (RawFormat(90, 70, pixels="bgr"), [{"op": "resize", "filter": "bicubic"}], (1, 1, 3)),
    "pads": (RawFormat(31, 45, pixels="rgb"), PADS, (24, 24, 3)),
    "table": (RawFormat(40, 33, "int16").stored(bits=12, intercept=-1024, inverted=True), TABLE, (None, None, 1)),
    "yuyv": (RawFormat(30, 34, pixels="yuyv"), CUT, (None, None, 3)),
    "nv12": (RawFormat(30, 34, pixels="nv12"), [{"op": "rotate90", "turns": 3}, RESIZE], (40, 17, 3)),
    "clip": (RawFormat(20, 24, pixels="nv12", frames=3), [{"op": "range", "of": "type"}, RESIZE], (3, 16, 16, 3)),
}


def case(name: str, dtype: str) -> tuple[KernelPlan, np.ndarray]:
    raw, steps, shape = CASES[name]
    spec = spec_of(1, 1, 1, "NHWC").__class__("x", dtype, (1, *shape))
    limits = np.iinfo(raw.dtype)
    if dtype == "float16" and raw.dtype != "uint8":
        steps = [*steps, {"op": "window", "low": float(limits.min), "high": float(limits.max)}]
    plan = planned(recipe(*steps), spec, "NHWC" if len(shape) == 3 else "NTHWC", raw)
    return plan, RNG.integers(limits.min, limits.max, raw.shape, endpoint=True).astype(raw.dtype)


def run(program: Path, plan: KernelPlan, frame: np.ndarray, folder: Path) -> subprocess.CompletedProcess[str]:
    files = {"raw": frame.tobytes(), "block": plan.block.words.tobytes(), "out": bytes(plan.nbytes)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    grid = ",".join(map(str, plan.block.grid))
    command = [str(program), plan.block.kernel, grid, *(str(folder / name) for name in files)]
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1 exitcode=66", "ASAN_OPTIONS": "detect_leaks=1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if "unexpected memory mapping" in done.stderr:  # ThreadSanitizer of older compilers on kernels that scatter more
        done = subprocess.run(["setarch", "-R", *command], capture_output=True, text=True, env=environment, check=False)
    return done


@pytest.mark.parametrize("flags", [CHECKED, RACES], ids=["memory", "races"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", CASES)
def test_no_sanitizer_finds_anything_and_all_give_the_same(
    name: str, dtype: str, flags: tuple[str, ...], tmp_path: Path
):
    """Buffers are as large as the plan says, to the byte. In the second, five threads share each block."""
    plan, frame = case(name, dtype)
    done = run(twin.built("case", *flags, sources=(MAIN,)), plan, frame, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == twin.run(plan, frame).tobytes()


def test_a_missing_barrier_would_be_seen(tmp_path: Path):
    plan, frame = case("window-down", "float32")
    source = tmp_path / "prepare.cu"
    text = twin.SOURCE.read_text(encoding="utf-8")
    barrier = "        MEET();\n        filter_columns(l->plan"
    assert barrier in text
    source.write_text(text.replace(barrier, "        filter_columns(l->plan"), encoding="utf-8")
    flags = tuple(f"-I{tmp_path}" if flag == INCLUDE else flag for flag in RACES)
    command = ["cc", *twin.FLAGS, *flags, str(MAIN), "-o", str(tmp_path / "case"), "-lm", "-lpthread"]
    subprocess.run(command, check=True)
    done = run(tmp_path / "case", plan, frame, tmp_path)
    assert done.returncode != 0
    assert "data race" in done.stderr


@pytest.mark.parametrize("buffer", ["raw", "block", "out"])
def test_a_buffer_that_is_too_small_would_be_seen(buffer: str, tmp_path: Path):
    plan, frame = case("window-down", "float32")
    program = twin.built("case", *CHECKED, sources=(MAIN,))
    files = {"raw": frame.tobytes(), "block": plan.block.words.tobytes(), "out": bytes(plan.nbytes)}
    cut = plan.block.words[block.HEAD.index("SPAN_INDEX")] * 4 if buffer == "block" else -1  # its last table
    short = {**files, buffer: files[buffer][:cut]}
    for name, content in short.items():
        (tmp_path / name).write_bytes(content)
    grid = ",".join(map(str, plan.block.grid))
    command = [str(program), plan.block.kernel, grid, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr
