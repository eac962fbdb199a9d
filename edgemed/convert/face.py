"""The inputs and outputs of a Keras model, of Keras 3 or tf_keras, behind one kind of call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec
from edgemed.convert.explain import first_line
from edgemed.convert.shapes import fix_shapes

Call = Callable[[Sequence[Any]], list[Any]]
_FED = ("float32", "int32", "int64", "uint8", "bool")


@dataclass(frozen=True)
class Face:
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    call: Call
    """Inputs as a list in the order of `inputs`; outputs in the order of `outputs`."""


def face_of(model: Any, given: Mapping[str, tuple[int, ...]], batch: int | None) -> Face:
    """The face of a loaded model, with all shapes fixed.

    Raises:
        InputError: shapes do not fit or stay open, or an input has a dtype that nothing can feed.
    """
    if not getattr(model, "inputs", None):
        return _subclassed(model, given, batch)
    specs = fix_shapes([_declared(tensor) for tensor in model.inputs], given, batch)
    keras3 = hasattr(model.inputs[0], "_keras_history") and hasattr(model.inputs[0]._keras_history, "operation")
    structure, outputs = _structures3(model) if keras3 else (model._nested_inputs, model._nested_outputs)
    keyed = isinstance(outputs, dict)
    if keyed:
        names = list(outputs)
    elif keras3:
        names = [tensor._keras_history.operation.name for tensor in model.outputs]
    else:
        names = list(model.output_names)
    import tensorflow as tf

    def call(values: Sequence[Any]) -> list[Any]:
        result = model(tf.nest.pack_sequence_as(structure, list(values)), training=False)
        return [result[name] for name in names] if keyed else tf.nest.flatten(result)

    return Face(specs, unique(names, {spec.name for spec in specs}), call)


def _structures3(model: Any) -> tuple[Any, Any]:
    import keras

    structure = model.input if isinstance(model, keras.Model) and hasattr(model, "_inputs_struct") else model.inputs[0]
    return structure, getattr(model, "_outputs_struct", model.outputs)


def _declared(tensor: Any) -> TensorSpec:
    dtype = str(getattr(tensor.dtype, "name", tensor.dtype))
    return TensorSpec(tensor.name, fed_dtype(tensor.name, dtype), tuple(tensor.shape))


def _subclassed(model: Any, given: Mapping[str, tuple[int, ...]], batch: int | None) -> Face:
    import tensorflow as tf

    if not given:
        raise InputError(
            f"The model '{model.name}' is a subclass that declares no inputs.", "Give --input NAME=1xHxWxC."
        )
    opened = {name: (None, *shape[1:]) if batch is None else shape for name, shape in given.items()}
    declared = [TensorSpec(name, "float32", shape) for name, shape in opened.items()]
    specs = fix_shapes(declared, given, batch)

    def result_of(values: Sequence[Any]) -> Any:
        if len(specs) == 1:
            return model(values[0], training=False)
        return model({spec.name: value for spec, value in zip(specs, values, strict=True)}, training=False)

    try:
        sample = result_of([tf.zeros([d or 1 for d in spec.shape], spec.dtype) for spec in specs])
    except Exception as error:
        shown = ", ".join(map(str, specs))
        raise InputError(f"The model cannot take {shown}: {first_line(error)}.", "Correct --input.") from error
    names = list(sample) if isinstance(sample, dict) else None
    count = len(tf.nest.flatten(sample))

    def call(values: Sequence[Any]) -> list[Any]:
        result = result_of(values)
        return [result[name] for name in names] if names else tf.nest.flatten(result)

    fallback = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    return Face(specs, unique(names or fallback, {spec.name for spec in specs}), call)


def unique(names: Sequence[str], taken: set[str]) -> tuple[str, ...]:
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


def fed_dtype(name: str, dtype: str) -> str:
    """The dtype of an input, if samples can be given in it.

    Raises:
        InputError: they cannot.
    """
    if dtype in _FED:
        return dtype
    if dtype == "string":
        raise InputError(
            f"The input '{name}' takes strings: the model decodes files or looks up words itself.",
            "Export the part of the model that starts at numbers, and do the decoding in the recipe.",
        )
    raise InputError(
        f"The input '{name}' is {dtype}, which edgemed cannot feed.", "Save the model with float32 inputs."
    )
