"""Hashes are the standard's, and tell apart what differs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.hashing import (
    canonical_json,
    sha256_arrays,
    sha256_bytes,
    sha256_file,
    sha256_json,
    sha256_tree,
)

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4's example
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def test_the_standards_vector(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_bytes(b"abc") == sha256_file(path) == sha256_tree(path) == ABC


def test_files_larger_than_a_chunk(tmp_path: Path) -> None:
    data = np.arange(3 * 10**6, dtype=np.uint8).tobytes()
    (tmp_path / "large").write_bytes(data)
    assert sha256_file(tmp_path / "large") == hashlib.sha256(data).hexdigest()


def test_a_tree_is_its_names_and_bytes(tmp_path: Path) -> None:
    def tree(name: str, **files: str) -> str:
        for file, text in files.items():
            path = tmp_path / name / file.replace("_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return sha256_tree(tmp_path / name)

    one = tree("one", a="1", sub_b="2")
    assert tree("same", sub_b="2", a="1") == one
    assert len({one, tree("bytes", a="1", sub_b="3"), tree("names", a="1", sub_c="2"), tree("less", a="1")}) == 4


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5))
def test_the_order_of_keys_does_not_count(value: dict[str, object]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(turned)
    assert sha256_json(value) == sha256_bytes(canonical_json(turned))


def test_nan_has_no_canonical_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": float("nan")})


def test_arrays_differ_by_name_dtype_shape_and_bytes() -> None:
    array = np.zeros((2, 3), np.float32)
    others = [
        {"x": array},
        {"y": array},
        {"x": array.astype(np.int32)},
        {"x": array.reshape(3, 2)},
        {"x": array + 1},
        {"x": array, "y": array},
    ]
    assert len({sha256_arrays(arrays) for arrays in others}) == len(others)


def test_arrays_do_not_differ_by_order_or_memory_layout() -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.arange(4)
    assert sha256_arrays({"a": a, "b": b}) == sha256_arrays({"b": b, "a": np.asfortranarray(a)})
