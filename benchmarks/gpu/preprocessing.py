"""The preprocessing kernels beside the recipe's own way on the CPU: how far apart, and how long each takes."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from edgemed.base.resources import find_resource
from edgemed.base.runner import TensorSpec
from edgemed.recipe.contract import Contract
from edgemed.recipe.image import Window
from edgemed.recipe.schema import load_recipe
from edgemed.runtime.cuda import Cuda
from edgemed.runtime.kernels.beside import beside
from edgemed.runtime.kernels.plan import Refusal
from edgemed.runtime.kernels.raw import RawFormat

Report = dict[str, Any]
_FILM = RawFormat(2048, 2048, "uint16", windows=(Window(2048, 4096),))
# name, recipe, model's input, raw frames
_CASES = (
    ("chest film 2048x2048", "chest-xray", (1, 512, 512, 1), _FILM),
    ("ultrasound 1080p", "ultrasound", (1, 256, 256, 1), RawFormat(1080, 1920, "uint8", "rgb")),
    ("endoscopy 1080p", "endoscopy", (1, 512, 512, 3), RawFormat(1080, 1920, "uint8", "rgb")),
    ("plain 512x512", "pixels-0-1", (1, 224, 224, 3), RawFormat(512, 512, "uint8", "rgb")),
)  # fmt: skip


def compare(cuda: Cuda) -> Report:
    """Greatest difference as a share of the range, and medians of 20 in µs, for frames of random numbers."""
    rng = np.random.default_rng(0)
    rows: Report = {}
    for name, shipped, shape, raw in _CASES:
        recipe = load_recipe(find_resource("calibration", shipped))
        # random numbers are no file of a modality: its contract is not what is compared
        recipe = recipe.model_copy(update={"input": recipe.input.model_copy(update={"contract": Contract()})})
        frame = rng.integers(0, np.iinfo(raw.dtype).max, raw.shape, raw.dtype, endpoint=True)
        found = beside(cuda, recipe, TensorSpec("x", "float32", shape), "NHWC", raw, frame)
        if isinstance(found, Refusal):
            rows[name] = f"left to the CPU: {found}"
            continue
        cpu, kernel, copy = (
            statistics.median(taken) / 1e3 for taken in (found.cpu_ns, found.kernel_ns, found.copy_in_ns)
        )
        rows[name] = {
            "difference": found.difference,
            "cpu_us": round(cpu, 1),
            "kernel_us": round(kernel, 1),
            "copy_in_us": round(copy, 1),
            "gain": round(cpu / (kernel + copy), 1),
        }
    return rows
