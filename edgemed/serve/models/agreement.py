"""Whether two answers to one input agree, and what the number of those that do not can mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.bundle.manifest import OutputTensor
from edgemed.bundle.read import Bundle
from edgemed.evaluate.bundled import golden_of
from edgemed.evaluate.execute import OutputReader

Outputs = Mapping[str, NDArray[Any]]
MASK_SHARE: Final = 0.01
"""Share of pixels that may lie on the other side: a contour moved by a pixel is no other finding."""


@dataclass(frozen=True)
class Difference:
    """Between two answers.

    Attributes:
        decision: both decide the same: the class, the mask.
        error: the greatest difference, over the output's range.
    """

    decision: bool
    error: float


class Comparer:
    """Compares answers of models that give what this bundle's gives."""

    def __init__(self, bundle: Bundle) -> None:
        self._read = OutputReader.of(bundle)
        self._outputs = bundle.manifest.outputs
        golden = golden_of(bundle)
        values = next(iter(golden.outputs.values()))
        self._ranges = {name: float(np.abs(array.astype(np.float64)).max()) or 1.0 for name, array in values.items()}

    @property
    def decides(self) -> bool:
        """Whether the outputs decide anything; a regression does not."""
        return self._read.head is not None or any(output.task == "segmentation" for output in self._outputs)

    def compare(self, ours: Outputs, theirs: Outputs) -> Difference:
        """NaN, infinity and other shapes agree with nothing."""
        error = 0.0
        for output in self._outputs:
            one, other = ours[output.name].astype(np.float64), theirs[output.name].astype(np.float64)
            if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
                return Difference(False, math.inf)
            error = max(error, float(np.abs(one - other).max(initial=0.0)) / self._ranges[output.name])
        return Difference(self._decide_the_same(ours, theirs), error)

    def _decide_the_same(self, ours: Outputs, theirs: Outputs) -> bool:
        if self._read.head is not None:
            rows = range(len(ours[self._read.head.output]))
            return all(self._decided(ours, row) == self._decided(theirs, row) for row in rows)
        masks = [output for output in self._outputs if output.task == "segmentation"]
        return all(_other_side(output, ours[output.name], theirs[output.name]) <= MASK_SHARE for output in masks)

    def _decided(self, outputs: Outputs, row: int) -> int | None:
        head = self._read.head
        assert head is not None, "asked for above"
        try:
            return head.read(outputs[head.output][row])[0]
        except InputError:
            return None


def _other_side(output: OutputTensor, one: NDArray[Any], other: NDArray[Any]) -> float:
    """Share of pixels that are of another class."""
    axis = 1 if output.layout.startswith("NC") else -1
    if one.dtype.kind in "iu":
        return float((one != other).mean())
    if one.shape[axis] > 1 and output.activation == "softmax":
        return float((one.argmax(axis) != other.argmax(axis)).mean())
    edge = 0.0 if output.activation == "none" else 0.5 if output.threshold is None else output.threshold
    return float(((one >= edge) != (other >= edge)).mean())


def tail(count: int, n: int, p: float) -> float:
    """P(X >= count) of a binomial: how often chance alone gives so many."""
    if count <= 0:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(count, n + 1)
    ]
    return math.fsum(math.exp(log) for log in logs) if logs else 0.0


def too_many(n: int, p: float, alpha: float) -> int:
    """The least count out of `n` that chance alone reaches with no more than `alpha`, where the share is `p`."""
    low, high = 0, n + 1
    while low < high:
        middle = (low + high) // 2
        if tail(middle, n, p) <= alpha:
            high = middle
        else:
            low = middle + 1
    return low


def upper_bound(count: int, n: int, alpha: float = 0.05) -> float:
    """One-sided upper bound of a share (Clopper and Pearson 1934)."""
    if count >= n:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if 1.0 - tail(count + 1, n, middle) > alpha:
            low = middle
        else:
            high = middle
    return high
