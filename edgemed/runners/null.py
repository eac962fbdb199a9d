"""The null Runner: answers from a script, for tests of everything that stands around a Runner."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from edgemed.base.runner import RunnerInfo, RunnerSpecs
from edgemed.base.spans import SpanLog
from edgemed.runners.ort import check_feeds

Script = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]


class NullRunner:
    """Computes nothing: `script` maps feeds to fetches, after an optional busy wait.

    Args:
        specs: what it claims to take and give; feeds are checked against it.
        script: the answer for given feeds.
        latency_ns: busy time of one inference.
    """

    def __init__(self, specs: RunnerSpecs, script: Script, *, latency_ns: int = 0) -> None:
        self._specs = specs
        self._script = script
        self._latency_ns = latency_ns

    @property
    def specs(self) -> RunnerSpecs:
        return self._specs

    @property
    def info(self) -> RunnerInfo:
        return RunnerInfo("null", "none", "none")

    def infer(
        self, feeds: Mapping[str, NDArray[Any]], *, frame: int | None = None, spans: SpanLog | None = None
    ) -> dict[str, NDArray[Any]]:
        check_feeds(self._specs, feeds)
        with spans.record("compute", frame) if spans is not None else nullcontext():
            end_ns = time.monotonic_ns() + self._latency_ns
            answer = self._script(feeds)
            while time.monotonic_ns() < end_ns:
                pass
        return answer

    def __enter__(self) -> NullRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None
