"""The short form of `make bench-fuzz`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fuzz import run


def test_a_few_of_each_target(tmp_path: Path) -> None:
    score = run(tmp_path, {"pdu": 100, "file": 30, "folder": 8}, seed=7)
    assert score.inputs == 138
    assert score.answered > 50  # most are near enough to something good
    assert score.clean, "\n".join(score.notes)
