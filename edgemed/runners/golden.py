"""Golden vectors: inputs, the outputs they must give, and how far off is still right.

A backend that answers the golden inputs within tolerance runs the model that was built. Readiness means that the
last such check was right.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import IntegrityError
from edgemed.base.runner import Runner

Arrays = dict[str, NDArray[Any]]
MINIMUM = 8


@dataclass(frozen=True)
class Golden:
    """Golden vectors; arrays are stacked over samples along a new first axis.

    Attributes:
        inputs: input name -> `(n, ...)`.
        outputs: precision -> output name -> `(n, ...)`.
    """

    inputs: Arrays
    outputs: dict[str, Arrays]

    @property
    def samples(self) -> int:
        return len(next(iter(self.inputs.values())))

    def feeds(self, index: int) -> Arrays:
        """Feeds of one sample."""
        return {name: array[index] for name, array in self.inputs.items()}

    def to_bytes(self) -> bytes:
        """NPZ archive with members `input/NAME` and `output/PRECISION/NAME`."""
        members = {f"input/{name}": array for name, array in self.inputs.items()}
        for precision, outputs in self.outputs.items():
            members.update({f"output/{precision}/{name}": array for name, array in outputs.items()})
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **members)
        return buffer.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> Golden:
        """Read what `to_bytes` wrote.

        Raises:
            IntegrityError: it is not such an archive.
        """
        inputs: Arrays = {}
        outputs: dict[str, Arrays] = {}
        if not data.startswith(b"PK"):
            raise IntegrityError("The golden vectors are not an NPZ archive.", "Build the bundle anew.")
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                for member in archive.files:
                    kind, _, rest = member.partition("/")
                    if kind == "input":
                        inputs[rest] = archive[member]
                    else:
                        precision, _, name = rest.partition("/")
                        outputs.setdefault(precision, {})[name] = archive[member]
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise IntegrityError(f"The golden vectors cannot be read: {error}.", "Build the bundle anew.") from error
        if not inputs or not outputs:
            raise IntegrityError("The golden vectors are empty.", "Build the bundle anew.")
        return Golden(inputs, outputs)


@dataclass(frozen=True)
class GoldenOutput:
    """How one output did: the largest absolute difference over all samples, against its tolerance."""

    output: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance  # NaN is not


@dataclass(frozen=True)
class GoldenResult:
    """Verdict of one golden check."""

    samples: int
    outputs: tuple[GoldenOutput, ...]

    @property
    def passed(self) -> bool:
        return all(output.passed for output in self.outputs)


def check_golden(runner: Runner, golden: Golden, tolerance: Mapping[str, float], precision: str) -> GoldenResult:
    """Run all golden inputs and compare.

    Args:
        runner: an entered Runner.
        golden: the vectors.
        tolerance: output name -> largest allowed absolute difference.
        precision: whose expected outputs to compare with.

    Raises:
        IntegrityError: the vectors hold nothing for this precision.
    """
    expected = golden.outputs.get(precision)
    if expected is None or expected.keys() != tolerance.keys():
        raise IntegrityError(f"The golden vectors have no outputs for {precision}.", "Build the bundle anew.")
    answers = [runner.infer(golden.feeds(index)) for index in range(golden.samples)]
    outputs = tuple(
        GoldenOutput(name, largest_difference([a[name] for a in answers], array), tolerance[name])
        for name, array in expected.items()
    )
    return GoldenResult(golden.samples, outputs)


def largest_difference(got: Sequence[NDArray[Any]], expected: NDArray[Any]) -> float:
    """max|Δ| over samples; infinity where shapes differ or a value is NaN."""
    worst = 0.0
    for one, want in zip(got, expected, strict=True):
        if one.shape != want.shape:
            return float("inf")
        difference = np.abs(one.astype(np.float64) - want.astype(np.float64))
        worst = max(worst, float(difference.max(initial=0.0)))
        if not np.isfinite(difference).all():
            return float("inf")
    return worst
