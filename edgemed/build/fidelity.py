"""How far one set of outputs is from another: max|Δ| / max|reference| per output, and SQNR in dB."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import GateError
from edgemed.bundle.manifest import OutputFidelity

Outputs = Sequence[Mapping[str, NDArray[Any]]]

PARITY_LIMIT = 1e-4
"""Largest conversion error, as a share of the output range. FP32 convolutions that sum in another order differ by
about 1e-7 per layer (measured: at most 1e-6 over 66 architectures); a wrong layout, a lost bias or a missing
activation costs 1e-2 or more. 1e-4 lies between the two."""


def compare(got: Outputs, reference: Outputs, kind: Literal["keras", "float"]) -> tuple[OutputFidelity, ...]:
    """Error of each output over all samples.

    Raises:
        GateError: names or shapes differ, or an output is NaN or infinite.
    """
    names = list(reference[0])
    if any(sorted(sample) != sorted(names) for sample in got):
        raise GateError(f"The outputs are {', '.join(got[0])} instead of {', '.join(names)}.", "Report this model.")
    return tuple(_compare_output(name, got, reference, kind) for name in names)


def _compare_output(name: str, got: Outputs, reference: Outputs, kind: Literal["keras", "float"]) -> OutputFidelity:
    largest = largest_error = signal = noise = 0.0
    for sample, wanted in zip(got, reference, strict=True):
        a, b = sample[name].astype(np.float64), wanted[name].astype(np.float64)
        if a.shape != b.shape:
            raise GateError(f"Output {name} has the shape {a.shape} instead of {b.shape}.", "Report this model.")
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise GateError(f"Output {name} is NaN or infinite.", "Check the recipe's scaling and the weights.")
        error = a - b
        largest = max(largest, float(np.abs(b).max(initial=0)))
        largest_error = max(largest_error, float(np.abs(error).max(initial=0)))
        signal += float((b**2).sum())
        noise += float((error**2).sum())
    relative = largest_error / largest if largest > 0 else largest_error
    sqnr = 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else None
    return OutputFidelity(output=name, reference=kind, relative_error=relative, sqnr_db=sqnr)


def require_parity(fidelity: Sequence[OutputFidelity]) -> None:
    """Refuse a conversion that is not the Keras model.

    Raises:
        GateError: an output differs by more than `PARITY_LIMIT` of its range.
    """
    for output in fidelity:
        if output.relative_error > PARITY_LIMIT:
            raise GateError(
                f"The ONNX graph is not the Keras model: output {output.output} differs by "
                f"{output.relative_error:.2g} of its range (limit {PARITY_LIMIT:g}).",
                "This is a conversion fault: report the model, if you may share it.",
            )


def largest_values(outputs: Outputs) -> dict[str, float]:
    """max|output| over all samples, by name."""
    return {name: max(float(np.abs(sample[name]).max(initial=0)) for sample in outputs) for name in outputs[0]}


def largest_differences(got: Outputs, reference: Outputs) -> dict[str, float]:
    """max|Δ| over all samples, by output name."""
    return {
        name: max(
            float(np.abs(a[name].astype(np.float64) - b[name]).max(initial=0))
            for a, b in zip(got, reference, strict=True)
        )
        for name in reference[0]
    }
