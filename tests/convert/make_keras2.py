"""Files as Keras 2 wrote them, from tf_keras: the same configurations, layers and formats."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import keras_models
import tensorflow as tf
import tf_keras as keras

kl = keras.layers


@keras.utils.register_keras_serializable("clinic")
class OldScale(kl.Layer):
    def call(self, x: Any) -> Any:
        return x * 2.0


def unet() -> Any:
    x = image = keras.Input((16, 16, 1), name="image")
    skip = kl.LeakyReLU()(kl.BatchNormalization()(kl.Conv2D(8, 3, padding="same")(x)))
    x = kl.Conv2D(8, 3, padding="same", activation="relu")(kl.MaxPooling2D()(skip))
    x = kl.Concatenate()([kl.Conv2DTranspose(4, 2, strides=2)(x), kl.UpSampling2D()(x), skip])
    return keras.Model(image, kl.Conv2D(1, 1, activation="sigmoid", name="mask")(x))


def operations() -> Any:
    """What TensorFlow 2.4 and later write as TFOpLambda and SlicingOpLambda."""
    image = keras.Input((16, 16, 3), name="image")
    x = kl.Conv2D(4, 3)(tf.cast(image, tf.float32) / 255.0 - 0.5)
    x = tf.reduce_mean(tf.nn.relu(x) * 2.0, axis=[1, 2])
    return keras.Model(image, kl.Dense(2, name="score")(x[:, :3]))


def separable() -> Any:
    """Two inputs, two outputs, layers that Keras 3 does not load from Keras 2's files."""
    image, age = keras.Input((16, 16, 3), name="image"), keras.Input((3,), name="age")
    x = kl.DepthwiseConv2D(3)(kl.SeparableConv2D(4, 3)(kl.Rescaling(1 / 255.0)(image)))
    x = kl.Concatenate()([kl.GlobalAveragePooling2D()(x), age])
    return keras.Model([image, age], [kl.Dense(2, name="zone")(x), kl.Dense(1, activation="sigmoid", name="grade")(x)])


def recurrent() -> Any:
    signal = keras.Input((6, 5), name="signal")
    x, hidden, carry = kl.LSTM(4, unroll=True, return_state=True, return_sequences=True)(signal)
    x = kl.GRU(3)(kl.LSTM(4, return_sequences=True)(x, initial_state=[hidden, carry]))
    y = kl.Bidirectional(kl.GRU(2, reset_after=False))(signal)
    return keras.Model(signal, kl.Dense(2, name="score")(kl.Concatenate()([x, y, hidden])))


def mixed() -> Any:
    keras.mixed_precision.set_global_policy("mixed_float16")
    x = image = keras.Input((16, 16, 1), name="image")
    x = kl.BatchNormalization()(kl.Conv2D(4, 3, activation="relu", name="half")(x))
    model = keras.Model(image, kl.Dense(2, dtype="float32", name="score")(kl.Flatten()(x)))
    keras.mixed_precision.set_global_policy("float32")
    return model


def around(*layers: Any, shape: tuple[int, ...] = (4, 4, 1)) -> Any:
    return keras.Sequential([keras.Input(shape, name="image"), *layers, kl.Flatten(), kl.Dense(2, name="head")])


def write(out: Path) -> None:
    os.environ["EDGEMED_TOUCH"] = str(out / "touched")
    payload = lambda x: (__import__("pathlib").Path(__import__("os").environ["EDGEMED_TOUCH"]).touch(), x)[1]  # noqa: E731
    files = {
        "unet.h5": unet(),
        "operations.h5": operations(),
        "operations.keras": operations(),
        "separable.keras": separable(),
        "recurrent.h5": recurrent(),
        "mixed.h5": mixed(),
        "custom.h5": around(OldScale(name="scaler")),
        "lambda.h5": around(kl.Lambda(payload, name="evil")),
        "wrapped.h5": around(kl.TimeDistributed(kl.Lambda(payload, name="evil"))),
        "nested.keras": around(keras.Sequential([kl.Lambda(payload, name="evil")], name="inner")),
    }
    (out / "keras2").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras calls .h5 legacy
        for name, model in files.items():
            for variable in model.weights:  # tf_keras' names carry the layer's: conv2d/bias:0
                keras_models.randomize_variable(variable, variable.name.rpartition("/")[2].partition(":")[0])
            model.save(out / "keras2" / name)
        mixed().save(out / "keras2" / "mixed.saved", save_format="tf")
    (out / "touched").unlink(missing_ok=True)
