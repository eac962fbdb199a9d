"""Array files that lie are refused before anything is allocated."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgemed.base.arrays import ArrayFileError, read_npy, read_npz, write_npz

LIMIT = 1 << 20


def npy(array: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00v\x00" + text.ljust(117) + b"\n"


def npz(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def load(data: bytes, limit: int = LIMIT) -> np.ndarray:
    return read_npy(io.BytesIO(data), len(data), limit=limit)


def load_npz(data: bytes, limit: int = LIMIT) -> dict[str, np.ndarray]:
    return read_npz(io.BytesIO(data), limit=limit)


ARRAYS = hnp.arrays(
    hnp.integer_dtypes() | hnp.unsigned_integer_dtypes() | hnp.boolean_dtypes() | hnp.floating_dtypes(sizes=(16, 32)),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@given(ARRAYS, st.booleans())
def test_what_numpy_saves_is_read_back(array: np.ndarray, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    for back in (load(npy(array)), load_npz(npz({"a.npy": npy(array)}))["a"]):
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


BAD = {
    "text": b"hello",
    "nothing": b"",
    "objects": npy(np.array([{}], dtype=object), allow_pickle=True),
    "strings": npy(np.array(["a"])),
    "dates": npy(np.zeros(2, "M8[s]")),
    "records": npy(np.zeros(2, [("a", "f4")])),
    "complex": npy(np.zeros(2, complex)),
    "subarrays": header("(2,)", "('<f4', (2,))") + bytes(16),
    "claims 400 GB": header("(100000, 1000000)") + bytes(4),
    "claims less": header("(1,)") + bytes(8),
    "negative": header("(-1, -1)") + bytes(4),
    "beyond integers": header("(1" + "0" * 30 + ", 1)"),
    "no end": header("(" * 60),
    "version 9": b"\x93NUMPY\x09\x00" + header("(1,)")[8:] + bytes(4),
    "long header": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{" + b" " * 20_000,
    "Python 2": header("(1L,)") + bytes(4),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_no_plain_array_is_refused(data: bytes) -> None:
    with pytest.raises(ArrayFileError):
        load(data)
    with pytest.raises(ArrayFileError):
        load_npz(npz({"good.npy": npy(np.zeros(3)), "bad.npy": data}))


def test_the_limit_holds_for_all_arrays_together() -> None:
    data = npz({f"{i}.npy": npy(np.zeros(100, np.float32)) for i in range(4)})
    assert len(load_npz(data, limit=1600)) == 4
    with pytest.raises(ArrayFileError, match="unpacks to"):
        load_npz(data, limit=1599)
    with pytest.raises(ArrayFileError, match="unpacks to"):
        load(npy(np.zeros(100, np.float32)), limit=399)


def test_a_bomb_is_never_inflated() -> None:
    floats = 8 << 20
    data = npz({"a.npy": header(f"({floats},)") + bytes(4 * floats)})
    assert len(data) < floats // 100
    tracemalloc.start()
    try:
        with pytest.raises(ArrayFileError, match="unpacks to"):
            load_npz(data)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_archives_that_are_none() -> None:
    good = npz({"a.npy": npy(np.arange(1000))})
    flipped = bytearray(good)
    flipped[60] ^= 1
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("a.npy", npy(np.zeros(1)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", npy(np.zeros(1)))
    cases = [b"", b"PK", npz({}), good[:-30], bytes(flipped), twice.getvalue()]
    cases.append(npz({"a.npy": npy(np.zeros(1))}, zipfile.ZIP_LZMA))
    for data in cases:
        with pytest.raises(ArrayFileError):
            load_npz(data)


@given(st.data())
def test_no_flipped_byte_escapes_the_error(data: st.DataObject) -> None:
    raw = bytearray(npz({"a.npy": npy(np.arange(30.0)), "b.npy": npy(np.ones((2, 2), np.float32))}))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ArrayFileError):
        load_npz(bytes(raw))


NAMES = st.sampled_from(
    ("file", "args", "kwds", "compress", "allow_pickle", "self", "a/b", "x.npy", "größe")
) | st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=9)


@given(
    st.dictionaries(
        NAMES,
        hnp.arrays(np.float32, hnp.array_shapes(max_side=3), elements=st.floats(width=32, allow_nan=False)),
        min_size=1,
    ),
    st.booleans(),
)
def test_arrays_of_any_name_come_back(arrays: dict[str, np.ndarray], compressed: bool) -> None:
    data = write_npz(arrays, compressed=compressed)
    assert write_npz(arrays, compressed=compressed) == data
    read = read_npz(io.BytesIO(data), limit=LIMIT)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
