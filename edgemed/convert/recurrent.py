"""Recurrent layers as one ONNX node each, instead of a Loop.

tf2onnx recognises the loops that Keras 2 wrote, in their usual forms, but none of Keras 3's. So while tracing, a
recurrent layer in its usual form is written as TensorFlow's one operation for a whole sequence, `CudnnRNNV3`, with
the weights already in ONNX' order; it is never run, and a handler turns it into ONNX' LSTM, GRU or RNN.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_NAMES = ("LSTM", "GRU", "SimpleRNN")
_MARK = "edgemed_recurrent"  # a CudnnRNNV3 of a SavedModel has its weights in another order
_MODES = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn_tanh"}


@contextmanager
def as_single_nodes() -> Iterator[None]:
    """While tracing, let the recurrent layers of both Keras be single operations."""
    libraries = [sys.modules[name] for name in ("keras", "tf_keras") if name in sys.modules]
    layers = [getattr(library.layers, name) for library in libraries for name in _NAMES]
    originals = [layer.call for layer in layers]
    for layer, original in zip(layers, originals, strict=True):
        layer.call = _single(original, layer.__name__)
    try:
        yield
    finally:
        for layer, original in zip(layers, originals, strict=True):
            layer.call = original


def _single(original: Callable[..., Any], kind: str) -> Callable[..., Any]:
    def call(self: Any, sequences: Any, *args: Any, mask: Any = None, initial_state: Any = None, **kwargs: Any) -> Any:
        states = list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state]
        inputs = sequences
        if isinstance(sequences, (list, tuple)):  # Keras 2 puts the states behind the sequence
            inputs, *behind = sequences
            states = behind or states
        if args or mask is not None or not _is_usual(self, kind) or inputs.shape.rank != 3:
            return original(self, sequences, *args, mask=mask, initial_state=initial_state, **kwargs)
        return _outputs(self, kind, inputs, [state for state in states if state is not None])

    return call


def _is_usual(layer: Any, kind: str) -> bool:
    activations = [layer.activation] if kind == "SimpleRNN" else [layer.activation, layer.recurrent_activation]
    names = [getattr(function, "__name__", "") for function in activations]
    if layer.cell.kernel.dtype != "float32" and getattr(layer.cell.kernel.dtype, "name", "") != "float32":
        return False
    return names == ["tanh", "sigmoid"][: len(names)] and not getattr(layer, "time_major", False)


def _outputs(layer: Any, kind: str, inputs: Any, states: Sequence[Any]) -> Any:
    import tensorflow as tf

    if layer.go_backwards:
        inputs = tf.reverse(inputs, [1])
    steps = tf.transpose(inputs, [1, 0, 2])
    count = 2 if kind == "LSTM" else 1
    zeros = tf.zeros([tf.shape(inputs)[0], layer.units], inputs.dtype)
    states = [*states, zeros, zeros][:count]
    hidden, carry = states[0], states[-1]
    reset_after = kind == "GRU" and layer.cell.reset_after
    result = tf.raw_ops.CudnnRNNV3(
        input=steps,
        input_h=tf.expand_dims(hidden, 0),
        input_c=tf.expand_dims(carry, 0),
        params=_parameters(layer.cell, kind),
        sequence_lengths=tf.fill([tf.shape(inputs)[0]], tf.shape(inputs)[1]),
        rnn_mode=_MODES[kind],
        is_training=False,
        name=f"{_MARK}_reset_after" if reset_after else _MARK,
    )
    after = [tf.squeeze(state, 0) for state in (result.output_h, result.output_c)[:count]]
    output = tf.transpose(result.output, [1, 0, 2]) if layer.return_sequences else after[0]
    return [output, *after] if layer.return_state else output


def _parameters(cell: Any, kind: str) -> Any:
    """Weights, recurrent weights and both biases, one after the other, gates in ONNX' order."""
    import tensorflow as tf

    order = {"LSTM": (0, 3, 1, 2), "GRU": (0, 1, 2), "SimpleRNN": (0,)}[kind]  # Keras: i f c o, z r h

    def onnx_order(value: Any) -> Any:
        gates = tf.split(tf.convert_to_tensor(value), len(order), axis=-1)
        return tf.reshape(tf.transpose(tf.concat([gates[i] for i in order], axis=-1)), [-1])

    width = len(order) * cell.units
    bias = tf.convert_to_tensor(cell.bias) if cell.use_bias else tf.zeros([width])
    biases = tf.unstack(bias) if bias.shape.rank == 2 else [bias, tf.zeros([width])]
    return tf.concat([onnx_order(value) for value in (cell.kernel, cell.recurrent_kernel, *biases)], axis=0)


def register_handler() -> None:
    """Teach tf2onnx to turn the operations written above into ONNX nodes."""
    from tf2onnx.handler import tf_op

    class CudnnRNNV3:
        @classmethod
        def version_7(cls, ctx: Any, node: Any, **kwargs: Any) -> None:  # noqa: ARG003 - tf2onnx's signature
            _to_onnx(ctx, node)

    tf_op("CudnnRNNV3")(CudnnRNNV3)


def _to_onnx(ctx: Any, node: Any) -> None:
    from tf2onnx.graph_builder import GraphBuilder

    mode = node.get_attr_str("rnn_mode")
    if _MARK not in node.name:
        raise ValueError(f"{node.name} is a recurrent operation for GPUs")
    kind = {mode: name for name, mode in _MODES.items()}[mode].removeprefix("Simple")
    inputs, hidden, carry, parameters = node.input[:4]
    units, width = ctx.get_shape(hidden)[-1], ctx.get_shape(inputs)[-1]
    weights = _weights(ctx, node, parameters, {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * units, width, units)
    outputs = list(node.output[:3])
    shapes, dtypes = [ctx.get_shape(name) for name in outputs], [ctx.get_dtype(name) for name in outputs]
    ctx.remove_node(node.name)
    attributes: dict[str, Any] = {"hidden_size": units, "direction": "forward"}
    if kind == "GRU":
        attributes["linear_before_reset"] = int("reset_after" in node.name)
    made = ctx.make_node(
        kind,
        [inputs, *weights, "", hidden, *([carry] if kind == "LSTM" else [])],
        attr=attributes,
        name=f"{node.name}_node",
        output_count=3 if kind == "LSTM" else 2,
        dtypes=[dtypes[0]] * (3 if kind == "LSTM" else 2),
    )
    GraphBuilder(ctx).make_squeeze(
        {"data": made.output[0], "axes": [1], "outputs": [outputs[0]]}, shapes=[shapes[0]], dtypes=[dtypes[0]]
    )
    for output, shape, dtype, source in zip(outputs[1:], shapes[1:], dtypes[1:], made.output[1:], strict=False):
        ctx.make_node("Identity", [source], outputs=[output], shapes=[shape], dtypes=[dtype])


def _weights(ctx: Any, node: Any, parameters: str, rows: int, width: int, units: int) -> list[str]:
    """Names of W [1, rows, width], R [1, rows, units] and B [1, 2 rows]."""
    import numpy as np

    values = ctx.get_node_by_output(parameters).get_tensor_value(as_list=False)
    parts = np.split(values, [rows * width, rows * (width + units)])
    shapes = [(1, rows, width), (1, rows, units), (1, 2 * rows)]
    names = [f"{node.name}_{letter}" for letter in "WRB"]
    return [ctx.make_const(n, p.reshape(s)).output[0] for n, p, s in zip(names, parts, shapes, strict=True)]
