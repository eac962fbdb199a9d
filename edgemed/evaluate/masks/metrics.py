"""From counted pixels to Dice and its relatives: one value for each image and class, then the mean over images."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.evaluate.estimate import Estimate
from edgemed.evaluate.mean import mean_of
from edgemed.evaluate.proportions import PairedDifference, Proportion

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

MASK_METRICS = ("dice", "iou", "false_alarms")


@dataclass(frozen=True)
class Overlap:
    """Pixels of two masks of each image and class.

    Attributes:
        both: `(images, classes)`, marked in both.
        first: marked in the first (the drawn one, or float's).
        second: marked in the second.
    """

    both: Floats
    first: Floats
    second: Floats

    @staticmethod
    def of(first: Bools, second: Bools) -> Overlap:
        """Of one image: masks `(..., classes)` make one row."""
        axes = tuple(range(first.ndim - 1))
        counts = [mask.sum(axis=axes, dtype=np.float64)[None] for mask in (first & second, first, second)]
        return Overlap(*counts)

    @staticmethod
    def stacked(rows: Sequence[Overlap]) -> Overlap:
        """Of all images."""
        return Overlap(*(np.concatenate([getattr(row, name) for row in rows]) for name in ("both", "first", "second")))


def dice(overlap: Overlap) -> Floats:
    """`2 |A ∩ B| / (|A| + |B|)` of each image and class; NaN where the first mask is empty."""
    return _among(overlap.first > 0, 2 * overlap.both, overlap.first + overlap.second)


def iou(overlap: Overlap) -> Floats:
    """`|A ∩ B| / |A ∪ B|` of each image and class; NaN where the first mask is empty."""
    return _among(overlap.first > 0, overlap.both, overlap.first + overlap.second - overlap.both)


def false_alarms(overlap: Overlap) -> Floats:
    """1 where the second mask marks what the first has not at all, 0 where neither does; NaN where the first does."""
    return _among(overlap.first == 0, (overlap.second > 0).astype(np.float64), np.ones_like(overlap.second))


def agreement(overlap: Overlap) -> Floats:
    """Dice of two masks of which neither is the truth; NaN only where both are empty."""
    return _among(overlap.first + overlap.second > 0, 2 * overlap.both, overlap.first + overlap.second)


MEASURES: dict[str, Callable[[Overlap], Floats]] = {"dice": dice, "iou": iou, "false_alarms": false_alarms}


def names_of(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the metrics of a model: over all classes, and of each where there are several."""
    each = classes if len(classes) > 1 else ()
    return tuple(name for metric in MASK_METRICS for name in (metric, *(f"{metric}:{c}" for c in each)))


def metrics(overlap: Overlap, classes: Sequence[str], units: Sequence[Hashable]) -> dict[str, Estimate]:
    """All metrics of one precision; those that no image can tell are left out.

    Args:
        overlap: of the drawn masks with its own.
        classes: their names.
        units: what each image belongs to, see `mean_of`.
    """
    return _estimates({name: measure(overlap) for name, measure in MEASURES.items()}, classes, units, least=0.0)


def paired_differences(
    first: Overlap, second: Overlap, classes: Sequence[str], units: Sequence[Hashable]
) -> dict[str, Estimate]:
    """`second` minus `first` of every metric: the same drawn masks, so the same images count for both."""
    values = {name: measure(second) - measure(first) for name, measure in MEASURES.items()}
    return _estimates(values, classes, units, least=-1.0)


def over_classes(values: Floats) -> Floats:
    """`(images,)`: the mean over the classes that an image can tell; NaN where it can tell none."""
    told = ~np.isnan(values)
    count = told.sum(axis=1)
    total = np.where(told, values, 0.0).sum(axis=1)
    return _among(count > 0, total, count)


def estimate(values: Floats, units: Sequence[Hashable], *, least: float = 0.0, events: bool = False) -> Estimate | None:
    """The mean over images that have a value; `None` where none has.

    Args:
        values: `(images,)`, NaN for those that have none.
        units: what each image belongs to.
        least: -1 for differences.
        events: values say whether something happened; where images are independent, their mean is a proportion, or
            the paired difference of two, and has the interval of one.
    """
    told = ~np.isnan(values)
    if not told.any():
        return None
    known, whose = values[told], [unit for unit, use in zip(units, told, strict=True) if use]
    if events and np.isin(known, (-1, 0, 1)).all() and len(set(whose)) == len(whose):
        gained, lost = int((known > 0).sum()), int((known < 0).sum())
        return PairedDifference(gained, lost, len(known)) if least < 0 else Proportion(gained, len(known))
    return mean_of(known, whose, least=least)


def _estimates(
    values: dict[str, Floats], classes: Sequence[str], units: Sequence[Hashable], *, least: float
) -> dict[str, Estimate]:
    found: dict[str, Estimate | None] = {}
    for metric, value in values.items():
        events = metric == "false_alarms"
        found[metric] = estimate(over_classes(value), units, least=least, events=events)
        for index, name in enumerate(classes if len(classes) > 1 else ()):
            found[f"{metric}:{name}"] = estimate(value[:, index], units, least=least, events=events)
    return {name: known for name, known in found.items() if known is not None}


def _among(where: Bools, top: Floats, bottom: NDArray[Any]) -> Floats:
    result = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=result, where=where)
    return result
