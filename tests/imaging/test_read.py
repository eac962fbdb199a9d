"""Real files of every kind we read, and every way a file can lie."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from edgemed.base.errors import InputError
from edgemed.imaging.read import read_arrays, read_image
from edgemed.imaging.sources import list_samples

rng = np.random.default_rng(0)
GRAY = rng.integers(0, 256, (7, 9), dtype=np.uint8)
RGB = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
DEEP = rng.integers(0, 65536, (7, 9), dtype=np.uint16)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
def test_lossless_formats_give_back_every_pixel(tmp_path: Path, suffix: str, pixels: np.ndarray):
    path = tmp_path / f"image.{suffix}"
    Pil.fromarray(pixels).save(path)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.pixels.dtype == np.uint8
    assert image.facts.bits == 8


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path, suffix: str):
    path = tmp_path / f"image.{suffix}"
    Pil.fromarray(DEEP).save(path)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, DEEP)
    assert image.facts.bits == 16


def test_jpeg_is_close_to_what_was_stored(tmp_path: Path):
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    Pil.fromarray(smooth).save(tmp_path / "image.jpg", quality=95)
    difference = read_image(tmp_path / "image.jpg").pixels.astype(int) - smooth
    assert np.abs(difference).max() <= 4  # quantization table of quality 95 on a ramp


def test_a_palette_becomes_rgb_and_an_opaque_alpha_is_dropped(tmp_path: Path):
    Pil.fromarray(RGB).quantize(16).save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png").pixels.shape == (7, 9, 3)
    Pil.fromarray(np.dstack([RGB, np.full((7, 9), 255, np.uint8)])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, RGB)


def _png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data do not have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _saved(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Pil.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _turned() -> bytes:
    exif = Pil.Exif()
    exif[0x0112] = 6
    return _saved(RGB, "JPEG", exif=exif.tobytes())


def _translucent() -> bytes:
    return _saved(np.dstack([RGB, np.full((7, 9), 100, np.uint8)]), "PNG")


def _frames() -> bytes:
    return _saved(GRAY, "TIFF", save_all=True, append_images=[Pil.fromarray(GRAY + 1)])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"no image at all", "is not an image that is read"),
        (_saved(RGB, "PNG")[:60], "is damaged"),
        (_saved(RGB, "JPEG")[:-200], "is damaged"),
        (_png_claiming(65535, 65535), "more"),
        (_png_claiming(20000, 10), "more than allowed"),
        (_png_claiming(5, 5), "is damaged"),
        (_png_claiming(0, 5), "PNG, JPEG|no pixels|damaged"),
        (_turned(), "turned by an EXIF tag"),
        (_translucent(), "partly transparent"),
        (_frames(), "several frames"),
        (b"\0" * 128 + b"DICM" + b"\0" * 100, "DICOM"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, data: bytes, message: str):
    path = tmp_path / "image.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_image(path)
    assert "image.png" in caught.value.what
    assert caught.value.hint


def test_missing_files_and_directories(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a directory"):
        read_image(tmp_path)


def test_arrays_come_back_as_they_were(tmp_path: Path):
    np.save(tmp_path / "a.npy", DEEP)
    np.savez(tmp_path / "b.npz", image=RGB, table=np.arange(3.0))
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npy")[""], DEEP)
    arrays = read_arrays(tmp_path / "b.npz")
    assert set(arrays) == {"image", "table"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("object.npy", np.array([{}], dtype=object), "not a plain array"),
        ("nan.npy", np.array([1.0, np.nan]), "NaN or infinity"),
        ("empty.npy", np.zeros((0, 3)), "no elements"),
        ("text.npy", np.array(["a"]), "not numbers"),
        ("complex.npy", np.zeros(3, complex), "not numbers"),
    ],
)
def test_arrays_that_are_no_samples_are_refused(tmp_path: Path, name: str, content: np.ndarray, message: str):
    np.save(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        read_arrays(tmp_path / name)


def test_a_pickle_in_an_array_file_is_never_run(tmp_path: Path):
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

    np.save(tmp_path / "evil.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError):
        read_arrays(tmp_path / "evil.npy")
    assert not (tmp_path / "executed").exists()


def test_a_lying_header_fails_before_allocation(tmp_path: Path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    lie = buffer.getvalue() + b"\0" * 64
    (tmp_path / "big.npy").write_bytes(lie)
    with zipfile.ZipFile(tmp_path / "big.npz", "w") as archive:
        archive.writestr("a.npy", lie)
    for name in ("big.npy", "big.npz"):
        with pytest.raises(InputError, match=f"{name} is not a plain array file: .* claims"):
            read_arrays(tmp_path / name)


def test_archives_without_arrays_are_refused(tmp_path: Path):
    for name, members in (("empty.npz", {}), ("text.npz", {"x.npy": b"hello"})):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        with pytest.raises(InputError, match=r"holds no arrays|is not an NPY array"):
            read_arrays(tmp_path / name)


@pytest.mark.parametrize("read", [read_image, read_arrays])
def test_pipes_and_devices_are_no_files(tmp_path: Path, read):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(InputError, match=f"{name} is not a regular file"):
            read(tmp_path / name)


def test_samples_are_listed_in_order_without_hidden_files_links_and_other_kinds(tmp_path: Path):
    for name in ("b.png", "a.PNG", "sub/c.npy", ".hidden.png", ".cache/d.png", "recipe.toml", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "link.png").symlink_to(tmp_path / "b.png")
    assert [sample.name for sample in list_samples(tmp_path)] == ["a.PNG", "b.png", "sub/c.npy"]
    with pytest.raises(InputError, match="not a directory"):
        list_samples(tmp_path / "b.png")


def test_a_deep_tiff_that_stores_white_as_zero_is_refused(tmp_path: Path):
    """Pillow turns over 8 bits, and hands deeper ones on as they are: two files of one picture would differ."""
    import tifffile

    tifffile.imwrite(tmp_path / "deep.tif", DEEP, photometric="miniswhite")
    with pytest.raises(InputError, match="stores white as 0"):
        read_image(tmp_path / "deep.tif")
    tifffile.imwrite(tmp_path / "flat.tif", np.array([[0, 255]], np.uint8), photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "flat.tif").pixels, [[255, 0]])


def test_sixteen_bits_with_an_alpha_channel_are_refused_not_reduced(tmp_path: Path):
    import imagecodecs

    pixels = np.stack([DEEP, np.full_like(DEEP, 65535)], axis=-1)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    with pytest.raises(InputError, match="16 bits and an alpha channel"):
        read_image(tmp_path / "a.png")
