"""What a worker is to run, and what the parent knows of it beforehand: sizes and golden vectors.

A spec is made in this process only: no file and no message of a worker becomes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from edgemed.base.errors import InputError, IntegrityError
from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.bundle.model import RunPrecision, specs_of
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.runners.golden import Golden
from edgemed.runtime.contained.shared import Shape

Backend = Literal["tensorrt", "onnxruntime"]


@dataclass(frozen=True)
class GoldenCase:
    """Golden vectors, and what is right for this worker: `tolerance` maps outputs to absolute differences."""

    golden: Golden
    precision: str
    tolerance: Mapping[str, float]

    def __post_init__(self) -> None:
        expected = self.golden.outputs.get(self.precision)
        if expected is None or expected.keys() != self.tolerance.keys():
            raise IntegrityError(f"The golden vectors have no outputs for {self.precision}.", "Build the bundle anew.")

    def fits(self, specs: RunnerSpecs) -> bool:
        """Whether a model takes and gives what the vectors hold, and no more."""
        inputs, outputs = self.golden.inputs, self.golden.outputs[self.precision]
        return _fit(inputs, specs.inputs) and _fit(outputs, specs.outputs)


def _fit(arrays: Mapping[str, NDArray[Any]], specs: tuple[TensorSpec, ...]) -> bool:
    return arrays.keys() == {spec.name for spec in specs} and all(
        spec.admits(str(arrays[spec.name].dtype), arrays[spec.name].shape[1:]) for spec in specs
    )


@dataclass(frozen=True)
class Known:
    """What is known of a model before any worker has loaded it.

    Attributes:
        message: what the worker is told to build.
        specs: what it has to take and give; `None`: what it says.
        greatest: of tensors whose shape varies.
        golden: what it has to answer rightly before it answers anything else; `None`: nothing is checked.
    """

    message: dict[str, Any]
    specs: RunnerSpecs | None
    greatest: Mapping[str, Shape]
    golden: GoldenCase | None


class WorkerSpec(Protocol):
    """Something that a worker can run."""

    def read(self) -> Known:
        """Look at the model, without loading it.

        Raises:
            InputError: there is none, or it lacks what was asked for.
            IntegrityError: it is damaged.
        """
        ...


@dataclass(frozen=True)
class BundleWorker:
    """A bundle on one backend.

    Attributes:
        bundle: the `NAME.edgemed` directory.
        backend: what runs it.
        precision: `None`: the bundle's own.
        options: for the Runner: `threads` (onnxruntime); what `TensorRtLane` takes (tensorrt).
    """

    bundle: Path
    backend: Backend
    precision: RunPrecision | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> Known:
        opened = open_bundle(self.bundle)
        precision = self.precision or opened.manifest.precision
        message = {
            "kind": self.backend,
            "bundle": str(self.bundle.resolve()),
            "digest": opened.digest,
            "precision": precision,
            "options": dict(self.options),
        }
        specs = specs_of(opened)
        return Known(message, specs, _greatest(opened), _golden(opened, specs, precision))


@dataclass(frozen=True)
class FunctionWorker:
    """A Runner, or a Lane, that a Python function makes. For tests and measurements: it runs whatever code it names.

    Attributes:
        function: `module:function`, or `/path/file.py:function`.
        arguments: what the function is called with, by name; JSON.
        greatest: of tensors whose shape varies.
        golden: as for a bundle.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    greatest: Mapping[str, Shape] = field(default_factory=dict)
    golden: GoldenCase | None = None

    def read(self) -> Known:
        message = {"kind": "function", "function": self.function, "arguments": dict(self.arguments)}
        return Known(message, None, self.greatest, self.golden)


def _greatest(bundle: Bundle) -> dict[str, Shape]:
    manifest = bundle.manifest
    greatest = {name: shapes[2] for name, shapes in manifest.profiles().items()}
    for tensor in manifest.outputs:
        shape = list(tensor.shape)
        if shape and shape[0] is None and manifest.batch is not None:
            shape[0] = manifest.batch.max
        if None in tensor.shape and None not in shape:
            greatest[tensor.name] = tuple(d for d in shape if d is not None)
    return greatest


def _golden(bundle: Bundle, specs: RunnerSpecs, precision: str) -> GoldenCase:
    manifest = bundle.manifest
    golden = Golden.from_bytes(bundle.read(manifest.golden.path), specs)
    if golden.samples != manifest.golden.samples:
        raise IntegrityError(
            f"There are {golden.samples} golden samples where the manifest says {manifest.golden.samples}.",
            "Build the bundle anew.",
        )
    if precision not in manifest.golden.tolerance:
        have = ", ".join(manifest.golden.tolerance)
        raise InputError(f"{bundle.path.name} has no {precision}.", f"It has: {have}.")
    return GoldenCase(golden, precision, manifest.golden.tolerance[precision])
