"""Golden inference at the greatest batch: images are asked together only where that was right."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import EdgemedError
from edgemed.bundle.model import RunPrecision
from edgemed.bundle.read import Bundle
from edgemed.evaluate.bundled import golden_of
from edgemed.runners.golden import GoldenOutput, GoldenResult, largest_difference
from edgemed.runtime.contained.requests import Reply
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.serve.models.gate import Gate

log = logging.getLogger(__name__)


class BatchCheck:
    """Of one version; once for each worker."""

    def __init__(self, bundle: Bundle, precision: RunPrecision | None) -> None:
        self._bundle = bundle
        self._precision = precision or bundle.manifest.precision
        batch = bundle.manifest.batch
        whole = all(tensor.shape and tensor.shape[0] is None for tensor in bundle.manifest.outputs)
        self._most = batch.max if batch is not None and whole else 1
        self._generation = 0
        self.greatest = 1
        self.wrong = False

    def tend(self, runner: ContainedRunner, generation: int, gate: Gate) -> None:
        """Ask a new worker for the golden batch; it does not wait."""
        if self._most < 2 or generation == self._generation:
            return
        self._generation, self.greatest = generation, 1
        try:
            feeds, expected = self._case()
            runner.submit(feeds, retries=0).add_done_callback(
                lambda future: self._judge(future, expected, generation, gate)
            )
        except EdgemedError as error:
            log.error("the golden batch could not be asked for: %s", error.what)

    def _case(self) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        golden = golden_of(self._bundle)
        return (
            {name: _together(array, self._most) for name, array in golden.inputs.items()},
            {name: _together(array, self._most) for name, array in golden.outputs[self._precision].items()},
        )

    def _judge(self, future: Future[Reply], expected: dict[str, NDArray[Any]], generation: int, gate: Gate) -> None:
        if generation != self._generation or future.cancelled() or future.exception() is not None:
            return
        reply = future.result()
        tolerance = self._bundle.manifest.golden.tolerance[self._precision]
        outputs = tuple(
            GoldenOutput(name, largest_difference([reply.outputs[name]], want[None]), tolerance[name])
            for name, want in expected.items()
        )
        result = GoldenResult(self._most, outputs)
        self.wrong = not result.passed
        self.greatest = self._most if result.passed else 1
        gate.record(
            result, reply.info.backend, "" if result.passed else f"A batch of {self._most} was answered wrongly."
        )


def _together(stacked: NDArray[Any], most: int) -> NDArray[Any]:
    """Samples of `(n, b, ...)` one after the other along the batch, again and again until there are `most`."""
    flat = stacked.reshape(-1, *stacked.shape[2:])
    return np.ascontiguousarray(np.take(flat, np.arange(most) % len(flat), axis=0))
