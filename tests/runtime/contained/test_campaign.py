"""A short campaign of faults; `python -m benchmarks.faults` runs a thousand."""

from __future__ import annotations

from benchmarks.faults import fault_campaign


def test_no_answer_is_wrong_and_no_request_is_lost() -> None:
    result = fault_campaign(30, progress=False)
    assert result["asked"] > result["answered"] > 0
    assert result["retried"] > 0
    assert result["rebuilds"] >= 15  # most faults cost a worker
    for key in ("wrong", "lost", "bugs", "unaccounted", "left_processes"):
        assert result[key] == 0, result
