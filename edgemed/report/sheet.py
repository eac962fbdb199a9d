"""A contact sheet: the picture and the histogram of each step that an image went through."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.lazy import require
from edgemed.base.text import printable
from edgemed.report.units import prefixed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ACROSS = 2  # steps side by side
_MOST_SIDE = 640  # pixels of a picture that are drawn: the sheet has room for about half
_CELL = (6.4, 3.5)  # inches
_BINS = 64
_BAR = "#4c78a8"
_CHANNELS = ("#c0392b", "#27803f", "#2b5fc0")


@dataclass(frozen=True)
class Panel:
    """One step.

    Attributes:
        title: its name.
        note: its settings.
        caption: shape, type and range in words.
        pixels: `(rows, columns)` or `(rows, columns, 3)`, finite; shown from its least to its greatest value.
    """

    title: str
    note: str
    caption: str
    pixels: NDArray[Any]


def contact_sheet(panels: Sequence[Panel], heading: str) -> bytes:
    """PNG of all steps in reading order, two beside each other.

    Raises:
        MissingSoftwareError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="build", purpose="draw pictures")
    figure_module = require("matplotlib.figure", extra="build", purpose="draw pictures")
    down = -(-len(panels) // _ACROSS)
    with matplotlib.rc_context({"font.size": 8, "axes.linewidth": 0.6, "text.parse_math": False}):
        figure = figure_module.Figure(figsize=(_CELL[0] * _ACROSS, _CELL[1] * down + 0.4), layout="constrained")
        figure.suptitle(printable(heading), fontsize=10, x=0.01, ha="left")
        for cell, panel in zip(figure.subfigures(down, _ACROSS, squeeze=False).flat, panels, strict=False):
            picture, histogram = cell.subplots(1, 2, width_ratios=(3, 2))
            _draw_picture(picture, panel)
            _draw_histogram(histogram, panel.pixels)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _draw_picture(axes: Axes, panel: Panel) -> None:
    pixels = panel.pixels
    stride = max(1, -(-max(pixels.shape[:2]) // _MOST_SIDE))
    shown = pixels[::stride, ::stride].astype(np.float32)
    low, high = float(pixels.min()), float(pixels.max())
    span = high - low
    unit = (shown - low) / span if span > 0 else np.full_like(shown, 0.5)
    axes.imshow(unit, cmap="gray", vmin=0, vmax=1, extent=(0, pixels.shape[1], pixels.shape[0], 0))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(printable(panel.title), fontsize=9, fontweight="bold", loc="left")
    below = "\n".join(printable(line) for line in (_short(panel.note), panel.caption) if line)
    axes.set_xlabel(below, loc="left")


def _draw_histogram(axes: Axes, pixels: NDArray[Any]) -> None:
    low, high = float(pixels.min()), float(pixels.max())
    edges = np.linspace(low, high, _BINS + 1) if high > low else np.linspace(low - 0.5, low + 0.5, _BINS + 1)
    color = pixels.ndim == 3
    for channel in range(pixels.shape[2] if color else 1):
        counts, _ = np.histogram(pixels[..., channel] if color else pixels, edges)
        if color:
            axes.stairs(counts, edges, color=_CHANNELS[channel % 3], linewidth=0.9)
        else:
            axes.stairs(counts, edges, fill=True, color=_BAR)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("value")
    axes.set_ylabel("pixels")
    axes.spines[["top", "right"]].set_visible(False)
    axes.minorticks_off()
    axes.locator_params(axis="x", nbins=4)
    axes.yaxis.set_major_formatter(lambda value, _: prefixed(value))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}")


def _short(note: str) -> str:
    return note if len(note) <= 60 else f"{note[:57]}..."
