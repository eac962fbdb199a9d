"""The DICOM Conformance Statement is what the code says."""

from __future__ import annotations

import re

import pytest

from edgemed.serve.config.inlets import Peer
from scripts.conformance import network, page, statuses, tables


def test_the_page_is_as_generated() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.text(), "run `make schemas`"


def test_everything_that_is_read_off_the_code_is_shown() -> None:
    shown = re.findall(r"\{\{ (\w+) \}\}", page.TEMPLATE.read_text(encoding="utf-8"))
    assert set(shown) == set(page.fills())


def test_another_context_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    from pynetdicom.presentation import PresentationContext, build_context

    offered = network.contexts_for

    def more(peer: Peer) -> list[PresentationContext]:
        return [*offered(peer), build_context("1.2.840.10008.5.1.4.31")]

    monkeypatch.setattr(network, "contexts_for", more)
    assert "Modality Worklist Information Model" in network.provided()
    assert "Modality Worklist Information Model" in network.offered()


def test_every_answer_to_a_step_is_listed() -> None:
    from edgemed.serve.dicom import steps

    listed = {line.split(" | ")[0][2:] for line in statuses.told_of_steps().splitlines()[2:]}
    given = set(tables.constants(steps)) - {steps.MAY_NO_LONGER_BE_UPDATED}
    assert {f"{code:04X}" for code in given | {answer.code for answer in steps._ANSWERS.values()}} <= listed


def test_a_status_that_nobody_described_is_listed_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(statuses._STORE, 0xC111)
    assert "| C111 | other content |  |" in statuses.stored()


def test_quantities() -> None:
    spans = (1, 250_000_000, 90_000_000_000, 259_200_000_000_000)
    assert [tables.duration(ns) for ns in spans] == ["1 ns", "250 ms", "90 s", "3 d"]
    assert [tables.size(count) for count in (1000, 131072, 2 << 30)] == ["1000 bytes", "128 KiB", "2 GiB"]
    assert tables.ranges([1, 2, 3, 7, 9, 10], str) == "1–3, 7, 9–10"
    assert tables.table(("a", "b"), [("x|y", 1)]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"
