"""The contact sheet is a PNG with room for every step, whatever the pixels are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from edgemed.report.sheet import Panel, contact_sheet

RNG = np.random.default_rng(0)


def drawn(*panels: Panel, heading: str = "recipe") -> np.ndarray:
    with Image.open(io.BytesIO(contact_sheet(panels, heading))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def panel(pixels: np.ndarray, note: str = "") -> Panel:
    return Panel("window", note, "float32", pixels)


def test_every_step_has_its_place():
    one, three = (drawn(*[panel(RNG.random((20, 30)))] * count) for count in (1, 3))
    assert one.shape[1] == three.shape[1]
    assert three.shape[0] > 1.7 * one.shape[0]


def test_pixels_are_shown_from_their_least_to_their_greatest():
    """A dark left and a bright right half, whatever the unit: black and white areas of equal size."""
    pixels = np.zeros((100, 100), np.float32)
    pixels[:, 50:] = 1e-6
    sheet = drawn(panel(pixels))
    picture = sheet[: sheet.shape[0] // 2, : sheet.shape[1] // 3]
    black, white = (picture == 0).all(axis=2).sum(), (picture == 255).all(axis=2).sum()
    assert black > 1000
    assert white > black  # the page is white too


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((10, 10), np.uint8),
        RNG.integers(0, 256, (10, 12, 3), dtype=np.uint8),
        RNG.random((3, 4000), dtype=np.float32),
        np.full((1, 1), -1e6, np.float32),
        RNG.normal(0, 1, (64, 64)).astype(np.float32),
        RNG.integers(-1000, 3000, (32, 32), dtype=np.int16),
    ],
    ids=lambda pixels: f"{pixels.dtype}-{pixels.shape}",
)
def test_all_kinds_of_pixels_are_drawn(pixels: np.ndarray):
    assert drawn(panel(pixels)).std() > 0


def test_words_are_shown_as_they_are():
    hostile = "$\\frac{1}{$ \x1b[2J \u202e" + "x" * 500
    drawn(panel(np.zeros((4, 4)), hostile), heading=hostile)
