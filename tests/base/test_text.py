"""What is shown steers no terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.text import PRINTABLE, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red] é 胸", "plain [red] é 胸"),
        ("\x1b[2J\n\r\x9b", r"\x1b[2J\x0a\x0d\x9b"),
        ("safe\u202efdp.exe\u2066", r"safe\u202efdp.exe\u2066"),
        (b"n\xff.png".decode("utf-8", "surrogateescape"), r"n\xff.png"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_is_not_printable_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)))
def test_the_result_is_printable_and_stays(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert shown.encode().decode() == shown


@given(st.text())
def test_names_of_our_documents_keep_the_terminal_as_it_is(text: str) -> None:
    if re.fullmatch(PRINTABLE, text) and not text.endswith("\n"):
        assert not set(text) & set(map(chr, [*range(32), *range(127, 160), 0x202E, 0x2066, 0x2028]))
