"""Golden vectors: what passes, what does not, and NaN never does."""

from __future__ import annotations

import io

import numpy as np
import pytest

from edgemed.base.errors import IntegrityError
from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.runners.golden import Golden, check_golden
from edgemed.runners.null import NullRunner

SPECS = RunnerSpecs((TensorSpec("a/x", "float32", (1, 2)),), (TensorSpec("y:0", "float32", (1, 2)),))
INPUTS = {"a/x": np.arange(6, dtype=np.float32).reshape(3, 1, 2)}
GOLDEN = Golden(INPUTS, {"fp32": {"y:0": 2 * INPUTS["a/x"]}, "int8": {"y:0": 2 * INPUTS["a/x"] + 0.1}})


def check(offset: float, precision: str = "fp32", tolerance: float = 0.01):
    runner = NullRunner(SPECS, lambda feeds: {"y:0": 2 * feeds["a/x"] + np.float32(offset)})
    return check_golden(runner, GOLDEN, {"y:0": tolerance}, precision)


def test_the_archive_reads_back_equal():
    back = Golden.from_bytes(GOLDEN.to_bytes())
    assert back.samples == 3
    np.testing.assert_array_equal(back.inputs["a/x"], INPUTS["a/x"])
    np.testing.assert_array_equal(back.outputs["int8"]["y:0"], GOLDEN.outputs["int8"]["y:0"])
    assert GOLDEN.to_bytes() == GOLDEN.to_bytes()


def test_right_answers_pass_and_wrong_ones_say_by_how_much():
    assert check(0.0).passed
    assert check(0.005).passed
    wrong = check(0.5)
    assert not wrong.passed
    assert wrong.outputs[0].difference == pytest.approx(0.5)


def test_each_precision_has_its_own_answers():
    assert check(0.1, "int8").passed
    assert not check(0.0, "int8").passed


def test_nan_is_never_right():
    assert not check(float("nan"), tolerance=1e30).passed


def test_another_shape_is_never_right():
    runner = NullRunner(SPECS, lambda feeds: {"y:0": feeds["a/x"][0]})
    assert not check_golden(runner, GOLDEN, {"y:0": 1e30}, "fp32").passed


@pytest.mark.parametrize("data", [b"", b"junk", GOLDEN.to_bytes()[:50]])
def test_damaged_archives_are_refused(data):
    with pytest.raises(IntegrityError, match="golden vectors"):
        Golden.from_bytes(data)


def test_an_unknown_precision_or_output_is_refused():
    runner = NullRunner(SPECS, lambda feeds: {"y:0": feeds["a/x"]})
    for tolerance, precision in (({"y:0": 1.0}, "fp16"), ({"z": 1.0}, "fp32")):
        with pytest.raises(IntegrityError, match="no outputs for"):
            check_golden(runner, GOLDEN, tolerance, precision)


def archive(**members: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name.replace("__", "/"): array for name, array in members.items()})
    return buffer.getvalue()


FOUR = np.zeros((4, 1, 2), np.float32)
PLAIN = RunnerSpecs((TensorSpec("x", "float32", (1, 2)),), (TensorSpec("y", "float32", (None, 2)),))


def test_vectors_that_fit_the_model_are_read():
    data = archive(input__x=FOUR, output__fp32__y=FOUR)
    assert Golden.from_bytes(data, PLAIN).samples == 4


@pytest.mark.parametrize(
    "members",
    [
        {"input__x": FOUR[:0], "output__fp32__y": FOUR[:0]},
        {"input__x": FOUR, "output__fp32__y": FOUR[:3]},
        {"input__x": np.float32(1), "output__fp32__y": np.float32(1)},
        {"input__x": FOUR, "output__fp32__y": FOUR.astype("U9")},
        {"input__x": FOUR},
        {"output__fp32__y": FOUR},
        {"input__x": FOUR, "output__y": FOUR},
        {"input__x": FOUR, "output__fp32__y": FOUR, "more": FOUR},
    ],
)
def test_vectors_that_check_nothing_are_refused(members):
    with pytest.raises(IntegrityError, match="golden vectors cannot be read"):
        Golden.from_bytes(archive(**members))


@pytest.mark.parametrize(
    "members",
    [
        {"input__x": FOUR.astype(np.float64), "output__fp32__y": FOUR},
        {"input__x": FOUR.astype(">f4"), "output__fp32__y": FOUR},
        {"input__x": FOUR[..., :1], "output__fp32__y": FOUR},
        {"input__x": FOUR, "input__z": FOUR, "output__fp32__y": FOUR},
        {"input__z": FOUR, "output__fp32__y": FOUR},
        {"input__x": FOUR, "output__fp32__z": FOUR},
        {"input__x": FOUR, "output__fp32__y": FOUR, "output__int8__z": FOUR},
    ],
)
def test_vectors_of_another_model_are_refused(members):
    Golden.from_bytes(archive(**members))
    with pytest.raises(IntegrityError, match="golden vectors cannot be read"):
        Golden.from_bytes(archive(**members), PLAIN)
