"""Writes every file that the tests of this folder read, in one process; only this process needs TensorFlow.

`python tests/convert/make_models.py DIR` also writes `facts.json`: the names of Keras' classes and the
signatures of the private functions of tf2onnx that edgemed leans on.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import keras_models
import make_keras2
import numpy as np
import tensorflow as tf

GOOD = {
    "seed_cnn.h5": "seed_cnn",
    "seed_cnn.saved": "seed_cnn",
    "unet.h5": "unet",
    "unet_nearest.keras": "unet:up=nearest",
    "tiny_resnet.h5": "tiny_resnet",
    "sequential.h5": "sequential",
    "functional.keras": "functional",
    "multi_io.keras": "multi_io",
    "multi_io.saved": "multi_io",
    "grouped.h5": "grouped",
    "gelu.keras": "gelu",
    "normalization.h5": "normalization",
    "normalization.saved": "normalization",
    "rescaling.keras": "rescaling",
}


@keras.saving.register_keras_serializable("clinic")
class Scale(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x * 2.0


@keras.saving.register_keras_serializable("clinic")
class Net(keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return {"score": self.head(x), "double": x * 2.0}


class Normalize(keras.layers.Layer):
    """The name of an operation of Keras, and a configuration that looks like one."""

    def call(self, x: Any) -> Any:
        return x * 5.0

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


class Unregistered(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x * 3.0


@keras.saving.register_keras_serializable("clinic")
def clinic_activation(x: Any) -> Any:
    return x * keras.ops.sigmoid(x)


def around(*layers: Any, shape: tuple[int | None, ...] = (8, 8, 1)) -> Any:
    """A model with `layers` between an input named image and a Dense head."""
    x = image = keras.Input(shape, name="image")
    for layer in layers:
        x = layer(x)
    return keras_models.randomize(keras.Model(image, keras.layers.Dense(2, name="head")(x)))


def save_both(model: Any, stem: Path) -> None:
    for suffix in (".h5", ".keras"):
        keras_models.save(model, stem.with_suffix(suffix))


def unsafe(out: Path) -> None:
    os.environ["EDGEMED_TOUCH"] = str(out / "touched")
    payload = lambda x: (__import__("pathlib").Path(__import__("os").environ["EDGEMED_TOUCH"]).touch(), x)[1]  # noqa: E731
    save_both(around(keras.layers.Lambda(payload, output_shape=(8, 8, 1), name="evil")), out / "lambda")
    save_both(around(keras.layers.Lambda(lambda x: x * 2.0, output_shape=(8, 8, 1), name="double")), out / "double")
    save_both(around(keras.layers.Conv2D(2, 3, activation=payload, name="hidden")), out / "lambda_activation")
    save_both(around(Scale(name="scaler")), out / "registered")
    save_both(around(Unregistered(name="stranger")), out / "unregistered")
    save_both(around(keras.layers.Conv2D(2, 3, activation=clinic_activation, name="activated")), out / "function")
    (out / "touched").unlink(missing_ok=True)  # tracing the payload while building ran it

    net = Net()
    net(np.zeros((1, 5), np.float32))
    keras_models.save(net, out / "subclass.keras")

    class Writes(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            tf.io.write_file(str(out / "touched"), "x")
            return {"y": x + 1.0}

    class Python(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            return {"y": tf.numpy_function(lambda v: v, [x], tf.float32)}

    class Reads(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            return {"y": tf.cond(x[0, 0] > 0, lambda: x, lambda: x + float(len("x")) * self.secret())}

        def secret(self) -> Any:
            return tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)

    class Saves(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            tf.raw_ops.SaveV2(prefix=str(out / "touched"), tensor_names=["x"], shape_and_slices=[""], tensors=[x])
            return {"y": x + 1.0}

    for module in (Writes(), Python(), Reads(), Saves()):
        tf.saved_model.save(module, str(out / f"{type(module).__name__.lower()}.saved"), signatures=module.serve)
    disguise(out / "saves.saved", out / "disguised.saved")


def disguise(source: Path, target: Path) -> None:
    """Give the function that writes a file the name of a checkpoint function."""
    import re
    import shutil

    from google.protobuf import text_format
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    shutil.copytree(source, target)
    text = text_format.MessageToString(SavedModel.FromString((source / "saved_model.pb").read_bytes()))
    renamed = re.sub(r"__inference_serve_\d+", "__inference__traced_save_99", text)
    assert renamed != text
    (target / "saved_model.pb").write_bytes(text_format.Parse(renamed, SavedModel()).SerializeToString())


def faulty(out: Path) -> None:
    conv = keras.layers.Conv2D(2, 3, name="burnt")
    model = around(conv)
    kernel = conv.get_weights()[0]
    kernel[0, 0, 0, 0] = np.nan
    conv.set_weights([kernel, *conv.get_weights()[1:]])
    save_both(model, out / "nan")
    save_both(around(keras.layers.Resizing(4, 4, antialias=True, name="shrink")), out / "antialias")
    save_both(around(keras.layers.Conv2D(2, 3), shape=(None, None, 1)), out / "open")
    model.save_weights(out / "only.weights.h5")
    image = keras.Input((8, 8, 1), name="image")
    save_both(keras.Model(image, keras.layers.Dense(1)(image / 255.0)), out / "arithmetic")


def odd(out: Path) -> None:
    """Layers that cannot be converted, recurrent layers in every form, signatures of several kinds."""
    kl = keras.layers
    save = {
        "lanczos": around(kl.Resizing(4, 4, interpolation="lanczos5", name="shrink")),
        "bicubic": around(kl.Resizing(4, 4, interpolation="bicubic", name="shrink")),
        "mel": around(kl.MelSpectrogram(fft_length=64, num_mel_bins=4, name="mel"), shape=(400,)),
        "bins": around(kl.Discretization(bin_boundaries=[0.0, 0.5], name="bins", output_mode="one_hot"), shape=(1,)),
        "wide": keras_models.build("unet:filters=48,size=16,depth=1"),
    }
    codes = keras.Input((3,), dtype="int64", name="codes")
    for name, layer in (("hashing", kl.Hashing(7, name="hash")), ("lookup", kl.IntegerLookup(vocabulary=[1, 5]))):
        save[name] = keras.Model(codes, kl.Dense(2)(kl.Flatten()(kl.Embedding(7, 2)(layer(codes)))))
    word = keras.Input((1,), dtype="string", name="word")
    save["word"] = keras.Model(word, kl.Embedding(4, 2)(kl.StringLookup(vocabulary=["a", "b"])(word)))
    fixed = keras.Input(batch_shape=(1, 6, 5))
    save["stateful"] = keras.Model(fixed, kl.LSTM(2, stateful=True, name="memory")(fixed))
    signal = keras.Input((6, 5), name="signal")
    sequence, hidden, carry = kl.LSTM(4, return_state=True, return_sequences=True, unroll=True)(signal)
    decoded = kl.LSTM(4, go_backwards=True, recurrent_dropout=0.2)(sequence, initial_state=[hidden, carry])
    both = kl.Bidirectional(kl.GRU(3, return_sequences=True, reset_after=False))(signal)
    joined = [decoded, carry, kl.Flatten()(both), kl.GRU(2, use_bias=False)(signal), kl.SimpleRNN(2)(signal)]
    save["recurrent"] = keras_models.randomize(keras.Model(signal, kl.Dense(2, name="score")(kl.Concatenate()(joined))))
    save["masked"] = keras_models.randomize(keras.Model(signal, kl.LSTM(4, name="score")(kl.Masking()(signal))))
    picture = keras.Input((4, 4, 1), name="image")
    score = kl.Dense(1, activation="sigmoid", name="score")(kl.Flatten()(picture))
    save["decides"] = keras_models.randomize(keras.Model(picture, [score, keras.ops.greater(score, 0.5)]))
    tokens = keras.Input((12, 8), name="tokens")
    attended = kl.GlobalAveragePooling1D()(kl.MultiHeadAttention(2, 4)(tokens, tokens))
    save["attention"] = keras_models.randomize(keras.Model(tokens, kl.Dense(2, name="score")(attended)))
    for name, model in save.items():
        keras_models.save(model, out / f"{name}.keras")
    square = keras.Input((4,), name="row")
    keras_models.save(keras.Model(square, kl.Dense(2, name="score")(Normalize()(square))), out / "normalize.h5")

    class Several(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = tf.Variable([[2.0, 3.0]])

        @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
        def score(self, x: Any) -> Any:
            return {"y": (x / 255.0 - 0.5) @ tf.transpose(self.scale)}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="png")])
        def decode(self, png: Any) -> Any:
            return {"n": tf.strings.length(png)}

    several = Several()
    tf.saved_model.save(several, str(out / "several.saved"), {"score": several.score, "decode": several.decode})


def mixed(out: Path) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    attention = keras.layers.MultiHeadAttention(2, 4)
    body = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Reshape((36, 4)), lambda x: attention(x, x)]
    save_both(around(*body), out / "mixed")
    keras.config.set_dtype_policy("float32")


def stateful_operations() -> set[str]:
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session

    listed = op_def_pb2.OpList.FromString(
        pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())  # type: ignore[attr-defined]
    )
    return {operation.name for operation in listed.op if operation.is_stateful}


def facts() -> dict[str, Any]:
    import keras.src.ops
    import tf2onnx
    import tf_keras
    from keras.src.legacy.saving import saving_utils
    from keras.src.models import functional
    from keras.src.ops.operation import Operation
    from tensorflow.python.framework import convert_to_constants
    from tensorflow.python.util import tf_export
    from tf2onnx import constants, tfonnx
    from tf2onnx.graph import Graph, Node
    from tf2onnx.handler import tf_op

    from edgemed.convert.known import KERAS_APPLICATION_CLASSES

    def below(cls: type) -> set[type]:
        return {s for direct in cls.__subclasses__() for s in {direct} | below(direct)}

    modules = [keras.layers, keras.initializers, keras.regularizers, keras.constraints, keras.dtype_policies]
    pins = {
        "from_graph_def": tf2onnx.convert.from_graph_def,
        "update_proto": Node.update_proto,
        "get_value_attr": Node.get_value_attr,
        "is_const": Node.is_const,
        "make_const": Graph.make_const,
        "make_node": Graph.make_node,
        "remove_node": Graph.remove_node,
        "tf_op": tf_op.__init__,
        "inline": convert_to_constants._run_inline_graph_optimization,
        "converter": convert_to_constants._FunctionConverterDataInEager.__init__,
        "replace": convert_to_constants._replace_variables_by_constants,
    }
    return {
        "tf2onnx": tf2onnx.__version__,
        "classes": sorted({n for m in modules for n, c in vars(m).items() if inspect.isclass(c)}),
        "operations": sorted(c.__name__ for c in below(Operation) if c.__module__.startswith("keras.src.ops.")),
        "parameters": {name: list(inspect.signature(function).parameters) for name, function in pins.items()},
        "erfc": "Erfc" in {op for versions in tf_op.get_opsets()[""] for op in versions},
        "ir": {str(opset): ir for opset, ir in constants.OPSET_TO_IR_VERSION.items()},
        "keras2": sorted(
            {n for m in (tf_keras.layers, tf_keras.initializers) for n, c in vars(m).items() if inspect.isclass(c)}
        ),
        "stateful": sorted(stateful_operations()),
        "functions": sorted(tf_export._NAME_TO_SYMBOL_MAPPING),
        "model_from_config": list(inspect.signature(saving_utils.model_from_config).parameters),
        "functional": inspect.getsource(functional.functional_from_config),
        "applications": [
            n
            for n, module in KERAS_APPLICATION_CLASSES.items()
            for library in ("keras", "tf_keras")
            if hasattr(importlib.import_module(f"{library}.src.applications.{module}"), n)
        ],
        "catch_errors": constants.ENV_TF2ONNX_CATCH_ERRORS,
        "messages": inspect.getsource(tfonnx.tensorflow_onnx_mapping),
        "make_graph": inspect.getsource(Graph.make_graph),
    }


def main(out: Path) -> None:
    for name, spec in GOOD.items():
        keras_models.save(keras_models.build(spec), out / name)
    unsafe(out)
    faulty(out)
    mixed(out)
    odd(out)
    make_keras2.write(out)
    (out / "facts.json").write_text(json.dumps(facts()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
