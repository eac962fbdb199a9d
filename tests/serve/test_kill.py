"""The short form of `make bench-kill`: a whole daemon under load, killed at random moments."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.kill import bound, kill


@pytest.mark.skipif(shutil.which("storescu") is None, reason="needs DCMTK (Debian: dcmtk)")
def test_what_was_acknowledged_outlives_kills_and_reaches_the_pacs() -> None:
    seen = kill(4, seed=3, progress=False)
    assert seen["acked"] > 0
    assert (seen["lost"], seen["changed"], seen["unaccounted"], seen["exit"]) == (0, 0, 0, 0)


def test_the_bound_of_none_seen() -> None:
    assert bound(300) == pytest.approx(3 / 300, rel=0.01)  # the rule of three
    assert bound(0) == 1.0
