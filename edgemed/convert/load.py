"""Load a model in the child: a Keras file or a SavedModel, behind one small face."""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemed.base.errors import InputError, MissingSoftwareError, ResourceError
from edgemed.base.lazy import require
from edgemed.base.runner import TensorSpec
from edgemed.convert import fixes
from edgemed.convert.explain import explain, first_line
from edgemed.convert.face import Call, face_of, fed_dtype
from edgemed.convert.known import KERAS_APPLICATION_CLASSES
from edgemed.convert.savedmodel import keras_layers
from edgemed.convert.scan import Scan
from edgemed.convert.shapes import fix_shapes
from edgemed.convert.types import LayerInfo


@dataclass
class Loaded:
    """A model in memory.

    `call` takes its inputs as a list of tensors in the order of `inputs` and gives its outputs in the order of
    `outputs`. Both eager (Keras' own result) and traced (for conversion) calls go through it.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    call: Call
    parameters: int
    parameter_bytes: int
    layers: tuple[LayerInfo, ...] = ()
    rescales_inside: bool = False
    keep: list[Any] = field(default_factory=list)
    """Objects that must outlive the call (a SavedModel's variables die with its root)."""
    library: str = ""
    """The Keras that loaded it: `keras` or `tf_keras`; empty for a SavedModel."""


def run_user_code(path: Path) -> dict[str, Any]:
    """Run the file that the user allowed; return its classes and functions, by name, as custom objects.

    Raises:
        InputError: the file is missing or raises.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist.", "Give the Python file that defines the model's custom objects.")
    sys.path.insert(0, str(path.parent))
    try:
        names = runpy.run_path(str(path), run_name="edgemed_allowed_code")
    except Exception as error:
        raise InputError(f"{path} failed: {type(error).__name__}: {error}.", "Correct the file.") from error
    return {name: value for name, value in names.items() if callable(value) and not name.startswith("_")}


def load_keras(
    path: Path, scan: Scan, given: Mapping[str, tuple[int, ...]], batch: int | None, allow_code: Path | None
) -> Loaded:
    """Load a `.h5` or `.keras` file for inference only (`compile=False`), with the Keras that wrote it or the other.

    Raises:
        InputError: neither Keras can load it, weights are NaN or infinite, or the inputs are not as they must be.
        UnsafeModelError: a custom object is missing, or Keras' safe mode refuses it.
        MissingSoftwareError: Keras 2 wrote it, and tf_keras is not installed.
    """
    if scan.keras2:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"  # the user's own file may say tf.keras
    objects = run_user_code(allow_code) if allow_code else {}
    model, library = _load(path, scan, objects, safe_mode=allow_code is None)
    layers = flat_layers(model)
    _check_weights(layers, model)
    _prepare(layers)
    face = face_of(model, given, batch)
    return Loaded(
        face.inputs, face.outputs, face.call, model.count_params(), sum(_nbytes(v) for v in model.weights),
        tuple(LayerInfo(layer.name, type(layer).__name__) for layer in layers), begins_with_rescaling(model), [model],
        library,
    )  # fmt: skip


def _load(path: Path, scan: Scan, objects: dict[str, Any], *, safe_mode: bool) -> tuple[Any, str]:
    """The model and the name of the library that loaded it."""
    first, second = ("tf_keras", "keras") if scan.keras2 else ("keras", "tf_keras")
    try:
        return _load_with(first, path, scan, objects, safe_mode), first
    except (InputError, ResourceError):
        raise
    except Exception as failure:
        try:
            return _load_with(second, path, scan, objects, safe_mode), second
        except Exception:
            error = failure  # that of the Keras that wrote the file says more
    raise error if isinstance(error, MissingSoftwareError) else explain(error, scan) from error


def _load_with(library: str, path: Path, scan: Scan, objects: dict[str, Any], safe_mode: bool) -> Any:
    # tf_keras ignores safe_mode for .h5: what keeps code from running is the scan before
    keras = _tf_keras() if library == "tf_keras" else require("keras", extra="build", purpose="load Keras models")
    source: Any = contextlib.nullcontext(path)
    if library == "tf_keras" and scan.format == "keras-h5":  # given a path, it reads each weight into three copies
        source = require("h5py", extra="build", purpose="read .h5 models").File(path, "r")
    try:
        with (
            source as opened,
            fixes.no_random_initializers(library),
            fixes.assigned_in_parts(),
            fixes.operations_from_h5(),
        ):
            known = _application_classes(library, scan) | objects
            return keras.models.load_model(opened, custom_objects=known, compile=False, safe_mode=safe_mode)
    except MemoryError as error:
        raise ResourceError("Memory ran out while loading the model.", "Close programs or add swap.") from error


def _application_classes(library: str, scan: Scan) -> dict[str, Any]:
    """Layers that Keras saves with its own applications but does not find again; none that the file has of its own."""
    return {
        name: getattr(importlib.import_module(f"{library}.src.applications.{module}"), name)
        for name, module in KERAS_APPLICATION_CLASSES.items()
        if not any(f"custom class {name})" in phrase for phrase in scan.unsafe)
    }


def _tf_keras() -> Any:
    try:
        return importlib.import_module("tf_keras")
    except ImportError as error:
        raise MissingSoftwareError(
            "Keras 2 wrote this file, and tf-keras, which reads such files, is not installed.",
            "Install it with: pip install --no-deps 'tf-keras==2.21.*'  (its dependencies would replace the CPU build "
            "of TensorFlow).",
        ) from error


def load_saved_model(
    path: Path, given: Mapping[str, tuple[int, ...]], batch: int | None, signature: str | None
) -> Loaded:
    """Load one signature of a SavedModel (its graph has been scanned before).

    Raises:
        InputError: TensorFlow cannot load it, the signature is missing, or weights are NaN or infinite.
    """
    import tensorflow as tf

    try:
        root = tf.saved_model.load(str(path))
    except Exception as error:
        raise InputError(f"TensorFlow cannot load {path.name}: {first_line(error)}.", "Export it again.") from error
    name = _pick_signature(list(root.signatures), signature)
    function = root.signatures[name]
    tensors = function.structured_input_signature[1]
    declared = [TensorSpec(n, fed_dtype(n, s.dtype.name), tuple(s.shape)) for n, s in sorted(tensors.items())]
    for variable in function.variables:
        _check_finite(variable, f"The variable '{variable.name}'")
    specs = fix_shapes(declared, given, batch)
    outputs = tuple(sorted(function.structured_outputs))  # a protobuf map: its own order changes from run to run

    def call(values: Sequence[Any]) -> list[Any]:
        result = function(**{spec.name: value for spec, value in zip(specs, values, strict=True)})
        return [result[output] for output in outputs]

    sizes = [_nbytes(v) for v in function.variables]
    count = sum(int(tf.size(v)) for v in function.variables)
    return Loaded(specs, outputs, call, count, sum(sizes), keras_layers(path), keep=[root])


def _pick_signature(names: list[str], wanted: str | None) -> str:
    if wanted is None:
        wanted = names[0] if len(names) == 1 else "serving_default"
    if wanted not in names:
        listed = ", ".join(names) or "(none)"
        raise InputError(f"The SavedModel has no signature '{wanted}'.", f"Its signatures are: {listed}.")
    return wanted


# Keras


def flat_layers(model: Any) -> list[Any]:
    """All layers in calling order, with those of nested models in their models' place."""
    layers = []
    for layer in model.layers:
        layers += flat_layers(layer) if hasattr(layer, "layers") else [layer]
    return layers


def begins_with_rescaling(model: Any) -> bool:
    """Whether the first thing that any input meets is Rescaling, Normalization, or a division by a constant.

    Layers that do nothing at inference, or keep the range of values, are looked through.
    """
    for operation in getattr(model, "operations", None) or model.layers:
        name = type(operation).__name__
        if name == "InputLayer" or name.startswith("Random") or name in ("Resizing", "CenterCrop", "ZeroPadding2D"):
            continue
        if hasattr(operation, "layers"):
            return begins_with_rescaling(operation)
        if name == "TFOpLambda":
            name = operation.symbol.rpartition(".")[2]
            if name in ("cast", "convert_image_dtype", "convert_to_tensor"):
                continue
        return name in ("Rescaling", "Normalization", "TrueDivide", "Divide", "truediv", "divide", "multiply")
    return False


def _nbytes(variable: Any) -> int:
    import numpy as np

    size = (
        1
        if "string" in str(variable.dtype)
        else np.dtype(str(getattr(variable.dtype, "name", variable.dtype))).itemsize
    )
    return int(np.prod(variable.shape, dtype=np.int64)) * size


def _check_weights(layers: Sequence[Any], model: Any) -> None:
    for layer in layers:
        for variable in layer.weights:
            _check_finite(variable, f"The weight '{variable.name}' of layer '{layer.name}'")
    for variable in model.weights:
        dtype = getattr(variable.dtype, "name", variable.dtype)
        if dtype in ("float16", "bfloat16", "float64"):
            name = getattr(variable, "path", variable.name)
            raise InputError(f"The weight '{name}' is {dtype}.", "Save the model with the dtype policy float32.")


def _check_finite(variable: Any, what: str) -> None:
    import numpy as np

    # a TensorFlow variable copies itself to an array, a tensor shows its memory
    values = np.asarray(variable.read_value() if hasattr(variable, "read_value") else variable)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise InputError(
            f"{what} holds {bad} NaN or infinite values.", "Train the model again, or take an earlier one."
        )


def _prepare(layers: Sequence[Any]) -> None:
    """Compute mixed-precision layers in float32 (their weights are float32 already), and recurrent layers as loops."""
    for layer in layers:
        for part in layer._flatten_layers():
            if part.dtype_policy.name.startswith("mixed_"):
                if hasattr(part, "_set_dtype_policy"):  # tf_keras
                    part._set_dtype_policy("float32")
                else:
                    part.dtype_policy = "float32"
            if getattr(part, "unroll", False):  # a copy of the cell's nodes per step, instead of one recurrent node
                part.unroll = False
            if hasattr(part, "recurrent_dropout") and not hasattr(
                part, "cell"
            ):  # none at inference, but Keras 3 draws its masks all the same
                part.dropout = part.recurrent_dropout = 0.0
            if getattr(part, "stateful", False) and hasattr(part, "cell"):
                raise InputError(
                    f"The layer '{part.name}' ({type(part).__name__}) is stateful: it keeps its state between calls.",
                    "Build it with stateful=False, take over the weights with set_weights, and save that model.",
                )
