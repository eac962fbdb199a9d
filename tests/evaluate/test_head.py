"""How outputs are read, and which ones are refused."""

import math
from typing import Any

import numpy as np
import pytest

from edgemed.base.errors import InputError
from edgemed.bundle.manifest import OutputTensor
from edgemed.evaluate.head import head_of


def output(shape: tuple[int | None, ...] = (1, 1), **fields: Any) -> OutputTensor:
    return OutputTensor(name="y", dtype="float32", shape=shape, layout="NC", **fields)


def test_sigmoid_is_binary_with_the_threshold_of_the_recipe() -> None:
    head = head_of((output(activation="sigmoid", threshold=0.3),))
    assert head.read(np.array([[0.3]])) == (1, 0.3)
    assert head.read(np.array([[0.29]])) == (0, 0.29)


def test_a_logit_goes_through_the_sigmoid_that_the_model_lacks() -> None:
    head = head_of((output(task="binary", activation="none"),))
    assert head.read(np.array([[2.0]])) == (1, pytest.approx(1 / (1 + math.exp(-2))))
    assert head.read(np.array([[-800.0]])) == (0, 0.0)  # no overflow


def test_softmax_over_two_scores_the_last_class() -> None:
    head = head_of((output((1, 2), activation="softmax", threshold=0.25),))
    assert head.binary
    assert head.read(np.array([[0.7, 0.3]])) == (1, 0.3)


def test_more_classes_take_the_largest() -> None:
    head = head_of((output((1, 3), task="multiclass", activation="none"),))
    assert not head.binary
    # a probability, whatever the model ends with
    assert head.read(np.array([[1.0, 5.0, 2.0]])) == (1, pytest.approx(0.936, abs=5e-4))


@pytest.mark.parametrize(
    "outputs",
    [
        (output(), output()),
        (output(),),  # one number: a score or a regression?
        (output((1, 4)),),
        (output((1, 4), activation="sigmoid"),),
        (output((1, 4), task="multilabel", activation="sigmoid"),),
        (output((1, 2), task="binary", activation="none"),),
        (output((1, 64, 64, 1), task="segmentation"),),
        (output((1, None), activation="softmax"),),
    ],
)
def test_what_cannot_be_judged_is_refused(outputs: tuple[OutputTensor, ...]) -> None:
    with pytest.raises(InputError) as caught:
        head_of(outputs)
    assert caught.value.hint


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_answer_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        head_of((output(activation="sigmoid"),)).read(np.array([[value]]))
