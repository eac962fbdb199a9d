"""The operations of a recipe: each takes a step and a state, and gives the next state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from edgemed.base.errors import InputError
from edgemed.recipe.operations import enhance, intensity, spatial
from edgemed.recipe.operations.state import State
from edgemed.recipe.steps import Step

_RUN: Final[dict[str, Callable[[Any, State], State]]] = {
    "window": intensity.window,
    "scale": intensity.scale,
    "range": intensity.unit_range,
    "zscore": intensity.zscore,
    "clip": intensity.clip,
    "invert": intensity.invert,
    "gamma": intensity.gamma,
    "gray": lambda _, state: intensity.gray(state),
    "rgb": lambda _, state: intensity.rgb(state),
    "resize": spatial.resize,
    "spacing": spatial.spacing,
    "crop": spatial.crop,
    "content": spatial.content,
    "pad": spatial.pad,
    "flip": spatial.flip,
    "rotate90": spatial.rotate90,
    "clahe": enhance.clahe,
    "gaussian": enhance.gaussian,
    "median": enhance.median,
    "nlmeans": enhance.nlmeans,
}
_MAY_OVERFLOW = {"scale", "zscore", "invert", "gamma", "resize", "spacing", "pad", "gaussian", "nlmeans"}


def run_step(step: Step, state: State) -> State:
    """One step.

    Raises:
        InputError: the image does not allow it, or the result is not finite.
        MissingSoftwareError: the package that does it is not installed.
    """
    with np.errstate(all="ignore"):
        state = _RUN[step.op](step, state)
    if step.op in _MAY_OVERFLOW and not np.isfinite(state.pixels).all():  # at once: a later clip would hide it
        raise InputError(
            f"The step {step.op} makes NaN or infinity of the image.", "Correct its numbers in the recipe."
        )
    return state
