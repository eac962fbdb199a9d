"""Histograms as SVG."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.report.data import ActivationRange, AmaxCandidates
from edgemed.report.plots import describe, histogram, rebinned
from report.sample import sample_report


def worst() -> ActivationRange:
    report = sample_report()
    assert report.int8 is not None
    return report.int8.tensors[0]


@given(counts=st.lists(st.integers(0, 10**9), max_size=400), most=st.integers(1, 100))
def test_rebinning_keeps_the_total_and_the_range(counts: list[int], most: int) -> None:
    merged, width = rebinned(tuple(counts), 0.25, most)
    assert merged.sum() == sum(counts)
    assert len(merged) <= most
    used = np.flatnonzero(counts)
    if len(used):
        assert (len(merged) - 1) * width <= used[-1] * 0.25 < len(merged) * width


def test_svg_is_whole_named_and_takes_its_colours_from_the_page() -> None:
    svg = histogram(worst(), "p0")
    root = ET.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == describe(worst())
    assert set(re.findall(r"var\(--(\w+)\)", svg)) >= {
        "ink",
        "muted",
        "bars",
        "clip",
        "minmax",
        "percentile",
        "entropy",
    }
    assert not re.findall(r"(?:fill|stroke): #(?!000000)[0-9a-f]{6}", svg)  # black tick labels apart
    assert "http" not in svg


def test_ids_are_unique_on_the_page_and_references_resolve() -> None:
    both = histogram(worst(), "p0") + histogram(worst(), "p1")
    ids = re.findall(r'\sid="([^"]+)"', both)
    assert len(ids) == len(set(ids))
    references = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', both)
    assert references
    assert {a or b for a, b in references} <= set(ids)


def test_the_same_tensor_gives_the_same_bytes() -> None:
    assert histogram(worst(), "p0") == histogram(worst(), "p0")


@pytest.mark.parametrize(
    "tensor",
    [
        ActivationRange(name="one bin", amax=1.0, seen=1.0, counts=(5,), bin_width=1.0),
        ActivationRange(name="no range", amax=0.0, seen=0.0, counts=(7, 0), bin_width=2.0**-100),
        ActivationRange(
            name="huge",
            amax=3e30,
            seen=3e38,
            counts=(1, 0, 0, 10**15),
            bin_width=1e38,
            candidates=AmaxCandidates(minmax=3e38, percentile=1e20, entropy=0),
        ),
        ActivationRange(name='a"><script>', amax=1.0, seen=2.0, counts=(3, 1), bin_width=1.0),
    ],
)
def test_extreme_ranges_are_drawn(tensor: ActivationRange) -> None:
    ET.fromstring(histogram(tensor, "p0"))
