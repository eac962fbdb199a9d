"""Shared memory: both sides see the same arrays, and the worker's side can neither resize it nor write to inputs."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.runtime.contained.protocol import ProtocolError
from edgemed.runtime.contained.shared import (
    HEADER,
    Layout,
    Slots,
    create,
    forbid_writing,
    pack_shapes,
    unpack_shapes,
)

SPECS = (TensorSpec("a", "uint8", (3,)), TensorSpec("b", "float64", (None, 5)), TensorSpec("c", "bool", ()))
LAYOUT = Layout.of(SPECS, {"b": (4, 5)}, 3, HEADER)


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = create("test", LAYOUT.size)
    yield descriptor
    os.close(descriptor)


def test_both_sides_see_the_same_and_no_two_tensors_overlap(memory: int) -> None:
    ours, theirs = Slots(memory, LAYOUT, write=True), Slots(memory, LAYOUT, write=False)
    for slot in range(3):
        for place, array in enumerate(ours.arrays(slot).values()):
            array[...] = slot + place
    ours.steps[0] = 7
    for slot in range(3):
        for place, array in enumerate(theirs.arrays(slot).values()):
            assert (array == (slot + place if array.dtype != bool else bool(slot + place))).all()
            assert not array.flags.writeable
            assert array.ctypes.data % 64 == 0
    assert theirs.steps[0] == 7


def test_a_shape_is_kept_until_another_is_asked_for(memory: int) -> None:
    slots = Slots(memory, LAYOUT, write=True)
    assert slots.arrays(0)["b"].shape == (4, 5)
    assert slots.arrays(0, {"b": (2, 5)})["b"].shape == (2, 5)
    assert slots.arrays(0)["b"].shape == (2, 5)
    assert slots.arrays(1)["b"].shape == (4, 5)
    for shape in ((5, 5), (4, 4), (4,), (-1, 5)):
        with pytest.raises(InputError, match="b float64"):
            slots.arrays(0, {"b": shape})
    with pytest.raises(InputError, match="no tensor d"):
        slots.arrays(0, {"d": (1,)})


def test_nobody_can_resize_it_nor_write_to_what_is_sealed(memory: int) -> None:
    ours = Slots(memory, LAYOUT, write=True)
    for size in (LAYOUT.size // 2, LAYOUT.size * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(memory, size)
    mmap.mmap(memory, LAYOUT.size).close()
    if not forbid_writing(memory):
        pytest.skip("this kernel is older than Linux 5.1")
    with pytest.raises(PermissionError):
        mmap.mmap(memory, LAYOUT.size)
    with pytest.raises(PermissionError):
        os.pwrite(memory, b"x", 0)
    ours.arrays(0)["a"][:] = 9  # whoever had mapped it before still writes
    assert (Slots(memory, LAYOUT, write=False).arrays(0)["a"] == 9).all()


def test_memory_of_another_size_is_refused(memory: int) -> None:
    with pytest.raises(ProtocolError):
        Slots(memory, Layout.of(SPECS, {"b": (4, 5)}, 9), write=True)


@pytest.mark.parametrize(
    ("spec", "greatest", "words"),
    [
        (TensorSpec("x", "float32", (None,)), {}, "greatest shape of x"),
        (TensorSpec("x", "float32", (None, 3)), {"x": (2, 4)}, "never have the shape"),
        (TensorSpec("x", "object", (1,)), {}, "cannot be shared"),
        (TensorSpec("x", "float32", (1 << 20, 1 << 20)), {}, "GiB"),
    ],
)
def test_what_has_no_size_is_refused(spec: TensorSpec, greatest: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Layout.of((spec,), greatest, 1)


@given(st.integers(0, 4))
def test_shapes_read_back_equal(batch: int) -> None:
    shapes = {"a": (3,), "b": (batch, 5), "c": ()}
    assert unpack_shapes(LAYOUT, pack_shapes(LAYOUT, shapes) + b"rest") == (shapes, b"rest")


@given(st.binary(max_size=20))
def test_other_bytes_are_no_shapes(body: bytes) -> None:
    try:
        shapes, rest = unpack_shapes(LAYOUT, body)
    except ProtocolError:
        return
    assert shapes is not None
    assert all(area.admits(shapes[area.spec.name]) for area in LAYOUT.areas)
    assert pack_shapes(LAYOUT, shapes) + rest == body
