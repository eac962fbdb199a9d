"""Repairs around tf2onnx 1.17 and Keras 3, each for one measured failure; imported in the child only.

All private names that are touched here are pinned by `tests/convert/test_fixes.py`.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def register_erfc() -> None:
    """Teach tf2onnx `Erfc` (which TensorFlow's exact GELU emits) as `1 - Erf(x)`."""
    import numpy as np
    from tf2onnx.handler import tf_op

    class Erfc:
        @classmethod
        def version_9(cls, ctx: Any, node: Any, **kwargs: Any) -> None:  # noqa: ARG003 - tf2onnx's signature
            dtype, shape = ctx.get_dtype(node.output[0]), ctx.get_shape(node.output[0])
            source, output = node.input[0], node.output[0]
            kind = np.float64 if dtype == 11 else np.float32
            ctx.remove_node(node.name)
            erf = ctx.make_node("Erf", [source], name=f"{node.name}_erf", shapes=[shape], dtypes=[dtype])
            one = ctx.make_const(f"{node.name}_one", np.array(1, dtype=kind))
            ctx.make_node(
                "Sub", [one.output[0], erf.output[0]], name=node.name, outputs=[output], shapes=[shape], dtypes=[dtype]
            )

    tf_op("Erfc")(Erfc)


def restore_numpy_product() -> None:
    """Give tf2onnx the `np.product` that numpy 2 dropped."""
    import numpy as np

    if not hasattr(np, "product"):
        np.product = np.prod  # type: ignore[attr-defined]


@contextmanager
def constants_copied_once() -> Iterator[None]:
    """Keep tf2onnx from copying every weight again in each optimizer pass.

    `Graph.update_proto` re-creates the protobuf of all nodes, some 24 times; protobuf's arena never frees the
    old copies, so a 550 MB model ran out of 24 GB. The initializers are taken from the attributes in the end,
    not from this protobuf, so constants can be left out.
    """
    from tf2onnx.graph import Node

    original = Node.update_proto

    def update_proto(self: Any, external_tensor_storage: Any = None) -> Any:
        return None if self.is_const() else original(self, external_tensor_storage)

    Node.update_proto = update_proto
    try:
        yield
    finally:
        Node.update_proto = original


@contextmanager
def optimized_in_place() -> Iterator[None]:
    """Keep tf2onnx from deep-copying the whole graph, weights included, before each optimizer pass.

    The copies only serve to go on when a pass raises. Where this variable is set at all, tf2onnx 1.17 lets the
    exception out instead; then the caller tries again without this.
    """
    os.environ["TF2ONNX_CATCH_ERRORS"] = "FALSE"
    try:
        yield
    finally:
        del os.environ["TF2ONNX_CATCH_ERRORS"]


def strip_xla_attributes(graph_def: Any) -> None:
    """Remove the marks that keep grappler from inlining Keras' grouped convolution.

    Keras wraps it in `tf.function(jit_compile=True)`; the call that stays behind has no ONNX equivalent.
    """
    functions = graph_def.library.function
    holders = [*functions, *graph_def.node, *(node for function in functions for node in function.node_def)]
    for holder in holders:
        for attribute in ("_XlaMustCompile", "_noinline"):
            if attribute in holder.attr:
                del holder.attr[attribute]


@contextmanager
def no_random_initializers(library: str) -> Iterator[None]:
    """While loading, let random initializers give zeros: the file's weights replace them at once.

    Drawing 411 MB of VGG16's first Dense layer takes several times its size.
    """
    import tensorflow as tf

    initializers = importlib.import_module(library).initializers
    names = ("Orthogonal", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling")
    classes = [getattr(initializers, name) for name in names]
    originals = [cls.__call__ for cls in classes]

    def zeros(self: Any, shape: Any, dtype: Any = None, **kwargs: Any) -> Any:  # noqa: ARG001 - Keras' signature
        return tf.zeros(shape, dtype or "float32")

    for cls in classes:
        cls.__call__ = zeros
    try:
        yield
    finally:
        for cls, original in zip(classes, originals, strict=True):
            cls.__call__ = original


@contextmanager
def assigned_in_parts(part_bytes: int = 16 * 2**20) -> Iterator[None]:
    """While loading, give large variables their values in parts; at once, TensorFlow makes two copies in between."""
    import keras
    from tensorflow.python.ops.resource_variable_ops import ResourceVariable

    classes: list[tuple[Any, Callable[[Any], Any]]] = [
        (keras.Variable, lambda variable: variable._value),
        (ResourceVariable, lambda variable: variable),
    ]
    originals = [cls.assign for cls, _ in classes]
    for (cls, resource), original in zip(classes, originals, strict=True):
        cls.assign = _assigning(original, resource, part_bytes)
    try:
        yield
    finally:
        for (cls, _), original in zip(classes, originals, strict=True):
            cls.assign = original


def _assigning(original: Any, resource: Callable[[Any], Any], part_bytes: int) -> Callable[..., Any]:
    import tensorflow as tf

    def assign(self: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        target = resource(self)
        shape = tuple(target.shape)
        size = (target.shape.num_elements() or 0) * target.dtype.size
        if size <= part_bytes or shape[0] < 2 or tuple(getattr(value, "shape", ())) != shape:
            return original(self, value, *args, **kwargs)
        step = max(1, shape[0] * part_bytes // size)
        for begin in range(0, shape[0], step):
            end = min(begin + step, shape[0])
            part = tf.cast(value[begin:end], target.dtype)
            tf.raw_ops.ResourceStridedSliceAssign(ref=target.handle, begin=[begin], end=[end], strides=[1], value=part)
        return self

    return assign


@contextmanager
def operations_from_h5() -> Iterator[None]:
    """While loading, find the operations that Keras 3 writes into `.h5` files and cannot read from them.

    `x + 3` in a functional model is an `Add` there, without a module: Keras takes it for the layer of that name, or
    for an unknown one. An operation's configuration is what its constructor takes; every layer's has `trainable`.
    """
    from keras.src.legacy.saving import saving_utils
    from keras.src.saving.object_registration import get_registered_object

    original = saving_utils.model_from_config
    operations = _keras_operations()

    def from_config(config: Any, custom_objects: Any = None) -> Any:
        inner = config.get("config") if isinstance(config, dict) else None
        name = config.get("class_name") if isinstance(inner, dict) and "trainable" not in inner else None
        if name not in operations or get_registered_object(name, custom_objects) is not None:  # the user's class
            return original(config, custom_objects)
        return operations[name].from_config(inner)

    saving_utils.model_from_config = from_config
    try:
        yield
    finally:
        saving_utils.model_from_config = original


def _keras_operations() -> dict[str, Any]:
    """Classes behind `keras.ops`, by name."""
    from keras.src.ops.operation import Operation

    found, waiting = {}, [Operation]
    while waiting:
        for cls in waiting.pop().__subclasses__():
            waiting.append(cls)
            if cls.__module__.startswith("keras.src.ops."):
                found[cls.__name__] = cls
    return found


@contextmanager
def nearest_upsampling_as_resize() -> Iterator[None]:
    """While tracing, let a nearest `UpSampling2D` be one plain resize operation.

    Keras 3 repeats along each axis, which becomes chains of Unsqueeze, Tile, Transpose and Reshape that no graph
    optimizer removes; tf_keras resizes between half pixels, which TensorRT refuses. For whole factors, nearest
    resizing (asymmetric, floor) copies the same pixels.
    """
    layers = [sys.modules[name].layers.UpSampling2D for name in ("keras", "tf_keras") if name in sys.modules]
    originals = [layer.call for layer in layers]
    for layer, original in zip(layers, originals, strict=True):
        layer.call = _resizing(original)
    try:
        yield
    finally:
        for layer, original in zip(layers, originals, strict=True):
            layer.call = original


def _resizing(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    import tensorflow as tf

    def call(self: Any, inputs: Any) -> Any:
        height, width = inputs.shape[1:3]
        channels_last = self.data_format == "channels_last"
        if self.interpolation != "nearest" or not channels_last or height is None or width is None:
            return original(self, inputs)
        size = [height * self.size[0], width * self.size[1]]
        return tf.raw_ops.ResizeNearestNeighbor(images=inputs, size=size)

    return call


class ErrorLog(logging.Handler):
    """Collects what tf2onnx logs as errors: it goes on after them and writes an invalid model."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.unsupported: list[tuple[str, str]] = []
        """(TensorFlow node, operation) without an ONNX equivalent."""
        self.failed: list[str] = []
        """TensorFlow nodes whose conversion raised."""

    def emit(self, record: logging.LogRecord) -> None:
        """Sort one record by tf2onnx's own message formats."""
        args = record.args if isinstance(record.args, tuple) else ()
        if record.msg.startswith("Tensorflow op [%s: %s]"):
            self.unsupported.append((str(args[0]), str(args[1])))
        elif record.msg.startswith("Failed to convert node"):
            self.failed.append(str(args[0]))


@contextmanager
def tf2onnx_errors() -> Iterator[ErrorLog]:
    """Collect tf2onnx's errors of the block."""
    logger, log = logging.getLogger("tf2onnx"), ErrorLog()
    logger.addHandler(log)
    try:
        yield log
    finally:
        logger.removeHandler(log)
