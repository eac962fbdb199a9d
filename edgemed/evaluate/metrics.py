"""From answers and truth to metrics, each with n and an interval; and the paired difference of two precisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemed.evaluate.auc import area, paired_area
from edgemed.evaluate.estimate import Estimate
from edgemed.evaluate.proportions import PairedDifference, Proportion

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]

BINARY_METRICS = ("accuracy", "sensitivity", "specificity", "auc")
MULTICLASS_METRICS = ("accuracy",)


@dataclass(frozen=True)
class Answers:
    """What one precision answered.

    Args:
        decided: `(n,)`, index of the class that was decided for.
        scores: `(n,)`, score of the positive class of a binary task; `None` for more classes.
    """

    decided: Ints
    scores: Floats | None = None


def accuracy(decided: Ints, truth: Ints) -> Proportion:
    """Share of samples whose decided class is the true one, for two classes or more."""
    return _proportion(decided == truth)


def sensitivity(decided: Ints, truth: Ints) -> Proportion:
    """Share of the positives (class 1) that are found; n is the number of positives."""
    return _proportion((decided == truth)[truth == 1])


def specificity(decided: Ints, truth: Ints) -> Proportion:
    """Share of the negatives (class 0) that are left alone; n is the number of negatives."""
    return _proportion((decided == truth)[truth == 0])


def disagreement(first: Ints, second: Ints) -> Proportion:
    """Share of samples on which two precisions decide differently, right or wrong."""
    return _proportion(first != second)


def metrics(answers: Answers, truth: Ints) -> dict[str, Estimate]:
    """All metrics of one precision: `BINARY_METRICS` where there are scores, `MULTICLASS_METRICS` otherwise.

    Args:
        answers: of `n` samples.
        truth: `(n,)`, index of the true class; every class of a binary task is present.

    Raises:
        InputError: a class of a binary task has no sample.
    """
    found: dict[str, Estimate] = {"accuracy": accuracy(answers.decided, truth)}
    if answers.scores is not None:
        found["auc"] = area(answers.scores, truth == 1)  # first to say so when a class is missing
        found["sensitivity"] = sensitivity(answers.decided, truth)
        found["specificity"] = specificity(answers.decided, truth)
    return {name: found[name] for name in (*BINARY_METRICS, *MULTICLASS_METRICS) if name in found}


def paired_differences(first: Answers, second: Answers, truth: Ints) -> dict[str, Estimate]:
    """`second` minus `first` of every metric, measured on the same samples.

    Raises:
        InputError: a class of a binary task has no sample.
    """
    found: dict[str, Estimate] = {"accuracy": _paired(first, second, truth, lambda t: t >= 0)}
    if first.scores is not None and second.scores is not None:
        found["auc"] = paired_area(first.scores, second.scores, truth == 1)
        found["sensitivity"] = _paired(first, second, truth, lambda t: t == 1)
        found["specificity"] = _paired(first, second, truth, lambda t: t == 0)
    return {name: found[name] for name in (*BINARY_METRICS, *MULTICLASS_METRICS) if name in found}


def _proportion(right: Bools) -> Proportion:
    return Proportion(int(right.sum()), len(right))


def _paired(first: Answers, second: Answers, truth: Ints, which: Callable[[Ints], Bools]) -> PairedDifference:
    among = which(truth)
    before, after = (first.decided == truth)[among], (second.decided == truth)[among]
    return PairedDifference(int((after & ~before).sum()), int((before & ~after).sum()), int(among.sum()))
