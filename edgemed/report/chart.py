"""Line charts as SVG by hand: no plotting library is needed where a board writes its own report.

Colours are the page's variables, so charts follow light, dark and print. They are attributes, not styles: a content
security policy need not allow any. Sizes are pixels at full width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.report.markup import Html, escape, fill, join
from edgemed.report.units import digits

WIDTH: Final = 760
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 18, 40
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_CHARACTER = 6.2  # width of a character of a label, in pixels

Values = NDArray[Any]
Format = Callable[[float], str]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value <= -1000 else f"{value:.4g}"


@dataclass(frozen=True)
class Axis:
    """What one side of a chart spans, in the unit of the data.

    Attributes:
        low, high: ends; `low` is above 0 on a logarithmic axis.
        label: name and unit.
        log: logarithmic.
        text: how a tick is written.
        ticks: values that are marked; empty: round ones are chosen.
    """

    low: float
    high: float
    label: str
    log: bool = False
    text: Format = _number
    ticks: tuple[float, ...] = ()

    def place(self, values: Values | float) -> Values:
        """Shares of the axis, 0 at `low`; clipped a little outside of it."""
        values = np.asarray(values, dtype=np.float64)
        low, high = self.low, self.high
        if self.log:
            values, low, high = np.log10(np.maximum(values, low / 10)), math.log10(low), math.log10(high)
        span = high - low or 1.0
        placed: Values = np.clip((values - low) / span, -0.05, 1.05)
        return placed

    def marks(self, most: int) -> tuple[float, ...]:
        """Values to mark, about `most`."""
        return self.ticks or (_log_marks(self.low, self.high, most) if self.log else _marks(self.low, self.high, most))


def _marks(low: float, high: float, most: int) -> tuple[float, ...]:
    if not high > low:
        return (low,)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return tuple(i * step for i in range(first, math.floor(high / step + 1e-9) + 1))


def _log_marks(low: float, high: float, most: int) -> tuple[float, ...]:
    """Powers of ten; where they are few, 2 and 5 too; where those are few, round steps."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = tuple(10.0**d for d in decades if low <= 10.0**d <= high)
    if len(tens) >= 3:
        return tens[:: -(-len(tens) // (most + 1))]
    fives = tuple(f * 10.0**d for d in decades for f in (1, 2, 5) if low <= f * 10.0**d <= high)
    return fives if len(fives) >= 3 else _marks(low, high, most)


class Chart:
    """Draws into a frame; `render` gives the SVG.

    Args:
        x, y: the axes.
        height: of the whole picture.
        width: of the whole picture; the page scales it to the room there is.
    """

    def __init__(self, x: Axis, y: Axis, height: int = 260, width: int = WIDTH) -> None:
        self._x, self._y, self._height, self._width = x, y, height, width
        self._parts: list[Html] = []
        self._notes: list[tuple[float, float, str, str, str]] = []
        self._tags: list[tuple[float, float, int]] = []  # labels at the top: from, to, row

    def _across(self, values: Values | float) -> Values:
        return _LEFT + self._x.place(values) * (self._width - _LEFT - _RIGHT)

    def _up(self, values: Values | float) -> Values:
        return self._height - _BOTTOM - self._y.place(values) * (self._height - _TOP - _BOTTOM)

    def line(self, xs: Values, ys: Values, color: str = "accent", width: float = 1.6, *, steps: bool = False) -> None:
        """A line through points; where y is not a number, it is broken."""
        path = _line(self._across(xs), self._up(ys), np.isfinite(np.asarray(ys, dtype=np.float64)), steps=steps)
        self._path(path, f'{_outline(color, width)} stroke-linejoin="round"')

    def spans(self, xs: Values, lows: Values, highs: Values, color: str = "bars", width: float = 1.2) -> None:
        """Upright strokes from `lows` to `highs`: the extremes of what was merged into each."""
        across, low, high = self._across(xs), self._up(lows), self._up(highs)
        flat = np.abs(high - low) < 1
        high = np.where(flat, low - 1, high)
        path = "".join(f"M{x:.1f} {a:.1f}V{b:.1f}" for x, a, b in _rows(across, low, high))
        self._path(path, _outline(color, width))

    def bars(self, edges: Values, heights: Values, color: str = "bars") -> None:
        """Filled steps from the bottom: `edges` has one value more than `heights`."""
        across, tops, base = self._across(edges), self._up(heights), self._height - _BOTTOM
        tops = np.where(np.asarray(heights) > 0, tops, base)
        steps = "".join(f"V{top:.1f}H{right:.1f}" for top, right in _rows(np.minimum(tops, base), across[1:]))
        self._path(f"M{across[0]:.1f} {base}{steps}V{base}Z", f'fill="var(--{color})"')

    def dots(self, xs: Values, ys: Values, color: str = "clip", radius: float = 2.2) -> None:
        """Points."""
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in _rows(self._across(xs), self._up(ys)))
        self._path(path, f'{_outline(color, round(2 * radius, 1))} stroke-linecap="round"')

    def shade(self, start: float, end: float, color: str = "clip") -> None:
        """A stretch of the x axis."""
        left, right = (float(self._across(value)) for value in (start, end))
        base = self._height - _BOTTOM
        self._path(
            f"M{left:.1f} {_TOP}H{max(right, left + 1):.1f}V{base}H{left:.1f}Z",
            f'fill="var(--{color})" fill-opacity=".13"',
        )

    def rule_x(self, value: float, label: str, color: str = "ink") -> None:
        """An upright line with a label, below those it would cover; nothing where the axis does not reach."""
        if not 0 <= float(self._x.place(value)) <= 1:
            return
        at = float(self._across(value))
        self._path(f"M{at:.1f} {_TOP}V{self._height - _BOTTOM}", _rule(color))
        long = len(label) * _CHARACTER + 5
        right = at + long > self._width - _RIGHT
        ends = (at - long, at) if right else (at, at + long)
        row = next(r for r in range(99) if not any(r == q and ends[0] < z and a < ends[1] for a, z, q in self._tags))
        self._tags.append((*ends, row))
        place = at - 5 if right else at + 5
        self._notes.append((place, _TOP + 9 + 14 * row, label, "end" if right else "start", color))

    def rule_y(self, value: float, label: str, color: str = "ink") -> None:
        """A level line with a label at its right end."""
        if not 0 <= float(self._y.place(value)) <= 1:
            return
        at = float(self._up(value))
        self._path(f"M{_LEFT} {at:.1f}H{self._width - _RIGHT}", _rule(color))
        above = at - 5 if at > _TOP + 14 else at + 13
        self._notes.append((self._width - _RIGHT - 2, above, label, "end", color))

    def render(self, label: str) -> Html:
        """The SVG. `label` says in words what it shows."""
        return fill(
            '<svg class="{kind}" role="img" aria-label="{label}" viewBox="0 0 {width} {height}" '
            'font-size="11" font-family="system-ui,sans-serif">{frame}{parts}{notes}</svg>',
            kind="wide" if self._width == WIDTH else "half",
            label=label,
            width=self._width,
            height=self._height,
            frame=join((*self._frame_x(), *self._frame_y())),
            parts=join(self._parts),
            notes=join(_text(*note, halo=True) for note in self._notes),
        )

    def _frame_x(self) -> Iterable[Html]:
        base = self._height - _BOTTOM
        yield _stroke(f"M{_LEFT} {base}H{self._width - _RIGHT}", "muted")
        for value in self._x.marks(max(4, self._width // 95)):
            at = float(self._across(value))
            yield _stroke(f"M{at:.1f} {base}v4", "muted")
            yield _text(at, base + 16, self._x.text(value), "middle", "muted")
        yield _text((_LEFT + self._width - _RIGHT) / 2, self._height - 6, self._x.label, "middle", "muted")

    def _frame_y(self) -> Iterable[Html]:
        for value in self._y.marks(5):
            at = float(self._up(value))
            yield _stroke(f"M{_LEFT} {at:.1f}H{self._width - _RIGHT}", "line")
            yield _text(_LEFT - 7, at + 4, self._y.text(value), "end", "muted")
        yield _text(_LEFT, _TOP - 7, self._y.label, "start", "muted")

    def _path(self, path: str, look: str) -> None:
        self._parts.append(Html(f'<path d="{path}" {look}/>'))


def _rows(*columns: Values) -> Iterable[tuple[float, ...]]:
    return zip(*(np.asarray(column, dtype=np.float64).tolist() for column in columns), strict=True)


def _line(xs: Values, ys: Values, known: Values, *, steps: bool) -> str:
    parts, pen = [], False
    for x, y, seen in zip(xs.tolist(), ys.tolist(), known.tolist(), strict=True):
        if not seen:
            pen = False
        elif not pen:
            parts.append(f"M{x:.1f} {y:.1f}")
            pen = True
        else:
            parts.append(f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}")
    return "".join(parts)


def _outline(color: str, width: float) -> str:
    return f'fill="none" stroke="var(--{color})" stroke-width="{width:g}"'


def _rule(color: str) -> str:
    return f'{_outline(color, 1.3)} stroke-dasharray="5 3"'


def _stroke(path: str, color: str) -> Html:
    return Html(f'<path d="{path}" {_outline(color, 0.7)}/>')


def _text(x: float, y: float, text: str, anchor: str, color: str, *, halo: bool = False) -> Html:
    outline = ' stroke="var(--card)" stroke-width="3" paint-order="stroke"' if halo else ""
    return Html(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="var(--{color})"{outline}>{escape(text)}</text>'
    )


def span_of(*values: Values | Sequence[float], floor: float | None = None) -> tuple[float, float]:
    """The ends of all values that are numbers, with a little room; (0, 1) of none."""
    every = np.concatenate([np.asarray(each, dtype=np.float64).ravel() for each in values]) if values else np.empty(0)
    every = every[np.isfinite(every)]
    if not len(every):
        return 0.0, 1.0
    low, high = float(every.min()), float(every.max())
    room = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
    return (low - room if floor is None else min(low, floor)), high + room


def short(value: float) -> str:
    """A value on an axis that spans decades."""
    return digits(value, 2).rstrip("0").rstrip(".") if 1e-4 < value < 1 else _number(value)
