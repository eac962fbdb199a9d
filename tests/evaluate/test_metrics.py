"""Metrics by hand on a small confusion table, and the invariants between them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.evaluate.metrics import Answers, disagreement, metrics, paired_differences

TRUTH = np.array([0, 0, 0, 0, 1, 1, 1])
FLOAT = Answers(np.array([0, 0, 0, 1, 1, 1, 0]), np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.9, 0.4]))
INT8 = Answers(np.array([0, 0, 1, 1, 1, 0, 0]), np.array([0.1, 0.2, 0.55, 0.6, 0.7, 0.45, 0.4]))


def test_binary_metrics_by_hand() -> None:
    found = metrics(FLOAT, TRUTH)
    assert {name: (estimate.value, estimate.n) for name, estimate in found.items()} == {
        "accuracy": (5 / 7, 7),
        "sensitivity": (2 / 3, 3),
        "specificity": (3 / 4, 4),
        "auc": (pytest.approx(11 / 12), 7),  # of 12 pairs only (0.4, 0.6) is out of order
    }


def test_paired_differences_by_hand() -> None:
    found = paired_differences(FLOAT, INT8, TRUTH)
    assert found["accuracy"].value == -2 / 7
    assert (found["sensitivity"].value, found["sensitivity"].n) == (-1 / 3, 3)
    assert (found["specificity"].value, found["specificity"].n) == (-1 / 4, 4)
    assert found["auc"].value == pytest.approx(8 / 12 - 11 / 12)  # 0.45 and 0.4 lose to 0.55 and 0.6
    assert disagreement(FLOAT.decided, INT8.decided).value == 2 / 7


def test_more_classes_have_accuracy_only() -> None:
    truth = np.array([0, 1, 2, 2])
    one, other = Answers(np.array([0, 1, 2, 1])), Answers(np.array([0, 2, 2, 2]))
    assert list(metrics(one, truth)) == ["accuracy"]
    assert metrics(one, truth)["accuracy"].value == 0.75
    found = paired_differences(one, other, truth)["accuracy"]
    assert (found.value, found.n) == (0.0, 4)


@given(data=st.data(), n=st.integers(4, 40))
def test_difference_is_the_difference_of_the_metrics(data: st.DataObject, n: int) -> None:
    truth = (np.arange(n) < data.draw(st.integers(1, n - 1))).astype(np.intp)
    scores = [np.array(data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))) for _ in range(2)]
    one, other = (Answers((s >= 0.5).astype(np.intp), s) for s in scores)
    before, after = metrics(one, truth), metrics(other, truth)
    for name, difference in paired_differences(one, other, truth).items():
        assert difference.value == pytest.approx(after[name].value - before[name].value, abs=1e-12)  # rounding
        assert difference.n == before[name].n
