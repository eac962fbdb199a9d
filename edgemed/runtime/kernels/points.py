"""Steps that change values: what the kernels compute, and which steps they leave to the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from edgemed.recipe import steps
from edgemed.recipe.image import Image, LookupTable, Window
from edgemed.recipe.operations.intensity import limits_of

Three = tuple[float, float, float]
_FLOAT_MAX = float(np.finfo(np.float32).max)


class Code(IntEnum):
    """As in prepare.cu."""

    SCALE = 0
    RAMP = 1
    CLIP = 2
    INVERT = 3
    POWER = 4
    SIGMOID = 5
    GRAY = 6
    COLOR = 7


@dataclass(frozen=True)
class Operation:
    """One operation on a pixel in float32, with two numbers for each channel."""

    code: Code
    a: Three = (0.0, 0.0, 0.0)
    b: Three = (0.0, 0.0, 0.0)


_NEIGHBOURS = "it looks at the neighbours of each pixel, and is not written as a kernel"


def left_to_cpu(step: steps.Step) -> str | None:
    """Why the kernels cannot do a step whatever the frames are, or `None`."""
    if isinstance(step, steps.Window) and step.percentiles is not None:
        return "the percentiles are those of each image"
    if isinstance(step, steps.Range) and step.of == "image":
        return "the range is that of each image"
    if isinstance(step, steps.ZScore) and step.mean is None:
        return "mean and deviation are those of each image"
    if isinstance(step, steps.Content):
        return "the box is that of each image; crop a fixed box"
    if isinstance(step, steps.Clahe | steps.Gaussian | steps.Median | steps.NlMeans):
        return _NEIGHBOURS
    sized = isinstance(step, steps.Resize | steps.Crop | steps.Pad) and step.size is not None and len(step.size) == 3
    if sized or (isinstance(step, steps.Spacing) and len(step.mm) == 3):
        return "it counts slices"
    if isinstance(step, steps.Flip) and step.axis == "slices":
        return "it turns slices over"
    return None


def operation(step: steps.Step, image: Image) -> Operation | None:
    """What the kernels compute for a step on values; `None` where only a table of all values will do.

    Args:
        step: one for which `left_to_cpu` has no reason.
        image: with the windows, tables and ranges that the frames share.
    """
    if isinstance(step, steps.Window):
        return _window(step, image)
    if isinstance(step, steps.Range):
        return _ramp(*_range(step.of, image))
    if isinstance(step, steps.Scale):
        return Operation(Code.SCALE, _three(step.offset), _three(step.divisor))
    if isinstance(step, steps.ZScore) and step.mean is not None and step.std is not None:
        return Operation(Code.SCALE, _three(step.mean), _three(step.std))
    if isinstance(step, steps.Clip):
        low = -_FLOAT_MAX if step.low is None else step.low
        return Operation(Code.CLIP, _three(low), _three(_FLOAT_MAX if step.high is None else step.high))
    if isinstance(step, steps.Invert):
        return Operation(Code.INVERT, _three(step.low + step.high))
    if isinstance(step, steps.Gamma):
        return Operation(Code.POWER, _three(step.gamma))
    return None


def _window(step: steps.Window, image: Image) -> Operation | None:
    if step.low is not None and step.high is not None:
        return _ramp(step.low, step.high)
    chosen: Window | LookupTable
    if step.center is not None and step.width is not None:
        chosen = Window(step.center, step.width, step.function or "LINEAR")
    else:
        choices: tuple[Window | LookupTable, ...] = (*image.tables, *image.windows)
        if step.index >= len(choices):
            return _ramp(*_range("stored-bits", image))
        chosen = choices[step.index]
    if isinstance(chosen, LookupTable):
        return None
    if chosen.function == "SIGMOID":
        return Operation(Code.SIGMOID, _three(chosen.center), _three(-4 / chosen.width))
    return _ramp(*limits_of(chosen))


def _range(of: str, image: Image) -> tuple[float, float]:
    if of == "type":
        limits = np.iinfo(image.pixels.dtype)
        return float(limits.min), float(limits.max)
    assert image.stored_range is not None  # the step itself has run before, and refuses
    return image.stored_range


def _ramp(low: float, high: float) -> Operation | None:
    """`None` where black and white are one value: a step, which rounding before it could put on the other side."""
    if np.float32(_bounded(high - low)) <= 0:
        return None
    return Operation(Code.RAMP, _three(low), _three(high - low))


def _three(values: steps.PerChannel | None) -> Three:
    each = [_bounded(v) for v in (values if isinstance(values, tuple) else (values or 0.0,))]
    first, second, third = each * 3 if len(each) == 1 else each
    return first, second, third


def _bounded(value: float) -> float:
    """Within float32, as the recipe has it."""
    return min(max(value, -_FLOAT_MAX), _FLOAT_MAX)
