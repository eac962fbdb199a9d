"""Real video files, encoded on the spot."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np


def picture(number: int, rows: int = 48, columns: int = 64) -> np.ndarray:
    """RGB of flat blocks whose grays spell the number: what survives any codec."""
    bits = [(number >> bit) & 1 for bit in range(8)]
    row = np.repeat(np.array([40 + 160 * bit for bit in bits], np.uint8), columns // 8)
    return np.repeat(np.broadcast_to(row, (rows, columns))[..., None], 3, axis=2).copy()


def number_of(pixels: np.ndarray) -> int:
    """The number that `picture` drew."""
    gray = pixels.astype(float).mean(axis=2) if pixels.ndim == 3 else pixels.astype(float)
    blocks = gray.mean(axis=0).reshape(8, -1)[:, 2:-2].mean(axis=1)
    limit = 120 if pixels.dtype == np.uint8 else 120 * 257
    return sum(int(value > limit) << bit for bit, value in enumerate(blocks))


def write(
    path: Path,
    frames: int = 12,
    codec: str = "mpeg4",
    pixel_format: str = "yuv420p",
    rate: int = 25,
    times: list[int] | None = None,
    size: tuple[int, int] = (64, 48),
) -> Path:
    """A video whose pictures are numbered; `times` are in units of 1 / rate."""
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, size[1], size[0]), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, rate)
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    return path
