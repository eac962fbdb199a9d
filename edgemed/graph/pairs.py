"""Scales of Q/DQ pairs as FP16 numbers, and weights that give the same INT8 codes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from edgemed.graph.scales import INT8_MAX, SMALLEST_SCALE

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST: Final = 65504.0
SMALLEST_NORMAL: Final = 2.0**-14
LEVELS: Final = 128
"""A dequantizer gives at most 128 scales."""


def half_scale(scale: NDArray[np.float32], *, weight: bool) -> NDArray[np.float16] | None:
    """The scale in FP16, or None where FP16 cannot hold it within its usual precision.

    Below 2^-14 FP16 loses digits, and 1 / scale may leave its range. Single channels of a weight may still be that
    fine, where most are not: they get 2^-14. The noise that this adds to them is less than what the layer's other
    channels carry, and the next tensor rounds all channels by one common scale.
    """
    if float(scale.max()) * LEVELS > LARGEST:
        return None
    if weight and scale.size > 1:
        used = scale[scale > SMALLEST_SCALE]  # channels of zeros have the smallest scale there is
        if used.size and float(np.median(used)) < SMALLEST_NORMAL:
            return None
        scale = np.maximum(scale, np.float32(SMALLEST_NORMAL))
    elif float(scale.min()) < SMALLEST_NORMAL:
        return None
    return scale.astype(np.float16)


def quantized_weight(
    weight: NDArray[np.float32], scale: NDArray[np.float32], half: NDArray[np.float16], axis: int
) -> NDArray[np.float32]:
    """INT8 codes of a weight: those of `scale`, but those of `half` where a channel's scale was raised."""
    raised = half.astype(np.float64) > scale * 1.01
    step = _along(np.where(raised, half.astype(np.float32), scale).astype(np.float32), weight.ndim, axis)
    codes: NDArray[np.float32] = np.clip(np.rint(weight / step), -INT8_MAX - 1, INT8_MAX)
    return codes


def finer_codes(codes: NDArray[np.float32], half: NDArray[np.float16], axis: int) -> NDArray[np.float16]:
    """FP16 weights that a quantizer with the scale `half` turns into `codes`.

    `codes * half` in FP16 is at most 128 · 2^-11 = 1/16 of a step off, far from the half step that would change a code.
    """
    product: NDArray[np.float16] = (codes * _along(half.astype(np.float32), codes.ndim, axis)).astype(np.float16)
    return product


def _along(scale: NDArray[np.float32], rank: int, axis: int) -> NDArray[np.float32]:
    return scale if scale.size == 1 else scale.reshape([-1 if i == axis % rank else 1 for i in range(rank)])
