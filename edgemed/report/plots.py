"""Plots as SVG that takes its colours from the page, so that it follows light, dark and print."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.lazy import require
from edgemed.report.data import ActivationRange
from edgemed.report.markup import Html, escape
from edgemed.report.units import digits, prefixed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_BARS = 96
_PLACE = (0.17, 0.19, 0.8, 0.78)  # fixed: finding the place of the axes takes longer than drawing them

# matplotlib draws with these; each is then replaced by the page's variable of that name
_TOKENS = {
    "ink": "#101112",
    "muted": "#131415",
    "bars": "#161718",
    "clip": "#191a1b",
    "minmax": "#202122",
    "percentile": "#232425",
    "entropy": "#262728",
}
_STYLES = {"minmax": (0, (1, 1.5)), "percentile": (0, (5, 2)), "entropy": (0, (5, 2, 1, 2))}
_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgemed",
    "font.size": 9,
    "axes.edgecolor": _TOKENS["muted"],
    "axes.labelcolor": _TOKENS["muted"],
    "xtick.color": _TOKENS["muted"],
    "ytick.color": _TOKENS["muted"],
    "axes.linewidth": 0.6,
}


def histogram(tensor: ActivationRange, identity: str) -> Html:
    """Histogram of the magnitudes of a tensor, on a logarithmic count axis, with the ranges of all methods.

    The chosen amax is the solid line; what lies beyond it is clipped and shaded.

    Args:
        tensor: with at least one count above 0.
        identity: prefix of the ids inside the SVG, unique on the page.

    Raises:
        MissingSoftwareError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="build", purpose="draw plots")
    figure_module = require("matplotlib.figure", extra="build", purpose="draw plots")
    require("matplotlib.backends.backend_svg", extra="build", purpose="draw plots")
    with matplotlib.rc_context(_RC):
        figure = figure_module.Figure(figsize=(3.8, 2.1))
        axes = figure.add_axes(_PLACE)
        _draw(axes, tensor)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), identity, describe(tensor))


def describe(tensor: ActivationRange) -> str:
    """What the histogram shows, in words."""
    text = f"Histogram of {tensor.name}: magnitudes up to {digits(tensor.seen)}, amax {digits(tensor.amax)}"
    if tensor.candidates is None:
        return f"{text}."
    named = ", ".join(f"{name} {digits(value)}" for name, value in tensor.candidates)
    return f"{text}; the methods would choose {named}."


def rebinned(counts: tuple[int, ...], bin_width: float, most: int = _MOST_BARS) -> tuple[NDArray[Any], float]:
    """Counts in at most `most` bins, without empty bins at the end, and their width; the total is kept."""
    used = len(counts)
    while used and counts[used - 1] == 0:
        used -= 1
    merge = max(1, -(-used // most))
    padded = np.zeros(-(-used // merge) * merge)
    padded[:used] = counts[:used]
    return padded.reshape(-1, merge).sum(axis=1), bin_width * merge


def _draw(axes: Axes, tensor: ActivationRange) -> None:
    counts, width = rebinned(tensor.counts, tensor.bin_width)
    edges = np.arange(len(counts) + 1) * width
    axes.stairs(np.maximum(counts, 0.5), edges, fill=True, baseline=0.5, color=_TOKENS["bars"])
    axes.axvline(tensor.amax, color=_TOKENS["ink"], linewidth=2.6)  # below the others: it often equals one of them
    right = max(float(edges[-1]), tensor.amax, tensor.seen) * 1.02
    if tensor.candidates is not None:
        for name, value in tensor.candidates:
            axes.axvline(value, color=_TOKENS[name], linestyle=_STYLES[name], linewidth=1.3)
            right = max(right, value * 1.02)
    if tensor.amax < right:
        axes.axvspan(tensor.amax, right, color=_TOKENS["clip"], alpha=0.16, linewidth=0)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    axes.set_xlim(0, right)
    axes.set_xlabel("magnitude")
    axes.set_ylabel("values")
    axes.spines[["top", "right"]].set_visible(False)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: prefixed(value))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axes.locator_params(axis="x", nbins=6)


def _for_page(svg: str, identity: str, label: str) -> Html:
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\sid="([^"]+)"', rf' id="{identity}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{identity}-\1)", svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{identity}-\1"', svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    for name, token in _TOKENS.items():
        svg = svg.replace(token, f"var(--{name})")
    head, _, body = svg.partition(">")
    view = re.search(r'viewBox="[^"]+"', head)
    return Html(f'<svg role="img" aria-label="{escape(label)}" {view[0] if view else ""}>{body}'.strip())
