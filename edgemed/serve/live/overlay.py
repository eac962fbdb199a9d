"""A live channel as a picture for people: what the camera shows, what the model says of it, and how old that is.

Masks are tinted and outlined, classes named with their probability. A result older than the site allows is marked
STALE; twice as old, it is gone: nobody must take an old answer for one about what is shown now.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.lazy import require
from edgemed.imaging.results.content import Reading
from edgemed.serve.live.board import Channel, Shown

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

_LEAST_WIDTH: Final = 480  # text on less cannot be read
_MOST_WIDTH: Final = 1280
_QUALITY: Final = 80
_TINT: Final = 0.35
_COLORS: Final = ((255, 176, 0), (100, 143, 255), (220, 38, 127), (254, 97, 0), (120, 94, 240))
"""Told apart by most colour-blind people (IBM's palette)."""
_WHITE: Final = (255, 255, 255)
_ALARM: Final = (255, 80, 80)
_DIMMED: Final = 0.3
_ABOVE, _BELOW, _MOST_LINES = 2, 3, 6  # lines: the picture stays where it is while readings come and go

Color = tuple[int, int, int]
Line = tuple[str, Color]


def render(channel: Channel, *, shown: Shown | None = None, now_ns: int | None = None, with_age: bool = True) -> bytes:
    """A JPEG of what is newest.

    Args:
        channel: of a live source.
        shown: of it, where something else than the newest is meant.
        now_ns: `time.monotonic_ns`; default now.
        with_age: write the age below the picture. Who shows it beside the picture, as it grows, leaves it out.
    """
    shown = channel.shown if shown is None else shown
    now_ns = time.monotonic_ns() if now_ns is None else now_ns
    if shown is None:
        said = [(channel.name, _WHITE), (_standing(channel), _ALARM)]
        return _jpeg(_lettered(np.zeros((270, 480, 3), np.uint8), [], said, alarm=True))
    age_ns = now_ns - shown.captured_ns
    age = _age(age_ns) if with_age else ""
    stale, gone = age_ns > channel.stale_ns, age_ns > 2 * channel.stale_ns
    readings = () if gone else shown.readings
    picture = _sized(_masked(_rgb(shown.pixels), readings))
    if gone:  # the picture itself is old
        picture = (picture * _DIMMED).astype(np.uint8)
    return _jpeg(_lettered(picture, _top(readings), _bottom(channel, shown, age, stale, gone), alarm=stale))


def _top(readings: Sequence[Reading]) -> list[Line]:
    """What the model says, in the colours of the masks."""
    lines, masks = [], 0
    for reading in readings:
        if reading.labels is None:
            lines.append((_spoken(reading), _WHITE))
            continue
        named = [
            (f"{score.name} {score.value:.2f}", masks + i) for i, score in enumerate(reading.scores) if score.found
        ]
        lines += [(text, _COLORS[index % len(_COLORS)]) for text, index in named] or [(_spoken(reading), _WHITE)]
        masks += len(reading.labels)
    return lines[:_MOST_LINES]


def _bottom(channel: Channel, shown: Shown, age: str, stale: bool, gone: bool) -> list[Line]:
    said = ["STALE: NO RESULT" if gone else "STALE"] if stale else []
    said += [shown.note] if shown.note else []
    said += [_standing(channel)] if channel.state != "running" else []
    research = shown.author is not None and shown.author.research_only
    lines = [
        f"{channel.name}  frame {shown.frame}  {age}".rstrip(),
        "  ".join(said),
        "Research use only" if research else "",
    ]
    return [(text, _ALARM if stale else _WHITE) for text in lines]


def _age(age_ns: int) -> str:
    return f"{age_ns / 1e6:.0f} ms old" if age_ns < 10_000_000_000 else f"{age_ns / 1e9:.0f} s old"


def _standing(channel: Channel) -> str:
    return f"{channel.state}: {channel.reason}" if channel.reason else channel.state


def _spoken(reading: Reading) -> str:
    if reading.value is not None:
        return f"{reading.output} {reading.value:.4g} {'' if reading.unit == '1' else reading.unit}".rstrip()
    found = [score for score in reading.scores if score.found]
    if not found:
        best = max(reading.scores, key=lambda score: score.value)
        return f"nothing found ({best.name} {best.value:.2f})"
    return ", ".join(f"{score.name} {score.value:.2f}" for score in found)


def _rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    colored = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
    return np.array(colored, np.uint8)


def _masked(picture: NDArray[np.uint8], readings: Sequence[Reading]) -> NDArray[np.uint8]:
    masks = [mask for reading in readings if reading.labels is not None for mask in reading.labels]
    for index, mask in enumerate(masks):
        if mask.shape != picture.shape[:2]:  # of a clip, or on the model's own pixels
            continue
        color = np.array(_COLORS[index % len(_COLORS)], np.float32)
        picture[mask] = ((1 - _TINT) * picture[mask] + _TINT * color).astype(np.uint8)
        picture[_outline(mask)] = color.astype(np.uint8)
    return picture


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask that have a neighbour outside."""
    inside = np.pad(mask, 1)
    inner = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return mask & ~inner


def _sized(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    pil = require("PIL.Image", extra="serve", purpose="show live sources")
    rows, columns = picture.shape[:2]
    width = min(max(columns, _LEAST_WIDTH), _MOST_WIDTH)
    if width == columns:
        return picture
    how = pil.Resampling.NEAREST if width > columns else pil.Resampling.BILINEAR
    return np.asarray(pil.fromarray(picture).resize((width, max(1, rows * width // columns)), how))


def _lettered(picture: NDArray[np.uint8], top: Sequence[Line], bottom: Sequence[Line], *, alarm: bool) -> Any:
    """With a strip above and one below: nothing of the picture is covered."""
    pil = require("PIL.Image", extra="serve", purpose="show live sources")
    draw_of = require("PIL.ImageDraw", extra="serve", purpose="show live sources")
    font = require("PIL.ImageFont", extra="serve", purpose="show live sources").load_default(size=18)
    rows, columns = picture.shape[:2]
    line = 24
    above, below = line * max(_ABOVE, len(top)) + 8, line * max(_BELOW, len(bottom)) + 8
    sheet = pil.new("RGB", (columns, rows + above + below))
    sheet.paste(pil.fromarray(picture), (0, above))
    draw: ImageDraw = draw_of.Draw(sheet)
    for lines, first in ((top, 2), (bottom, above + rows + 4)):
        for index, (text, color) in enumerate(lines):
            draw.text((8, first + index * line), text, color, font)
    if alarm:
        draw.rectangle((0, 0, columns - 1, rows + above + below - 1), outline=_ALARM, width=4)
    return sheet


def _jpeg(sheet: Any) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
