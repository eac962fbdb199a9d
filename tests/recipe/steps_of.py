"""Run single steps: what the tests of operations share."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import TypeAdapter

from edgemed.recipe.image import Facts, Image, plain
from edgemed.recipe.operations import run_step
from edgemed.recipe.operations.state import State
from edgemed.recipe.steps import Step

_STEP: TypeAdapter[Step] = TypeAdapter(Step)


def step_of(op: str, **settings: Any) -> Step:
    """A step as TOML would give it."""
    return _STEP.validate_python({"op": op, **settings})


def run(image: Image | np.ndarray, op: str, **settings: Any) -> State:
    """The state after one step."""
    return run_step(step_of(op, **settings), State.of(image if isinstance(image, Image) else plain(image)))


def plane(image: Image | np.ndarray, op: str, **settings: Any) -> np.ndarray:
    """The one slice after one step."""
    (pixels,) = run(image, op, **settings).pixels
    return pixels


def stack(pixels: np.ndarray, **facts: Any) -> Image:
    """A volume or a cine: `(slices, rows, columns)` or with channels behind."""
    slices, rows, columns = pixels.shape[:3]
    return Image(pixels, Facts(rows=rows, columns=columns, frames=slices, **facts), stacked=True)
