"""The golden check of a worker: one vector after the other through a slot, as any request; the parent judges."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from edgemed.runners.golden import GoldenOutput, GoldenResult, largest_difference
from edgemed.runtime.contained.requests import Arrays
from edgemed.runtime.contained.spec import GoldenCase


class GoldenRun:
    """One run over all vectors."""

    def __init__(self, case: GoldenCase) -> None:
        self._case = case
        self._answers: list[dict[str, NDArray[Any]]] = []

    @property
    def feeds(self) -> Arrays:
        """Of the vector that is next."""
        return self._case.golden.feeds(len(self._answers))

    def take(self, outputs: dict[str, NDArray[Any]]) -> GoldenResult | None:
        """The answer to the vector that was next; the verdict after the last one."""
        self._answers.append(outputs)
        if len(self._answers) < self._case.golden.samples:
            return None
        case = self._case
        expected = case.golden.outputs[case.precision]
        judged = (
            GoldenOutput(name, largest_difference([a[name] for a in self._answers], want), case.tolerance[name])
            for name, want in expected.items()
        )
        return GoldenResult(case.golden.samples, tuple(judged))


def wrong(result: GoldenResult) -> str:
    """Words for a result that did not pass."""
    worst = next(output for output in result.outputs if not output.passed)
    return (
        f"The golden vectors were answered wrongly: {worst.output} differs by {worst.difference:.3g} "
        f"(tolerance {worst.tolerance:.3g})."
    )
