"""Load a model in the child: a Keras file or a SavedModel, behind one small face."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemed.base.errors import InputError, ResourceError, UnsafeModelError
from edgemed.base.runner import TensorSpec
from edgemed.convert.known import KERAS_OPERATIONS
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
    call: Callable[[Sequence[Any]], list[Any]]
    parameters: int
    parameter_bytes: int
    layers: tuple[LayerInfo, ...] = ()
    rescales_inside: bool = False
    keep: list[Any] = field(default_factory=list)
    """Objects that must outlive the call (a SavedModel's variables die with its root)."""


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
    path: Path, scan: Scan, given: Mapping[str, tuple[int, ...]], batch: int, allow_code: Path | None
) -> Loaded:
    """Load a `.h5` or `.keras` file with Keras 3, for inference only (`compile=False`).

    Raises:
        InputError: Keras cannot load it, weights are NaN or infinite, or the inputs are not as they must be.
        UnsafeModelError: a custom object is missing, or Keras' safe mode refuses it.
    """
    import keras

    objects = run_user_code(allow_code) if allow_code else {}
    try:
        model = keras.models.load_model(path, custom_objects=objects, compile=False, safe_mode=allow_code is None)
    except MemoryError as error:
        raise ResourceError("Out of memory while loading the model.", "Close other programs or add swap.") from error
    except Exception as error:
        raise _explain(error, scan) from error
    layers = flat_layers(model)
    _check_weights(layers, model)
    _use_float32(layers)
    inputs, outputs, call = _keras_face(model, given, batch)
    return Loaded(
        inputs, outputs, call, model.count_params(), sum(_nbytes(v) for v in model.weights),
        tuple(LayerInfo(layer.name, type(layer).__name__) for layer in layers), begins_with_rescaling(model), [model],
    )  # fmt: skip


def load_saved_model(path: Path, given: Mapping[str, tuple[int, ...]], batch: int, signature: str | None) -> Loaded:
    """Load one signature of a SavedModel (its graph has been scanned before).

    Raises:
        InputError: TensorFlow cannot load it, the signature is missing, or weights are NaN or infinite.
    """
    import tensorflow as tf

    try:
        root = tf.saved_model.load(str(path))
    except Exception as error:
        raise InputError(f"TensorFlow cannot load {path.name}: {_first_line(error)}.", "Export it again.") from error
    name = _pick_signature(list(root.signatures), signature)
    function = root.signatures[name]
    tensors = function.structured_input_signature[1]
    declared = [TensorSpec(n, _dtype(n, s.dtype.name), tuple(s.shape)) for n, s in sorted(tensors.items())]
    for variable in function.variables:
        _check_finite(variable, f"The variable '{variable.name}'")
    specs = fix_shapes(declared, given, batch)
    outputs = tuple(sorted(function.structured_outputs))  # a protobuf map: its own order changes from run to run

    def call(values: Sequence[Any]) -> list[Any]:
        result = function(**{spec.name: value for spec, value in zip(specs, values, strict=True)})
        return [result[output] for output in outputs]

    sizes = [_nbytes(v) for v in function.variables]
    count = sum(int(tf.size(v)) for v in function.variables)
    return Loaded(specs, outputs, call, count, sum(sizes), keep=[root])


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
        return name in ("Rescaling", "Normalization", "TrueDivide", "Divide")
    return False


def _keras_face(
    model: Any, given: Mapping[str, tuple[int, ...]], batch: int
) -> tuple[tuple[TensorSpec, ...], tuple[str, ...], Callable[[Sequence[Any]], list[Any]]]:
    import keras

    if not getattr(model, "inputs", None):
        return _subclassed_face(model, given, batch)
    declared = [TensorSpec(t.name, _dtype(t.name, str(t.dtype)), tuple(t.shape)) for t in model.inputs]
    specs = fix_shapes(declared, given, batch)
    structure = model.input if isinstance(model, keras.Model) and hasattr(model, "_inputs_struct") else model.inputs[0]
    outputs = getattr(model, "_outputs_struct", model.outputs)
    keyed = isinstance(outputs, dict)
    names = list(outputs) if keyed else [tensor._keras_history.operation.name for tensor in model.outputs]

    def call(values: Sequence[Any]) -> list[Any]:
        result = model(keras.tree.pack_sequence_as(structure, list(values)), training=False)
        return [result[name] for name in names] if keyed else keras.tree.flatten(result)

    return specs, _unique(names, {spec.name for spec in specs}), call


def _subclassed_face(
    model: Any, given: Mapping[str, tuple[int, ...]], batch: int
) -> tuple[tuple[TensorSpec, ...], tuple[str, ...], Callable[[Sequence[Any]], list[Any]]]:
    import keras
    import tensorflow as tf

    if not given:
        raise InputError(
            f"The model '{model.name}' is a subclass that declares no inputs.", "Give --input NAME=1xHxWxC."
        )
    declared = [TensorSpec(name, "float32", shape) for name, shape in given.items()]
    specs = fix_shapes(declared, given, batch)

    def result_of(values: Sequence[Any]) -> Any:
        if len(specs) == 1:
            return model(values[0], training=False)
        return model({spec.name: value for spec, value in zip(specs, values, strict=True)}, training=False)

    try:
        sample = result_of([tf.zeros(spec.shape, spec.dtype) for spec in specs])
    except Exception as error:
        shown = ", ".join(map(str, specs))
        raise InputError(f"The model cannot take {shown}: {_first_line(error)}.", "Correct --input.") from error
    names = list(sample) if isinstance(sample, dict) else None
    count = len(keras.tree.flatten(sample))

    def call(values: Sequence[Any]) -> list[Any]:
        result = result_of(values)
        return [result[name] for name in names] if names else keras.tree.flatten(result)

    fallback = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    return specs, _unique(names or fallback, {spec.name for spec in specs}), call


def _unique(names: Sequence[str], taken: set[str]) -> tuple[str, ...]:
    """ONNX needs different names for all inputs and outputs; a layer may give several outputs."""
    result: list[str] = []
    for name in names:
        candidate, number = name, 0
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken.add(candidate)
        result.append(candidate)
    return tuple(result)


def _dtype(name: str, dtype: str) -> str:
    if dtype in ("float32", "int32", "int64", "uint8", "bool"):
        return dtype
    raise InputError(
        f"The input '{name}' is {dtype}, which edgemed cannot feed.", "Save the model with float32 inputs."
    )


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
        if variable.dtype in ("float16", "bfloat16", "float64"):
            raise InputError(
                f"The weight '{variable.path}' is {variable.dtype}.", "Save the model with the dtype policy float32."
            )


def _check_finite(variable: Any, what: str) -> None:
    import numpy as np

    values = np.asarray(variable)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise InputError(
            f"{what} holds {bad} NaN or infinite values.", "Train the model again, or take an earlier one."
        )


def _use_float32(layers: Sequence[Any]) -> None:
    """Compute mixed-precision layers in float32: their weights are float32 already."""
    for layer in layers:
        for part in layer._flatten_layers():
            if part.dtype_policy.name.startswith("mixed_"):
                part.dtype_policy = "float32"


_MISSING = (
    re.compile(r"Could not locate (?:class|function) '([^']+)'"),
    re.compile(r"Unknown (?:\w+ ?)+: '([^']+)'"),
    re.compile(r"Cannot deserialize object of type `([^`]+)`"),
)


def _explain(error: Exception, scan: Scan) -> InputError:
    """Turn what Keras raises while loading into one sentence."""
    text = str(error)
    name = next((match.group(1) for pattern in _MISSING if (match := pattern.search(text))), None)
    if scan.keras2:
        return InputError(
            f"Keras {scan.written_by or '2'} wrote the file, and Keras 3 cannot load it: {_first_line(error)}.",
            "Files written by Keras 2 come with a later version; save it again with Keras 3, or as a SavedModel.",
        )
    if name in KERAS_OPERATIONS:
        return InputError(
            f"Keras cannot load the operation '{name}' from a .h5 file.",
            "Save the model again with model.save('model.keras'), or put a layer (such as Rescaling) in its place.",
        )
    if name is not None:
        return UnsafeModelError(
            f"The model needs the custom object '{name}', which the file does not define.",
            "Define it in a Python file and give --allow-code FILE.py.",
        )
    if "safe_mode" in text or "unsafe" in text:
        return UnsafeModelError(
            f"Keras refuses to load the model: {_first_line(error)}.", "If you trust it, give --allow-code FILE.py."
        )
    return InputError(f"Keras cannot load the model: {_first_line(error)}.", "Save it again with Keras 3.")


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(". ")[:300]
