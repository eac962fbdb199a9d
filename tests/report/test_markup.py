"""Escaping by construction."""

from hypothesis import given
from hypothesis import strategies as st

from edgemed.report.markup import LONGEST, Column, Html, breakable, clip, escape, fill, table


@given(text=st.text())
def test_text_cannot_leave_its_place(text: str) -> None:
    markup = fill('<p title="{t}">{t}</p>', t=text)
    inner = markup.removeprefix('<p title="').removesuffix("</p>")
    assert inner.count("<") == 0
    assert inner.count(">") == 1
    assert inner.count('"') == 1


def test_markup_is_not_escaped_twice() -> None:
    assert fill("<b>{x}</b>", x=fill("<i>{y}</i>", y="a & b")) == "<b><i>a &amp; b</i></b>"


def test_a_format_in_a_value_is_text() -> None:
    assert fill("{x}", x="{x.__class__} {0}") == "{x.__class__} {0}"


def test_characters_that_deceive_are_spelled_out() -> None:
    assert escape("model\u202egpj.exe\x00\x1b") == "model\\u202egpj.exe\\u0000\\u001b"
    assert escape("größe ✓\n") == "größe ✓\n"


@given(text=st.text())
def test_clip_keeps_short_text_and_both_ends(text: str) -> None:
    clipped = clip(text, 11)
    assert len(clipped) <= 11
    assert clipped[:5] == text[:5]
    assert clipped == text or clipped[-5:] == text[-5:]


def test_breaks_are_offered_after_separators_only() -> None:
    assert breakable("a/b_c<d") == "a/<wbr>b_<wbr>c&lt;d"
    assert breakable("misses.recovery_ms") == "misses.<wbr>recovery_<wbr>ms"
    assert breakable("p99.9") == "p99.9"


def test_table_counts_what_it_leaves_out() -> None:
    rows = [(f"row{i}", i) for i in range(1000)]
    markup = table("Rows", (Column("Name"), Column("N", "number")), rows, budget=2000)
    shown = markup.count('scope="row"')
    assert 0 < shown < 1000
    assert f"{1000 - shown} more in report.json" in markup
    assert len(markup) < 2600  # the budget, plus the table around it
    assert isinstance(markup, Html)
    assert len(clip("x" * 10_000)) <= LONGEST
