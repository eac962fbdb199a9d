"""Comments go, the image stays."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import PIL.Image
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless

from edgemed.imaging.deid.deidentify import deidentify
from edgemed.imaging.deid.stream import COMMENTS, TAILS, WRAPPERS, stripped

IMAGE = np.random.default_rng(0).integers(0, 255, (16, 24), dtype=np.uint8)
NAME = b"Miller^Jane"


def with_comment(data: bytes, marker: int, at: int = 2) -> bytes:
    return data[:at] + bytes((0xFF, marker)) + (len(NAME) + 2).to_bytes(2, "big") + NAME + data[at:]


@pytest.mark.parametrize("marker", [0xFE, 0xE1, 0xED, 0xE0])
def test_jpeg(marker: int) -> None:
    frame = imagecodecs.jpeg8_encode(IMAGE)
    clean, count = stripped(with_comment(frame, marker))
    assert (clean, count) == (frame, {COMMENTS: 1})


def test_jpeg_ls_and_2000() -> None:
    frame = imagecodecs.jpegls_encode(IMAGE)
    clean, count = stripped(with_comment(frame, 0xFE))
    assert (count, NAME in clean) == ({COMMENTS: 3}, False), "CharLS writes two SPIFF segments itself"
    assert np.array_equal(imagecodecs.jpegls_decode(clean), IMAGE)
    frame = imagecodecs.jpeg2k_encode(IMAGE, level=0, codecformat="j2k", reversible=True)
    size = int.from_bytes(frame[4:6], "big")
    clean, count = stripped(with_comment(frame, 0x64, at=4 + size))  # SIZ comes first
    assert count[COMMENTS] >= 1, "openjpeg writes one itself"
    assert NAME not in clean
    assert np.array_equal(imagecodecs.jpeg2k_decode(clean), IMAGE)


CODECS = {
    "jpeg": (imagecodecs.jpeg8_encode, imagecodecs.jpeg8_decode),
    "progressive": (lambda image: progressive(image), imagecodecs.jpeg8_decode),
    "jpeg-ls": (imagecodecs.jpegls_encode, imagecodecs.jpegls_decode),
    "2000": (lambda image: imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k"), imagecodecs.jpeg2k_decode),
}


def progressive(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", progressive=True)
    return buffer.getvalue()


@pytest.mark.parametrize("tail", [NAME, b"\0" + NAME + b"\xff\xd9", b"\xff\xd9" + NAME])
@pytest.mark.parametrize("codec", CODECS)
def test_nothing_is_left_behind_the_end(codec: str, tail: bytes) -> None:
    encode, decode = CODECS[codec]
    frame, _ = stripped(encode(IMAGE))
    assert stripped(frame + b"\0") == (frame + b"\0", {}), "a pad is no text"
    assert stripped(frame + tail) == (frame, {TAILS: 1})
    assert np.array_equal(decode(frame), decode(encode(IMAGE)))


def test_comments_between_the_scans_of_a_jpeg() -> None:
    frame = progressive(IMAGE)
    second = frame.index(b"\xff\xda", frame.index(b"\xff\xda") + 2)
    clean, count = stripped(with_comment(frame, 0xFE, second))
    assert (clean, count) == (stripped(frame)[0], {COMMENTS: 1})


@pytest.mark.parametrize("told", [True, False])
def test_comments_in_tile_parts(told: bool) -> None:
    plain, _ = stripped(imagecodecs.jpeg2k_encode(IMAGE, level=0, codecformat="j2k", reversible=True))
    tile = plain.index(b"\xff\x90")
    length = int.from_bytes(plain[tile + 6 : tile + 10], "big")
    assert length
    dirty = with_comment(plain, 0x64, tile + 12)
    grown = (length + len(dirty) - len(plain)).to_bytes(4, "big") if told else b"\0" * 4
    dirty = dirty[: tile + 6] + grown + dirty[tile + 10 :]
    lengths = b"\xff\x55\0\x08\0\x40" + grown  # TLM with tile-parts in order (T.800 A.7.1)
    dirty = dirty[:tile] + lengths + dirty[tile:]
    clean, count = stripped(dirty)
    assert count == {COMMENTS: 1}
    assert clean == (plain if told else plain[: tile + 6] + b"\0" * 4 + plain[tile + 10 :])
    assert np.array_equal(imagecodecs.jpeg2k_decode(clean), IMAGE)


def test_boxes_go() -> None:
    boxed = imagecodecs.jpeg2k_encode(IMAGE, level=0, codecformat="jp2", reversible=True)
    at = boxed.index(b"jp2c") - 4
    box = (len(NAME) + 8).to_bytes(4, "big") + b"xml " + NAME
    clean, count = stripped(boxed[:at] + box + boxed[at:] + box)
    assert count[WRAPPERS] == 1
    assert NAME not in clean
    assert clean.startswith(b"\xff\x4f")
    assert np.array_equal(imagecodecs.jpeg2k_decode(clean), IMAGE)


def test_what_decides_colours_stays() -> None:
    data = imagecodecs.jpeg8_encode(np.stack([IMAGE] * 3, axis=-1))
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01"
    data = data[:2] + adobe + data[2:]
    clean, _ = stripped(data)
    assert adobe in clean
    assert np.array_equal(imagecodecs.jpeg8_decode(clean), imagecodecs.jpeg8_decode(data))


JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
TILE = b"\xff\x4f\xff\x51\0\x02\xff\x90\0\x0a"


@given(st.binary(max_size=200), st.sampled_from((b"\xff\xd8", b"\xff\x4f\xff\x51", JP2, TILE, b"")))
def test_any_bytes_end_and_never_grow(data: bytes, start: bytes) -> None:
    clean, count = stripped(start + data)
    assert len(clean) <= len(start + data)
    assert count or clean == start + data


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless])
def test_in_a_file_with_frames(syntax: pydicom.uid.UID) -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    encode = {
        JPEGBaseline8Bit: imagecodecs.jpeg8_encode,
        JPEGLSLossless: imagecodecs.jpegls_encode,
        JPEG2000Lossless: lambda image: imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k"),
    }[syntax]
    frames = [encode(IMAGE), encode(IMAGE // 2)]
    tail = int.from_bytes(frames[0][4:6], "big") + 4 if syntax == JPEG2000Lossless else 2
    marker = 0x64 if syntax == JPEG2000Lossless else 0xFE
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = *IMAGE.shape, 2
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = encapsulate([with_comment(frame, marker, tail) for frame in frames])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    cleaned, report = deidentify(dataset)
    assert "comments taken out" in report.pixels
    assert NAME not in cleaned.PixelData
    assert NAME in dataset.PixelData, "the source was changed"
    found = list(generate_frames(cleaned.PixelData, number_of_frames=2))
    assert [bytes(frame)[:100] for frame in found] == [stripped(frame)[0][:100] for frame in frames]
