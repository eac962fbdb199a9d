"""Drawing on pictures: masks as tint and outline, heat, and a strip of words below, so that nothing is hidden."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

RGB = tuple[int, int, int]
# Okabe and Ito's colours, told apart by colour-blind eyes, on gray too (jfly.uni-koeln.de/color)
COLORS: Final[tuple[RGB, ...]] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)
WARNING: Final[RGB] = (255, 80, 80)
PLAIN: Final[RGB] = (235, 235, 235)
_TINT: Final = 0.25
_HEAT: Final = 0.6  # of what is under it, hidden at most
_MARGIN: Final = 8


@dataclass(frozen=True)
class Line:
    """Words of the strip."""

    text: str
    color: RGB = PLAIN


def color_of(label: int) -> RGB:
    """Of a class."""
    return COLORS[label % len(COLORS)]


def tint(picture: NDArray[np.uint8], mask: NDArray[np.bool_], color: RGB) -> None:
    """Tint what lies inside, and draw its outline, two pixels wide."""
    from scipy.ndimage import binary_erosion

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside, part = mask[box], picture[box]
    paint = np.array(color, np.float32)
    part[inside] = (part[inside] * (1 - _TINT) + paint * _TINT).astype(np.uint8)
    part[inside & ~binary_erosion(inside, iterations=2)] = color


def warm(picture: NDArray[np.uint8], heat: NDArray[np.float32]) -> None:
    """Lay heat over it: the hotter, the more red to yellow, and the less of the picture."""
    share = (np.clip(heat, 0, 1) * _HEAT)[..., None].astype(np.float32)
    glow = np.stack([np.full_like(heat, 255), 255 * np.clip(heat, 0, 1) ** 2, np.zeros_like(heat)], axis=-1)
    picture[:] = (picture * (1 - share) + glow * share).astype(np.uint8)


def writable(text: str) -> str:
    """With the letters that Pillow's own font has, which are ASCII: accents fall off, other scripts become `?`."""
    taken_apart = unicodedata.normalize("NFKD", text)
    return "".join(c if c.isascii() else "?" for c in taken_apart if not unicodedata.combining(c))


class Strip:
    """A band of words, of one width and height for all frames of a capture."""

    def __init__(self, width: int, size: int, every: Sequence[Sequence[Line]]) -> None:
        from PIL import ImageFont

        self._width = width
        self._font: FreeTypeFont = ImageFont.load_default(size=size)  # type: ignore[assignment]
        self._step = size + size // 3
        most = max((len(self._wrapped(lines)) for lines in every), default=0)
        height = most * self._step + 2 * _MARGIN
        self.height = height + height % 2

    def draw(self, lines: Sequence[Line]) -> NDArray[np.uint8]:
        """`(height, width, 3)`, light on black."""
        from PIL import Image, ImageDraw

        band = Image.new("RGB", (self._width, self.height))
        pen = ImageDraw.Draw(band)
        for number, line in enumerate(self._wrapped(lines)):
            pen.text((_MARGIN, _MARGIN + number * self._step), line.text, fill=line.color, font=self._font)
        return np.asarray(band)

    def _wrapped(self, lines: Sequence[Line]) -> list[Line]:
        return [Line(part, line.color) for line in lines for part in self._parts(writable(line.text))]

    def _parts(self, text: str) -> list[str]:
        """Broken between words, and inside a word only where it is longer than a line."""
        room = self._width - 2 * _MARGIN
        parts, rest = [], text
        while rest:
            end = len(rest)
            while end > 1 and self._font.getlength(rest[:end]) > room:
                end = rest.rfind(" ", 0, end) if " " in rest[:end].rstrip() and rest.rfind(" ", 0, end) > 0 else end - 1
            parts.append(rest[:end].rstrip())
            rest = rest[end:].lstrip()
        return parts
