"""Golden vectors: inputs, the outputs they must give, and how far off is still right.

A backend that answers the golden inputs within tolerance runs the model that was built. Readiness means that the
last such check was right.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemed.base.arrays import ArrayFileError, ArrayHeader, read_npz
from edgemed.base.errors import IntegrityError
from edgemed.base.runner import Runner, RunnerSpecs

Arrays = dict[str, NDArray[Any]]
MINIMUM = 8
_MAX_BYTES = 4 << 30
_REBUILD = "Build the bundle anew."


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
    def from_bytes(data: bytes, specs: RunnerSpecs | None = None) -> Golden:
        """Read what `to_bytes` wrote.

        Args:
            data: the archive.
            specs: what the vectors must fit, which is checked before they are inflated.

        Raises:
            IntegrityError: it is not such an archive, or its arrays have not all the same number of samples, or
                they are not what `specs` takes and gives.
        """
        if not data.startswith(b"PK"):
            raise IntegrityError("The golden vectors are not an NPZ archive.", _REBUILD)
        try:
            arrays = read_npz(io.BytesIO(data), limit=_MAX_BYTES, check=lambda headers: _check(headers, specs))
        except ArrayFileError as error:
            raise IntegrityError(f"The golden vectors cannot be read: {error}.", _REBUILD) from error
        inputs: Arrays = {}
        outputs: dict[str, Arrays] = {}
        for member, array in arrays.items():
            precision, name = _place(member)
            if precision is None:
                inputs[name] = array
            else:
                outputs.setdefault(precision, {})[name] = array
        return Golden(inputs, outputs)


def _place(member: str) -> tuple[str | None, str]:
    """`(precision, output)` of a member of the archive, or `(None, input)`."""
    kind, _, rest = member.partition("/")
    if kind == "input" and rest:
        return None, rest
    precision, _, name = rest.partition("/")
    if kind != "output" or not precision or not name:
        raise ArrayFileError(f"member '{member}' is neither an input nor an output")
    return precision, name


def _check(headers: Mapping[str, ArrayHeader], specs: RunnerSpecs | None) -> None:
    if len({_place(member)[0] is None for member in headers}) < 2:
        raise ArrayFileError("it lacks inputs or outputs")
    counts = {header.shape[:1] for header in headers.values()}
    if len(counts) > 1 or counts & {(), (0,)}:
        raise ArrayFileError("its arrays do not all hold the same number of samples")
    if specs is not None:
        _check_specs(headers, specs)


def _check_specs(headers: Mapping[str, ArrayHeader], specs: RunnerSpecs) -> None:
    """The inputs, and the outputs of each precision, are those of the model: none is missing, none is strange."""
    groups: dict[str | None, dict[str, ArrayHeader]] = {}
    for member, header in headers.items():
        precision, name = _place(member)
        groups.setdefault(precision, {})[name] = header
    for precision, group in groups.items():
        wanted = {spec.name: spec for spec in (specs.inputs if precision is None else specs.outputs)}
        if group.keys() != wanted.keys():
            raise ArrayFileError(f"it holds {', '.join(group)} where the model has {', '.join(wanted)}")
        for name, header in group.items():
            if not wanted[name].admits(str(header.dtype), header.shape[1:]):
                raise ArrayFileError(f"{name} is {header.dtype} {header.shape[1:]}, and the model's is {wanted[name]}")


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
        raise IntegrityError(f"The golden vectors have no outputs for {precision}.", _REBUILD)
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
