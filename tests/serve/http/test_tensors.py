"""Tensors on the wire: every type there and back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.serve.http.oip import tensors

NAMES = sorted(tensors.DATATYPES)


def spec(dtype: str, *shape: int | None) -> TensorSpec:
    return TensorSpec("x", dtype, shape)


@given(st.data(), st.sampled_from(NAMES))
def test_every_type_goes_there_and_back(data: st.DataObject, dtype: str) -> None:
    shape = data.draw(array_shapes(max_side=4))
    array = data.draw(
        arrays(dtype, shape, elements={"allow_nan": False, "allow_infinity": False} if "f" in dtype else {})
    )
    raw = tensors.from_raw(spec(dtype, *shape), shape, tensors.to_raw(array))
    assert raw.dtype == dtype
    assert np.array_equal(raw, array)
    if dtype != "float16":
        for values in (array.tolist(), array.ravel().tolist()):
            assert np.array_equal(tensors.from_json(spec(dtype, *shape), shape, values), array)


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        ("uint8", [256]),
        ("uint8", [-1]),
        ("uint8", [1.5]),
        ("uint8", ["1"]),
        ("uint64", [2**64]),
        ("int8", [128]),
        ("bool", [1]),
        ("float32", [1e300]),
        ("float32", ["1"]),
        ("float32", [None]),
        ("float32", [[1.0], [2.0, 3.0]]),
        ("float32", [1.0, 2.0]),
        ("float32", []),
        ("float32", 1.0),
        ("float32", {"a": 1}),
        ("float16", [1.0]),
    ],
)
def test_json_that_does_not_fit_is_refused(dtype: str, data: object) -> None:
    with pytest.raises(InputError):
        tensors.from_json(spec(dtype, 1), (1,), data)


def test_raw_bytes_must_fill_the_shape_exactly() -> None:
    for size in (0, 3, 5, 8):
        with pytest.raises(InputError, match="4 bytes"):
            tensors.from_raw(spec("float32", 1), (1,), bytes(size))
    with pytest.raises(InputError, match="neither 0 nor 1"):
        tensors.from_raw(spec("bool", 2), (2,), b"\x01\x02")


@pytest.mark.parametrize("shape", [None, 4, [-1], [True], [1.0], ["1"], [2], [1, 1], []])
def test_shapes_that_do_not_fit_are_refused(shape: object) -> None:
    with pytest.raises(InputError):
        tensors.check_declared(spec("float32", 1), "FP32", shape)


def test_a_batch_may_vary_where_the_model_says_so() -> None:
    assert tensors.check_declared(spec("float32", None, 4), "FP32", [3, 4]) == (3, 4)
    assert tensors.shown(spec("float32", None, 4)) == [-1, 4]


def test_a_misaligned_view_is_read_rightly() -> None:
    data = b"x" + np.arange(6, dtype="<f4").tobytes()
    assert tensors.from_raw(spec("float32", 6), (6,), memoryview(data)[1:]).tolist() == [0, 1, 2, 3, 4, 5]
