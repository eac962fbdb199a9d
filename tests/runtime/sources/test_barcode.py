"""Marks: drawn, scaled, compressed, filmed, and read back; never read wrongly."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from edgemed.base.errors import InputError
from edgemed.runtime.sources.barcode import Mark, draw, least_size, read
from edgemed.runtime.sources.video import VideoSource


def noise(rows: int, columns: int, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)


@given(number=st.integers(0, 2**32 - 1), time_ns=st.integers(0, 2**63 - 1), block=st.integers(4, 9))
def test_any_number_and_time_come_back(number: int, time_ns: int, block: int) -> None:
    picture = noise(120, 200, seed=number % 7)
    draw(picture, number=number, time_ns=time_ns, block=block)
    assert read(picture) == Mark(number, time_ns)


@pytest.mark.parametrize(
    ("dtype", "channels"), [("uint8", 0), ("uint8", 3), ("uint16", 0), ("float32", 0), ("int16", 0)]
)
def test_every_kind_of_pixels_can_carry_one(dtype: str, channels: int) -> None:
    picture = np.zeros((100, 160, *([channels] if channels else [])), dtype)
    draw(picture, number=5, time_ns=123_456_789_012_345)
    assert read(picture) == Mark(5, 123_456_789_012_345)


def changed(picture: NDArray[np.uint8], how: str) -> NDArray[np.uint8]:
    """What lies between a screen and a model."""
    image = Image.fromarray(picture)
    if how == "half":
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR)
    elif how == "larger":
        image = image.resize((int(image.width * 1.7), int(image.height * 1.6)), Image.Resampling.BICUBIC)
    elif how == "blurred":
        image = image.filter(ImageFilter.GaussianBlur(2))
    elif how == "jpeg":
        out = io.BytesIO()
        image.save(out, "JPEG", quality=30)
        image = Image.open(out)
    elif how == "dim":
        image = image.point(lambda value: 60 + value // 4)
    elif how == "gray":
        image = image.convert("L")
    elif how == "filmed":  # in a larger, noisy picture, off the corner
        scene = Image.fromarray(noise(600, 800) // 3 + 60)
        scene.paste(image, (111, 87))
        image = scene
    return np.asarray(image)


@pytest.mark.parametrize("how", ["half", "larger", "blurred", "jpeg", "dim", "gray", "filmed"])
def test_a_mark_survives_what_lies_between(how: str) -> None:
    for number in range(20):
        picture = noise(240, 320, seed=number)
        draw(picture, number=number, time_ns=10**15 + number)
        assert read(changed(picture, how)) == Mark(number, 10**15 + number), number


def test_what_is_damaged_or_absent_is_not_read() -> None:
    rng = np.random.default_rng(3)
    assert read(np.zeros((50, 80), np.uint8)) is None
    assert read(np.zeros((0, 80), np.uint8)) is None
    assert read(noise(300, 300)) is None
    for _ in range(50):
        picture = np.zeros((120, 200), np.uint8)
        draw(picture, number=9, time_ns=9, block=8)
        row, column = rng.integers(2, 9), rng.integers(2, 17)
        block = picture[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        block[...] = 255 - block
        assert read(picture) is None


def test_a_mark_that_cannot_be_drawn_is_refused() -> None:
    rows, columns = least_size()
    draw(np.zeros((rows, columns), np.uint8), number=0, time_ns=0)
    with pytest.raises(InputError, match="no room"):
        draw(np.zeros((rows - 1, columns), np.uint8), number=0, time_ns=0)
    with pytest.raises(InputError, match="time"):
        draw(np.zeros((200, 200), np.uint8), number=0, time_ns=-1)


def test_frames_of_a_video_tell_their_own_age(tmp_path: Path) -> None:
    """Drawn, encoded as H.264, decoded: what a loop through a grabber measures, without its hardware."""
    import av

    drawn: dict[int, int] = {}
    with av.open(str(tmp_path / "marks.mp4"), "w") as file:
        stream: Any = file.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(12):
            picture = noise(240, 320, seed=number)
            drawn[number] = time.monotonic_ns()
            draw(picture, number=number, time_ns=drawn[number])
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    with VideoSource(tmp_path / "marks.mp4") as source:
        marks = [read(frame.data["pixels"]) for frame in source]
    assert marks == [Mark(number, time_ns) for number, time_ns in drawn.items()]
