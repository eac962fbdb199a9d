"""Spans are integers on the monotonic clock, kept in the order in which they end."""

from __future__ import annotations

import time

import pytest

from edgemed.base.progress import SilentProgress
from edgemed.base.spans import Span, SpanLog


def test_a_block_is_timed() -> None:
    log = SpanLog()
    before = time.monotonic_ns()
    with log.record("compute", frame=7):
        time.sleep(0.002)
    (span,) = log.spans
    assert (span.name, span.frame) == ("compute", 7)
    assert before <= span.start_ns <= span.end_ns <= time.monotonic_ns()
    assert span.duration_ns >= 2_000_000  # sleep never returns early


def test_nested_blocks_end_inside_out() -> None:
    log = SpanLog()
    with log.record("outer"), log.record("inner"):
        pass
    inner, outer = log.spans
    assert (inner.name, outer.name) == ("inner", "outer")
    assert outer.start_ns <= inner.start_ns <= inner.end_ns <= outer.end_ns


def test_a_block_that_raises_is_kept() -> None:
    log = SpanLog()
    with pytest.raises(RuntimeError), log.record("failed"):
        raise RuntimeError
    assert [span.name for span in log.spans] == ["failed"]


def test_a_span_is_a_value() -> None:
    assert Span("a", 1, 4) == Span("a", 1, 4)
    assert Span("a", 1, 4).duration_ns == 3


def test_silent_progress_takes_everything_and_hides_no_error() -> None:
    def work() -> None:
        with SilentProgress().stage("work", total=2) as stage:
            stage.total(None)
            stage.advance()
            stage.note("half")
            raise KeyError("x")

    with pytest.raises(KeyError):
        work()
