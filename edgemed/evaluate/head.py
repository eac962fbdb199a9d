"""How a classification output is read: its classes, its score, its decision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.bundle.manifest import OutputTensor

_NAME_THE_TASK = 'Say in the recipe: [output] task = "binary" or "multiclass", and activation.'
_DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Head:
    """One classification output.

    Args:
        output: its name.
        classes: how many classes it tells apart; 2 for a single sigmoid.
        named: class names of the recipe, if any.
        threshold: probability from which a binary task decides for class 1.
        applies_sigmoid: the model ends before its sigmoid.
        applies_softmax: the model ends before its softmax.
        binary: decide by threshold, and report sensitivity, specificity and AUC.
    """

    output: str
    classes: int
    named: tuple[str, ...]
    threshold: float
    applies_sigmoid: bool
    binary: bool
    applies_softmax: bool = False

    def read(self, value: NDArray[Any]) -> tuple[int, float]:
        """The decided class of one sample, and the score of the positive class (of the decided one otherwise).

        Raises:
            InputError: the model answered NaN or infinity.
        """
        scores = self.scores(value)
        if self.binary:
            score = float(scores[-1])
            return int(score >= self.threshold), score
        best = int(scores.argmax())
        return best, float(scores[best])

    def scores(self, value: NDArray[Any]) -> NDArray[np.float64]:
        """The probability of each class, `(classes,)`; raises what `read` raises."""
        flat = finite(value, self.output).reshape(-1)
        if self.applies_softmax:
            powers = np.exp(flat - flat.max())
            return np.asarray(powers / powers.sum())
        if not self.binary:
            return flat
        score = sigmoid(flat[-1:]) if self.applies_sigmoid else flat[-1:]  # a softmax gives the positive class last
        return np.concatenate([1 - score, score])

    @property
    def names(self) -> tuple[str, ...]:
        """One for each class, the recipe's own where it names them all."""
        return self.named if len(self.named) == self.classes else tuple(f"class {i}" for i in range(self.classes))


def finite(value: NDArray[Any], output: str) -> NDArray[np.float64]:
    """What a model has answered, as numbers.

    Raises:
        InputError: NaN or infinity is among them.
    """
    numbers = np.asarray(value, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise InputError(f"The output {output} is NaN or infinite.", "Check the model and its recipe.")
    return numbers


def sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without overflow."""
    low = np.exp(-np.abs(value))
    return np.asarray(np.where(value >= 0, 1 / (1 + low), low / (1 + low)))


def head_of(outputs: tuple[OutputTensor, ...]) -> Head:
    """The head of a model with one classification output.

    Raises:
        InputError: several outputs, another task, or no way to tell which task it is.
    """
    if len(outputs) != 1:
        names = ", ".join(o.name for o in outputs)
        raise InputError(f"The model has {len(outputs)} outputs ({names}).", "Evaluate models with one output.")
    output = outputs[0]
    width = _width(output)
    task = output.task or _guess_task(output, width)
    if task == "binary" and (width == 1 or (width == 2 and output.activation == "softmax")):
        return _head(output, 2, binary=True)
    if task == "multiclass" and width > 1:
        return _head(output, width, binary=width == 2 and output.activation == "softmax")
    raise InputError(
        f"The output {output.name} of task {task} with {width} values cannot be judged by folders of classes.",
        "Evaluate binary and multiclass classifiers.",
    )


def _head(output: OutputTensor, classes: int, *, binary: bool) -> Head:
    threshold = _DEFAULT_THRESHOLD if output.threshold is None else output.threshold
    bare = output.activation == "none"
    return Head(output.name, classes, output.classes, threshold, binary and bare, binary, not binary and bare)


def _width(output: OutputTensor) -> int:
    sizes = output.shape[1:] if len(output.shape) > 1 else output.shape
    if any(size is None for size in sizes):
        raise InputError(f"The output {output.name} has a varying size.", "Evaluate classifiers.")
    return math.prod(size for size in sizes if size is not None)


def _guess_task(output: OutputTensor, width: int) -> str:
    if width == 1 and output.activation == "sigmoid":
        return "binary"
    if width > 1 and output.activation == "softmax":
        return "multiclass"
    raise InputError(f"The output {output.name} does not say what it means.", _NAME_THE_TASK)
