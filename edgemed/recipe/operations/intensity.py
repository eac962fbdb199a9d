"""Steps that change values and leave every pixel where it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.recipe import image as source
from edgemed.recipe import steps
from edgemed.recipe.operations.state import STRIP, Floats, Pixels, State, in_strips

_MOST_BINS = 1 << 20
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, what Pillow and Keras use for "grayscale"


def window(step: steps.Window, state: State) -> State:
    """0-1 inside the window; see `steps.Window`."""
    if step.file:
        return _file_window(step, state)
    if step.percentiles is not None:
        low, high = percentiles(state.valid_values(), step.percentiles)
        return state.with_pixels(ramp(state.pixels, low, high))
    if step.low is not None and step.high is not None:
        return state.with_pixels(ramp(state.pixels, step.low, step.high))
    assert step.center is not None
    assert step.width is not None
    chosen = source.Window(step.center, step.width, step.function or "LINEAR")
    return state.with_pixels(windowed(state.pixels, chosen))


def windowed(pixels: Pixels, chosen: source.Window) -> Floats:
    """The VOI function of a window, to 0-1 (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if chosen.function == "SIGMOID":
        return _sigmoid(pixels, chosen.center, chosen.width)
    return ramp(pixels, *limits_of(chosen))


def limits_of(chosen: source.Window) -> tuple[float, float]:
    """The values that a linear window shows as black and as white; equal for a LINEAR one of width 1."""
    center, width = chosen.center, chosen.width
    if chosen.function == "LINEAR_EXACT":
        return center - width / 2, center + width / 2
    return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2


def ramp(pixels: Pixels, low: float, high: float) -> Floats:
    """0 up to `low`, 1 from `high`, a line between; where both are equal, 1 above."""
    start, span = np.float32(_bounded(low)), np.float32(_bounded(high - low))

    def work(strip: Pixels, out: Floats) -> None:
        if span <= 0:
            np.greater(strip, low, out=out, casting="unsafe")
            return
        np.subtract(strip, start, out=out, dtype=np.float32, casting="same_kind")
        np.divide(out, span, out=out)
        np.clip(out, 0, 1, out=out)

    return in_strips(pixels, work)


def _sigmoid(pixels: Pixels, center: float, width: float) -> Floats:
    start, slope = np.float32(_bounded(center)), np.float32(_bounded(-4 / width))

    def work(strip: Pixels, out: Floats) -> None:
        np.subtract(strip, start, out=out, dtype=np.float32, casting="same_kind")
        np.multiply(out, slope, out=out)
        np.exp(out, out=out)  # infinity far below the window, which 1 / (1 + x) turns into 0
        np.add(out, 1, out=out)
        np.reciprocal(out, out=out)

    return in_strips(pixels, work)


def _file_window(step: steps.Window, state: State) -> State:
    image = state.image
    choices: tuple[source.LookupTable | source.Window, ...] = (*image.tables, *image.windows)
    if step.index < len(choices):
        chosen = choices[step.index]
        if isinstance(chosen, source.LookupTable):
            return state.with_pixels(looked_up(state.pixels, chosen))
        return state.with_pixels(windowed(state.pixels, chosen))
    if step.otherwise == "range":
        return state.with_pixels(_unit_range(state, "stored-bits"))
    found = f"only {len(choices)} VOI windows and tables" if choices else "no VOI window and no VOI LUT"
    raise InputError(
        f"The file has {found}, and the recipe asks for number {step.index}.",
        'Give center and width in the recipe, or otherwise = "range".',
    )


def looked_up(pixels: Pixels, table: source.LookupTable) -> Floats:
    """The VOI LUT of a file, to 0-1: below its first entry the first one, above its last the last one."""
    if not table.data.size:
        raise InputError("The VOI LUT of the file has no entries.", "Give center and width in the recipe.")
    shades = np.clip(table.data.astype(np.float32) / np.float32(2**table.bits - 1), 0, 1)
    last = len(shades) - 1

    def work(strip: Pixels, out: Floats) -> None:
        whole = np.rint(strip) if strip.dtype.kind == "f" else strip
        index = np.clip(whole.astype(np.int64) - table.first, 0, last)
        np.take(shades, index, out=out)

    return in_strips(pixels, work)


def percentiles(values: Pixels, wanted: tuple[float, float]) -> tuple[float, float]:
    """Two percentiles of all values, interpolated linearly between neighbours (NumPy's default)."""
    flat = values.reshape(-1)
    low = int(flat.min()) if flat.dtype.kind in "iu" else 0
    bins = int(flat.max()) - low + 1 if flat.dtype.kind in "iu" else _MOST_BINS + 1
    if bins > _MOST_BINS:
        found = np.percentile(flat, wanted)
        return float(found[0]), float(found[1])
    counts = np.zeros(bins, dtype=np.int64)  # counting is exact, and several times faster than sorting
    for part in _parts(flat, 16 * STRIP):
        counts += np.bincount(part.astype(np.int64) - low, minlength=bins)
    below = np.cumsum(counts)
    first, second = (_ranked(below, low, flat.size, percentile) for percentile in wanted)
    return first, second


def _ranked(below: NDArray[np.int64], low: int, count: int, percentile: float) -> float:
    place = percentile / 100 * (count - 1)
    rank = int(place)
    first, second = np.searchsorted(below, [rank, min(rank + 1, count - 1)], side="right")
    return float(low + first + (second - first) * (place - rank))


def scale(step: steps.Scale, state: State) -> State:
    """`(pixel - offset) / divisor`."""
    return state.with_pixels(scaled(state.pixels, step.offset, step.divisor, state.channels, "step scale"))


def scaled(
    pixels: Pixels, offset: steps.PerChannel, divisor: steps.PerChannel, channels: int, where: str = "scaling"
) -> Floats:
    """`(pixel - offset) / divisor`, one value or one for each channel.

    Raises:
        InputError: another number of values.
    """
    with np.errstate(all="ignore"):  # what overflows is refused at the end of the recipe
        first = _per_channel(offset, channels, f"{where}.offset")
        second = _per_channel(divisor, channels, f"{where}.divisor")

    def work(strip: Pixels, out: Floats) -> None:
        np.subtract(strip, first, out=out, dtype=np.float32, casting="same_kind")
        np.divide(out, second, out=out)

    return in_strips(pixels, work)


def _per_channel(values: steps.PerChannel, channels: int, name: str) -> Floats:
    array = np.array(values, dtype=np.float32)
    if array.ndim and array.size not in (1, channels):
        raise InputError(
            f"The recipe's {name} has {array.size} values for {channels} channels.",
            "Give one value, or one per channel.",
        )
    return array.reshape(()) if array.size == 1 else array


def unit_range(step: steps.Range, state: State) -> State:
    """0-1 over a range; see `steps.Range`."""
    return state.with_pixels(_unit_range(state, step.of))


def _unit_range(state: State, of: str) -> Floats:
    if of == "image":
        values = state.valid_values()
        low, high = float(values.min()), float(values.max())
    elif of == "type":
        dtype = state.image.pixels.dtype
        if dtype.kind not in "iu":
            raise InputError(f"Pixels of the type {dtype} have no range of their own.", 'Use of = "image".')
        low, high = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    elif state.image.stored_range is None:
        raise InputError("The file does not say the range of its stored bits.", 'Use of = "image", or a window.')
    else:
        low, high = state.image.stored_range
    return ramp(state.pixels, low, high)


def zscore(step: steps.ZScore, state: State) -> State:
    """Mean 0 and standard deviation 1; see `steps.ZScore`."""
    if step.mean is not None and step.std is not None:
        return state.with_pixels(scaled(state.pixels, step.mean, step.std, state.channels, "step zscore"))
    values = state.valid_values() if step.over == "valid" else state.pixels.reshape(-1)
    background = state.pixels == 0 if step.over == "nonzero" else None
    if step.over == "nonzero":
        values = values[values != 0]
    mean, deviation = _moments(values)
    result = scaled(state.pixels, mean, deviation, state.channels)
    if background is not None:
        result[background] = 0
    return state.with_pixels(result)


def _moments(values: Pixels) -> tuple[float, float]:
    """Mean and standard deviation; a deviation of 0 becomes 1, so that an image of one value becomes 0."""
    flat = values.reshape(-1)
    if not flat.size:
        return 0.0, 1.0
    mean = sum(float(part.sum(dtype=np.float64)) for part in _parts(flat, STRIP)) / flat.size
    squares = sum(float(np.square(part.astype(np.float64) - mean).sum()) for part in _parts(flat, STRIP))
    deviation = float(np.sqrt(squares / flat.size))
    constant = deviation <= abs(mean) * 1e-12  # rounding of the mean itself
    return (float(flat[0]), 1.0) if constant else (mean, deviation)


def _parts(flat: Pixels, size: int) -> Iterator[Pixels]:
    for start in range(0, flat.size, size):
        yield flat[start : start + size]


def clip(step: steps.Clip, state: State) -> State:
    """Values held between two limits."""
    low = None if step.low is None else np.float32(_bounded(step.low))
    high = None if step.high is None else np.float32(_bounded(step.high))

    def work(strip: Pixels, out: Floats) -> None:
        np.clip(strip.astype(np.float32, copy=False), low, high, out=out)

    return state.with_pixels(in_strips(state.pixels, work))


def invert(step: steps.Invert, state: State) -> State:
    """`low + high - pixel`."""
    total = np.float32(_bounded(step.low + step.high))

    def work(strip: Pixels, out: Floats) -> None:
        np.subtract(total, strip, out=out, dtype=np.float32, casting="same_kind")

    return state.with_pixels(in_strips(state.pixels, work))


def gamma(step: steps.Gamma, state: State) -> State:
    """`pixel ** gamma`.

    Raises:
        InputError: a negative value.
    """
    if state.pixels.min() < 0:
        raise InputError("The step gamma takes no negative values.", "Put a window or range before it.")
    power = np.float32(step.gamma)

    def work(strip: Pixels, out: Floats) -> None:
        np.power(strip, power, out=out, dtype=np.float32, casting="same_kind")

    return state.with_pixels(in_strips(state.pixels, work))


def gray(state: State) -> State:
    """Colour becomes luma, exactly where the three are equal."""
    if not state.is_color:
        return state
    return state.with_pixels(np.stack([_luma(frame) for frame in state.pixels]))


def rgb(state: State) -> State:
    """Gray becomes colour by repetition."""
    return state if state.is_color else state.with_pixels(np.repeat(state.pixels[..., None], 3, axis=-1))


def _luma(frame: Pixels) -> NDArray[Any]:
    if (frame[..., 0] == frame[..., 1]).all() and (frame[..., 0] == frame[..., 2]).all():
        return frame[..., 0]
    luma: Floats = frame.astype(np.float32, copy=False) @ LUMA
    return luma


def _bounded(value: float) -> float:
    """Within float32: a limit of 1e300 is as far out as the largest one."""
    limit = float(np.finfo(np.float32).max)
    return min(max(value, -limit), limit)
