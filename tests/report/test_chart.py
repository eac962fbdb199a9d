"""Charts drawn by hand: where values land, what is marked, and that names are not markup."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.report.chart import WIDTH, Axis, Chart, span_of

ends = st.tuples(st.floats(1e-6, 1e9), st.floats(1e-6, 1e9)).map(sorted).filter(lambda pair: pair[1] > pair[0] * 1.01)


def drawn(chart: Chart, label: str = "it") -> ET.Element:
    return ET.fromstring(chart.render(label))


@given(pair=ends, log=st.booleans(), most=st.integers(2, 10))
def test_marks_lie_on_the_axis_in_order_and_are_few(pair, log, most):
    low, high = pair
    marks = Axis(low, high, "x", log=log).marks(most)
    assert list(marks) == sorted(set(marks))
    room = 1e-9 * high  # of an axis of 760 pixels: rounding of steps, nothing that shows
    assert all(low - room <= mark <= high + room for mark in marks)
    assert len(marks) <= 3 * most + 3


def test_a_value_lands_where_the_axis_says():
    axis = Axis(1.0, 1000.0, "x", log=True)
    assert axis.place(np.array([1.0, 10.0, 100.0, 1000.0])) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert Axis(2.0, 4.0, "x").place(3.0) == pytest.approx(0.5)


def test_a_line_breaks_where_there_is_no_number():
    chart = Chart(Axis(0, 3, "x"), Axis(0, 3, "y"))
    chart.line(np.array([0.0, 1, 2, 3]), np.array([1.0, np.nan, 2, 3]), "accent")
    paths = [path.get("d", "") for path in drawn(chart) if path.get("stroke") == "var(--accent)"]
    assert paths[0].count("M") == 2


def test_labels_do_not_cover_each_other():
    chart = Chart(Axis(0, 100, "x"), Axis(0, 1, "y"))
    for value in (50, 51, 52):
        chart.rule_x(value, "percentile")
    rows = [text.get("y") for text in drawn(chart).iter() if text.text == "percentile"]
    assert len(set(rows)) == 3


def test_a_rule_beyond_the_axis_is_not_drawn():
    chart = Chart(Axis(0, 1, "x"), Axis(0, 1, "y"))
    chart.rule_x(2, "deadline")
    chart.rule_y(2, "deadline")
    assert "deadline" not in chart.render("it")


def test_nothing_leaves_the_picture():
    chart = Chart(Axis(0, 1, "x"), Axis(0, 1, "y"))
    chart.dots(np.array([-1e9, 1e9]), np.array([-1e9, 1e9]))
    numbers = re.findall(r"M(-?[\d.]+) (-?[\d.]+)h0", chart.render("it"))
    assert all(0 <= float(x) <= WIDTH + 40 and -20 <= float(y) <= 300 for x, y in numbers)


def test_text_is_text():
    chart = Chart(Axis(0, 1, "<x>"), Axis(0, 1, "y"))
    chart.rule_x(0.5, "<script>")
    root = drawn(chart, '"quoted" & <b>')
    assert root.get("aria-label") == '"quoted" & <b>'
    assert [e.text for e in root.iter() if e.text and "<" in e.text] == ["<x>", "<script>"]


def test_a_span_leaves_room_and_survives_nothing():
    assert span_of() == span_of(np.array([np.nan])) == (0.0, 1.0)
    low, high = span_of(np.array([5.0, 5.0]))
    assert low < 5 < high
