"""Writes model files with the TensorFlow that runs it, and what that TensorFlow itself answers.

For the interpreters of old releases: TensorFlow 2.4 (Python 3.8) to 2.15; nothing is imported but TensorFlow and NumPy.

`python write.py OUT` writes `OUT/VERSION/NAME.h5`, `.keras` (from 2.12 on), a SavedModel `NAME.saved`, and `NAME.npz`
with the arrays `input/NAME` and `output/0`, `output/1`, ... in the model's own order.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf

keras = tf.keras
kl = keras.layers
preprocessing = kl if hasattr(kl, "Rescaling") else kl.experimental.preprocessing


def unet():
    image = keras.Input((16, 16, 1), name="image")
    skip = kl.LeakyReLU()(kl.BatchNormalization()(kl.Conv2D(8, 3, padding="same")(image)))
    x = kl.Conv2D(8, 3, padding="same", activation="relu")(kl.MaxPooling2D()(skip))
    x = kl.Concatenate()([kl.Conv2DTranspose(4, 2, strides=2)(x), kl.UpSampling2D()(x), skip])
    return keras.Model(image, kl.Conv2D(1, 1, activation="sigmoid", name="mask")(x))


def sequential():
    layers = [kl.Conv2D(8, 3, activation="relu", input_shape=(16, 16, 3)), kl.MaxPooling2D(), kl.Flatten()]
    return keras.Sequential([*layers, kl.Dropout(0.5), kl.Dense(3, activation="softmax")])


def mobilenet():
    return keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=4)


def densenet():
    base = keras.applications.DenseNet121(weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg")
    return keras.Model(base.input, kl.Dense(14, activation="sigmoid", name="findings")(base.output))


def efficientnet():
    return keras.applications.EfficientNetB0(weights=None, input_shape=(32, 32, 3), classes=4)


def separable():
    image, age = keras.Input((16, 16, 3), name="image"), keras.Input((3,), name="age")
    x = kl.DepthwiseConv2D(3)(kl.SeparableConv2D(4, 3)(preprocessing.Rescaling(1 / 255.0)(image)))
    x = kl.Concatenate()([kl.GlobalAveragePooling2D()(x), age])
    return keras.Model([image, age], [kl.Dense(2, name="zone")(x), kl.Dense(1, activation="sigmoid", name="grade")(x)])


def recurrent():
    signal = keras.Input((6, 5), name="signal")
    x, hidden, carry = kl.LSTM(4, return_state=True, return_sequences=True)(signal)
    x = kl.GRU(3)(kl.LSTM(4, return_sequences=True)(x, initial_state=[hidden, carry]))
    y = kl.Bidirectional(kl.LSTM(2))(kl.Masking()(signal))
    return keras.Model(signal, kl.Dense(2, name="score")(kl.Concatenate()([x, y, kl.SimpleRNN(2)(signal)])))


def operations():
    image = keras.Input((16, 16, 3), name="image")
    x = kl.Conv2D(4, 3)(tf.cast(image, tf.float32) / 255.0 - 0.5)
    x = tf.reduce_mean(tf.nn.relu(x) * 2.0, axis=[1, 2])
    return keras.Model(image, kl.Dense(2, name="score")(x[:, :3]))


def attention():
    tokens = keras.Input((9, 8), name="tokens")
    x = kl.LayerNormalization()(tokens)
    x = kl.Add()([tokens, kl.MultiHeadAttention(2, 4)(x, x)])
    return keras.Model(tokens, kl.Dense(2, name="score")(kl.GlobalAveragePooling1D()(x)))


def cine():
    frames = keras.Input((3, 12, 12, 1), name="frames")
    x = kl.TimeDistributed(kl.Conv2D(4, 3, activation="relu"))(frames)
    x = kl.ConvLSTM2D(3, 3)(x)
    return keras.Model(frames, kl.Dense(1, name="score")(kl.Flatten()(x)))


MODELS = [unet, sequential, mobilenet, densenet, efficientnet, separable, recurrent, operations, attention, cine]


def randomize(model):
    """Random biases and statistics: what is zero is deleted by optimizers, and hides faults."""
    rng = np.random.RandomState(0)
    for variable in model.weights:
        name = variable.name.rpartition("/")[2].partition(":")[0]
        if name in ("bias", "beta", "moving_mean"):
            variable.assign(rng.normal(0, 0.1, variable.shape))
        elif name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))


def main(out):
    folder = Path(out) / tf.__version__
    folder.mkdir(parents=True, exist_ok=True)
    formats = [".h5", ".saved"] + ([".keras"] if tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 12) else [])
    for build in MODELS:
        keras.backend.clear_session()
        model = build()
        randomize(model)
        rng = np.random.RandomState(1)
        high = 255.0 if build in (separable, operations, efficientnet) else 1.0
        shapes = [(1, *tensor.shape[1:]) for tensor in model.inputs]
        feeds = [rng.uniform(0, high if len(s) == 4 else 1.0, s).astype("float32") for s in shapes]  # tables: 0-1
        answers = model(feeds if len(feeds) > 1 else feeds[0], training=False)
        answers = answers if isinstance(answers, (list, tuple)) else [answers]
        arrays = {"input/" + t.name.partition(":")[0]: feed for t, feed in zip(model.inputs, feeds)}  # noqa: B905 - Python 3.8
        arrays.update({f"output/{i}": answer.numpy() for i, answer in enumerate(answers)})
        np.savez(str(folder / (build.__name__ + ".npz")), **arrays)
        for suffix in formats:
            target = folder / (build.__name__ + suffix)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if suffix == ".saved":
                    model.save(str(target), save_format="tf")
                else:
                    model.save(str(target))


if __name__ == "__main__":
    main(sys.argv[1])
