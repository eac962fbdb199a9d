"""What goes into a conversion and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgemed.base.runner import TensorSpec

Format = Literal["keras-h5", "keras-v3", "saved-model"]
Activation = Literal["sigmoid", "softmax", "none"]

IR_VERSIONS = {11: 6, 13: 7, 15: 8, 16: 8, 17: 8, 18: 8}
"""ONNX IR version by opset: the pairs that tf2onnx 1.17 writes and that every supported runtime accepts."""


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert one model."""

    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Full shapes by input name, batch included; needed where the model leaves a dimension open."""
    allow_code: Path | None = None
    """A Python file that the user trusts: run in the child only, to register custom objects."""
    batch: int | None = 1
    """Size of an open first dimension; None leaves it open."""
    opset: int = 17
    signature: str | None = None
    """Signature of a SavedModel; by default `serving_default`, or the only one."""
    external_above: int = 150 * 2**20
    """Bytes of weights above which the large ones go to a file of their own beside the ONNX file."""


@dataclass(frozen=True)
class LayerInfo:
    """Name and class of one Keras layer."""

    name: str
    class_name: str


@dataclass(frozen=True)
class Converted:
    """One converted model: where the ONNX file lies, and what it takes and gives."""

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    format: Format
    versions: dict[str, str]
    """`keras_in_file` or `tensorflow_in_file` where the file says so; `tensorflow`, `keras`, `tf2onnx` as used."""
    rescales_inside: bool
    """The model itself begins with Rescaling or Normalization, so it expects raw pixel values."""
    output_activations: dict[str, Activation]
    parameters: int
    layers: tuple[LayerInfo, ...]


def specs_to_json(specs: tuple[TensorSpec, ...]) -> list[Any]:
    """JSON form of tensor specs, for the child's pipe."""
    return [[spec.name, spec.dtype, list(spec.shape)] for spec in specs]


def specs_from_json(value: list[Any]) -> tuple[TensorSpec, ...]:
    """Inverse of `specs_to_json`."""
    return tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in value)
