"""Contrast and noise, by scikit-image and SciPy; each slice and each channel by itself unless said otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.lazy import require
from edgemed.recipe import steps
from edgemed.recipe.operations.state import Floats, Pixels, State


def clahe(step: steps.Clahe, state: State) -> State:
    """Contrast-limited adaptive histogram equalization; colour by its HSV value.

    Raises:
        InputError: values outside 0-1.
    """
    exposure = require("skimage.exposure", extra="imaging", purpose="equalize histograms")
    if state.pixels.min() < 0 or state.pixels.max() > 1:
        raise InputError("The step clahe takes values in 0-1.", "Put a window or range before it.")

    def work(plane: Floats) -> NDArray[Any]:
        if plane.min() == plane.max():  # nothing to stretch: scikit-image would divide by 0
            return plane
        result: NDArray[Any] = exposure.equalize_adapthist(
            plane, kernel_size=step.kernel, clip_limit=step.clip_limit, nbins=step.bins
        )
        return result

    result = np.empty(state.pixels.shape, dtype=np.float32)
    for index, piece in enumerate(state.floats()):
        result[index] = work(piece)
    return state.with_pixels(result)


def gaussian(step: steps.Gaussian, state: State) -> State:
    """Gaussian smoothing; the border repeats the nearest pixels."""
    ndimage = require("scipy.ndimage", extra="imaging", purpose="smooth images")
    sigma = step.sigma if isinstance(step.sigma, tuple) else (step.sigma, step.sigma)
    if len(sigma) == 3 and not state.image.stacked:
        raise InputError("The recipe smooths over slices, and the image has none.", "Give sigma for rows and columns.")
    axes = (0.0,) * (3 - len(sigma)) + sigma + (0.0,) * (state.pixels.ndim - 3)
    result = ndimage.gaussian_filter(state.floats(), axes, output=np.float32, mode="nearest")
    return state.with_pixels(result)


def median(step: steps.Median, state: State) -> State:
    """Median of a square; the border repeats the nearest pixels."""
    ndimage = require("scipy.ndimage", extra="imaging", purpose="filter images")

    def work(plane: Pixels) -> NDArray[Any]:
        result: NDArray[Any] = ndimage.median_filter(plane, size=step.size, mode="nearest")
        return result

    return state.with_pixels(_by_plane(state.pixels, work))


def nlmeans(step: steps.NlMeans, state: State) -> State:
    """Non-local means; colour by all its channels at once."""
    restoration = require("skimage.restoration", extra="imaging", purpose="denoise images")
    result = np.empty(state.pixels.shape, dtype=np.float32)
    for index, piece in enumerate(state.floats()):
        denoised = restoration.denoise_nl_means(
            piece,
            patch_size=step.patch,
            patch_distance=step.distance,
            h=step.h,
            sigma=step.sigma,
            fast_mode=True,
            channel_axis=-1 if state.is_color else None,
        )
        result[index] = denoised.reshape(piece.shape)  # it drops axes of length 1
    return state.with_pixels(result)


def _by_plane(pixels: Pixels, work: Callable[[Pixels], NDArray[Any]]) -> Floats:
    result = np.empty(pixels.shape, dtype=np.float32)
    for index, piece in enumerate(pixels):
        if piece.ndim == 2:
            result[index] = work(piece)
        else:
            for channel in range(piece.shape[-1]):
                result[index, ..., channel] = work(piece[..., channel])
    return result
