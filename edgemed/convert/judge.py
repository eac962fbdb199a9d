"""Judge a model's configuration: what in it is not Keras' own, and so would run code when it is loaded.

The judgement does not depend on who loads the file: Keras 3 has a safe mode, tf_keras has none for `.h5`, and
either may be asked to load any file. Everything that is not known to be harmless is refused.
"""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Iterator
from typing import Any

from edgemed.base.errors import InputError
from edgemed.convert.known import (
    CODE_CLASSES,
    KERAS2_CLASSES,
    KERAS_APPLICATION_CLASSES,
    KERAS_CLASSES,
    KERAS_OPERATIONS,
    TF_FUNCTIONS,
)
from edgemed.convert.savedmodel import forbidden_operation

_MAX_DEPTH = 200
_SKIPPED = frozenset({"compile_config", "build_config"})  # never deserialized: models load with compile=False
_DATA_CLASSES = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"})
_TYPE_SPECS = frozenset({"TensorSpec", "RaggedTensorSpec", "SparseTensorSpec"})
_COMPOSITES = frozenset({"RaggedTensor", "SparseTensor", "sparse.SparseTensor"})
_PROPERTIES = frozenset({"dense_shape", "flat_values", "indices", "row_splits", "to_tensor", "values", "with_values"})
_KNOWN = (KERAS_CLASSES, KERAS2_CLASSES, KERAS_OPERATIONS)
_APPLICATION_LAYER = re.compile(
    r"convnext_\w+_stage_\d+_block_\d+_(layer_scale|stochastic_depth)|custom_scale_layer(_\d+)?"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]{40,}")


def code_in(value: Any, layer: str = "", depth: int = 0) -> Iterator[str]:
    """Phrases for everything in a parsed configuration that needs code which is not Keras' own.

    Args:
        value: the configuration, or a part of it.
        layer: name of the layer that `value` belongs to.
        depth: how deep `value` lies.

    Raises:
        InputError: nested more deeply than any model.
    """
    if depth > _MAX_DEPTH:
        raise InputError("The model's configuration is nested too deeply.", "Do not trust this file.")
    if isinstance(value, dict):
        layer = _layer_name(value, layer)
    phrase = _judge(value)
    if phrase:
        yield f"layer '{layer}' ({phrase})" if layer else phrase
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in _SKIPPED:
                yield from code_in(item, layer, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from code_in(item, layer, depth + 1)


def _layer_name(value: dict[str, Any], outer: str) -> str:
    config, kind = value.get("config"), value.get("class_name")
    for name in (config.get("name") if isinstance(config, dict) else None, value.get("name")):
        if isinstance(name, str) and isinstance(kind, str) and kind not in ("DTypePolicy", "Policy"):
            return name
    return outer


def _judge(value: Any) -> str | None:
    """What is not Keras' own about one value; None for what is."""
    if _is_bytecode(value):
        return CODE_CLASSES["__lambda__"]
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("vocabulary"), str):
        return f"a vocabulary that is read from the file {value['vocabulary']!r}"
    name = value.get("class_name")
    return _judge_class(name, value) if isinstance(name, str) else None


def _judge_class(name: str, value: dict[str, Any]) -> str | None:
    if name in CODE_CLASSES:
        return CODE_CLASSES[name]
    if name in _DATA_CLASSES:
        return None
    if name == "__typespec__":
        return None if _is_type_spec(value) else f"the custom type {value.get('spec_name')}"
    if name == "function":
        return None if _is_own_function(value) else f"the custom function {value.get('config')}"
    if name in KERAS_APPLICATION_CLASSES:
        return None if _is_application_layer(name, value) else f"the custom class {name}"
    if name in _TENSORFLOW_LAYERS:
        return _judge_tensorflow(name, value.get("config"))
    module, registered = value.get("module"), value.get("registered_name")
    own = (module is None or _is_keras(module)) and (registered is None or _is_known(registered))
    if own and _is_known(name):
        return None
    custom = isinstance(registered, str) and not _is_known(registered)
    return f"the custom class {registered if custom else name}"


def _is_application_layer(name: str, value: dict[str, Any]) -> bool:
    """Whether a layer is that of `keras.applications`, and not the user's own of the same name.

    `.keras` files name the module. `.h5` files do not: there the layer's name is as the application gives it.
    """
    if "module" in value:
        source = f"src.applications.{KERAS_APPLICATION_CLASSES[name]}"
        return value["module"] in (f"keras.{source}", f"tf_keras.{source}")
    config = value.get("config")
    own = config.get("name") if isinstance(config, dict) else None
    return isinstance(own, str) and bool(_APPLICATION_LAYER.fullmatch(own))


def _is_known(name: object) -> bool:
    return isinstance(name, str) and any(name in listed for listed in _KNOWN)


def _is_keras(module: object) -> bool:
    return isinstance(module, str) and module.split(".")[0] in ("keras", "tf_keras")


def _is_bytecode(value: object) -> bool:
    """Whether this is how Keras writes a function: [marshalled code in base64, defaults, closure]."""
    if not isinstance(value, list) or len(value) != 3 or not isinstance(value[0], str):
        return False
    return all(v is None or isinstance(v, list) for v in value[1:]) and bool(_BASE64.fullmatch(value[0]))


def _is_own_function(value: dict[str, Any]) -> bool:
    """A function of Keras by its plain name; where Keras has none, the module's own would be taken."""
    name, registered = value.get("config"), value.get("registered_name")
    if not isinstance(name, str) or not name.isidentifier() or hasattr(builtins, name):
        return False
    if registered not in (None, "function", name):
        return False
    module = value.get("module")
    return module in (None, "builtins") or _is_keras(module)


def _is_type_spec(value: dict[str, Any]) -> bool:
    module = value.get("module")
    tensorflow = isinstance(module, str) and module.split(".")[0] == "tensorflow"
    return tensorflow and value.get("spec_name") in _TYPE_SPECS and value.get("registered_name") is None


# Keras 2 writes calls of TensorFlow's own functions as layers: by name, or as a whole node

_TENSORFLOW_LAYERS = frozenset(
    {"TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer"}
)


def _judge_tensorflow(name: str, config: object) -> str | None:
    if not isinstance(config, dict):
        return f"the custom class {name}"
    if name in ("TFOpLambda", "SlicingOpLambda"):
        function = config.get("function")
        return None if is_pure_function(function) else f"a call of the TensorFlow function {function}"
    if name == "TensorFlowOpLayer":
        operation = _operation_of(config.get("node_def"))
        unsafe = operation is None or forbidden_operation(operation)
        return f"the TensorFlow operation {operation}" if unsafe else None
    if name == "ClassMethod" and config.get("cls_symbol") not in _COMPOSITES:
        return f"a call of the TensorFlow method {config.get('cls_symbol')}.{config.get('method_name')}"
    attribute = config.get("attr_name", config.get("method_name"))
    if name == "ClassMethod":
        return None if isinstance(attribute, str) and attribute.startswith("from_") else f"a call of {attribute}"
    return None if attribute in _PROPERTIES else f"the attribute {attribute} of a tensor"


def is_pure_function(name: object) -> bool:
    """Whether a name of TensorFlow's API stands for a function that only computes tensors from tensors.

    tf_keras calls whatever the API exports: `io.gfile.remove` and `io.write_file` stand there as well.
    """
    if not isinstance(name, str):
        return False
    module, _, function = name.removeprefix("compat.v1.").rpartition(".")
    listed = TF_FUNCTIONS.get(module)
    if listed is None:
        return False
    # classes are written in capitals; samplers can read a vocabulary from a file
    return function in listed if listed else function == function.lower() and "candidate_sampler" not in function


def _operation_of(node_def: object) -> str | None:
    try:
        operation = json.loads(node_def)["op"] if isinstance(node_def, str) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return operation if isinstance(operation, str) else None
