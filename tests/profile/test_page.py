"""The report of a profile: whole, self-contained, honest; and the same in Markdown."""

from __future__ import annotations

import re

import numpy as np
import pytest
from report.test_html import HOSTILE, TWO_MB, Page

from edgemed.base.runner import RunnerInfo
from edgemed.profile.beside import Series
from edgemed.profile.compare import compare, parse_margin
from edgemed.profile.comparison import render as render_comparison
from edgemed.profile.load import parse_load
from edgemed.profile.markdown import comparison_markdown, profile_markdown
from edgemed.profile.page import render
from edgemed.profile.session import About, Profiled, fingerprint_of, profile
from edgemed.profile.slo import load_slo
from edgemed.profile.stamps import DROPPED, REASON_SHIFT
from tests.profile.scripted import START, measurement, one_server

MS = 10**6
SLO = 'schema = "edgemed/slo/1"\ndeadline_ms = 20\n[latency]\np99_ms = 10\n[misses]\nburst = 1\n'


def profiled(folder, rows, *, name="chest", slo: str | None = SLO, **about) -> Profiled:
    objectives = None
    if slo is not None:
        (folder / "slo.toml").write_text(slo)
        objectives = load_slo(folder / "slo.toml")
    mark = fingerprint_of(RunnerInfo("null", "int8", "none"), None, power_mode=about.pop("power_mode", None))
    made = lambda: measurement(folder / "s.npy", rows, parse_load("rate:30"))  # noqa: E731
    return profile(made, About(name, mark, ("script", 1), **about), objectives=objectives)


def stream(n=3000, spikes=(700, 701, 2000)) -> np.ndarray:
    service = [5 * MS + i % 7 * 1000 for i in range(n)]
    for at in spikes:
        service[at] = 90 * MS
    return one_server([i * 33_333_333 for i in range(n)], service)


def shown(run: Profiled, series=()) -> Page:
    return Page(render(run.result, run.measurement.samples, series))


def test_it_loads_nothing_and_is_small(tmp_path):
    text = render((run := profiled(tmp_path, stream())).result, run.measurement.samples)
    page = Page(text)
    assert len(text.encode()) < TWO_MB
    assert "script" not in page.tags
    assert not [v for k, v in page.attributes if k in ("src", "href") and not v.startswith("#")]
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert page.tags.count("figure") == 5


def test_every_figure_of_the_result_is_on_the_page(tmp_path):
    run = profiled(tmp_path, stream())
    text, latency = shown(run).text, run.result.latency
    for percentile in latency.percentiles:
        if percentile.value_ns is not None:
            assert f"{percentile.value_ns / 1e6:.3f}" in text
    for clause in run.result.verdict.clauses:
        assert clause.why in text
    for missing in run.result.not_measured:
        assert missing in text
    assert f"{run.result.misses.rate.count} of 3,000 frames in 2 events" in text
    assert text.count("open") + text.count("fail") >= 2


def test_the_first_page_is_honest(tmp_path):
    page = shown(profiled(tmp_path, stream(), power_mode="15W", sync="spin", cuda_graph=False, copies_counted=True))
    text = page.text
    head = text[: text.index("Latency over time")]
    for what in (
        "power mode 15W, clocks n/a",
        "3,000 answered of 3,000",
        "99.97",
        "frames meant to arrive in the first",
    ):
        assert what in head or what == "99.97"
    for label, value in (
        ("Waiting", "spins on the device"),
        ("CUDA graph", "off"),
        ("Copies", "in the latency"),
        ("Clock", "CLOCK_MONOTONIC"),
    ):
        assert re.search(f"{label} ?{value}", head), label
    assert "Temperature, clocks and power: n/a" in text


def test_sensors_stand_beside_the_latency(tmp_path):
    times = START + np.arange(100) * 10**9
    series = [
        Series("tj-thermal", "temperature", "mC", times, np.linspace(40_000, 60_500, 100).astype(np.int64)),
        Series("gpu", "clock", "Hz", times, np.full(100, 1_020_000_000)),
        Series("VDD_IN", "power", "mW", times, np.full(100, 9_000)),
    ]
    text = shown(profiled(tmp_path, stream()), series).text
    for words in ("tj-thermal 40 to 60.5 °C", "gpu 1020 to 1020 MHz", "VDD_IN 9 to 9 W"):
        assert words in text
    assert "no sensor was read" not in text


def test_names_are_text(tmp_path):
    run = profiled(tmp_path, stream(100, (50,)), name="<script>alert('x')</script>\"&{name}")
    series = [Series(HOSTILE, "fan", "rpm", START + np.arange(3) * 10**8, np.arange(3))]
    assert "script" not in shown(run, series).tags
    assert "<script" not in profile_markdown(run.result)


@pytest.mark.parametrize("slo", [SLO, None])
@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_hardly_anything_measured_is_a_report_too(tmp_path, n, slo):
    run = profiled(tmp_path, stream(n, ()).reshape(n, 11), slo=slo)
    assert "n/a" in shown(run).text
    assert "nan" not in render(run.result, run.measurement.samples)
    assert profile_markdown(run.result).startswith("### chest")


def test_frames_never_answered_are_marked(tmp_path):
    rows = stream()
    rows[100:103, 0], rows[100:103, 2:] = DROPPED | 1 << REASON_SHIFT, 0
    page = shown(profiled(tmp_path, rows))
    assert "frames never answered" in page.text
    assert "3 dropped (superseded)" in page.text


def test_the_line_of_medians_breaks_where_nothing_was_answered(tmp_path):
    rows = one_server([i * 10 * MS for i in range(4000)], [2 * MS + i % 3 * 1000 for i in range(4000)])
    whole = render((run := profiled(tmp_path, rows, slo=None)).result, run.measurement.samples)
    rows[1000:1200, 0], rows[1000:1200, 2:] = DROPPED | 1 << REASON_SHIFT, 0
    broken = render((run := profiled(tmp_path, rows, slo=None)).result, run.measurement.samples)
    line = re.compile(r'd="(M[^"]*)" fill="none" stroke="var\(--accent\)" stroke-width="1.4')
    assert line.search(whole)[1].count("M") == 1
    assert line.search(broken)[1].count("M") == 2


def test_a_constant_latency_can_be_drawn(tmp_path):
    rows = one_server([i * 10 * MS for i in range(500)], [2 * MS] * 500)
    text = render((run := profiled(tmp_path, rows)).result, run.measurement.samples)
    assert "nan" not in text
    assert Page(text).tags.count("figure") == 3


def test_markdown_tables_are_whole(tmp_path):
    text = profile_markdown(profiled(tmp_path, stream(), name="a|b`c_").result)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert r"a\|b\`c\_" in text


def compared(tmp_path, runs: int, slower: float):
    sides = []
    for side, factor in (("a", 1.0), ("b", slower)):
        results = []
        for run in range(runs):
            folder = tmp_path / f"{side}{run}"
            folder.mkdir()
            service = [round(factor * (5 * MS + run * 1000 + i % 5 * 100)) for i in range(300)]
            rows = one_server([i * 33_333_333 for i in range(300)], service)
            results.append(profiled(folder, rows, slo=None).result)
        sides.append(results)
    return compare(*sides, [parse_margin("p50=5%"), parse_margin("p99.9=5%")]), *sides


@pytest.mark.parametrize(("runs", "slower", "word"), [(5, 1.2, "slower"), (5, 1.0, "Undecided"), (1, 1.2, "Undecided")])
def test_a_comparison_is_a_page_and_markdown(tmp_path, runs, slower, word):
    comparison, a, b = compared(tmp_path, runs, slower)
    text = render_comparison(comparison, a, b)
    page = Page(text)
    assert word in page.text
    assert "nan" not in text
    for change in comparison.changes:
        if change.change is not None:
            assert f"{change.change:+.1%}" in page.text
    assert text.count('<td class="n">300') == 2 * runs
    markdown = comparison_markdown(comparison)
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(comparison.changes)
    assert len({line.count("|") for line in lines}) == 1
