"""The Keras models of the matrix, each at any size; Keras is imported only where one is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.keras_models import double_convolution, seed_cnn

# --- segmentation


def attention_unet(size: int = 32, filters: int = 16, depth: int = 2) -> Any:
    """U-Net whose skips pass additive attention gates (Oktay et al., 2018)."""
    import keras
    from keras import layers as kl

    def gate(skip: Any, signal: Any, width: int) -> Any:
        both = kl.Add()([kl.Conv2D(width, 2, strides=2)(skip), kl.Conv2D(width, 1)(signal)])
        weight = kl.Conv2D(1, 1, activation="sigmoid")(kl.ReLU()(both))
        return kl.Multiply()([skip, kl.UpSampling2D(interpolation="bilinear")(weight)])

    x = image = keras.Input((size, size, 1), name="image")
    skips = []
    for level in range(depth):
        x = double_convolution(x, filters << level)
        skips.append(x)
        x = kl.MaxPooling2D()(x)
    x = double_convolution(x, filters << depth)
    for level in reversed(range(depth)):
        gated = gate(skips[level], x, filters << level)
        x = kl.Conv2DTranspose(filters << level, 2, strides=2)(x)
        x = double_convolution(kl.Concatenate()([gated, x]), filters << level)
    return keras.Model(image, kl.Conv2D(1, 1, activation="sigmoid", name="mask")(x))


def unet3d(size: int = 16, filters: int = 16, depth: int = 2, up: str = "transpose", classes: int = 3) -> Any:
    """3-D U-Net (Cicek et al., 2016); `up` is `transpose` or `nearest`."""
    import keras
    from keras import layers as kl

    x = volume = keras.Input((size, size, size, 1), name="volume")
    skips = []
    for level in range(depth):
        x = double_convolution(x, filters << level, 3, True)
        skips.append(x)
        x = kl.MaxPooling3D()(x)
    x = double_convolution(x, filters << depth, 3, True)
    for level in reversed(range(depth)):
        x = kl.Conv3DTranspose(filters << level, 2, strides=2)(x) if up == "transpose" else kl.UpSampling3D()(x)
        x = double_convolution(kl.Concatenate()([skips[level], x]), filters << level, 3, True)
    return keras.Model(volume, kl.Conv3D(classes, 1, activation="softmax", name="organs")(x))


def deeplab(size: int = 32, filters: int = 16) -> Any:
    """Dilated convolutions in parallel, and bilinear upsampling by eight."""
    import keras
    from keras import layers as kl

    x = image = keras.Input((size, size, 3), name="image")
    for _ in range(3):
        x = kl.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    x = kl.Concatenate()([kl.Conv2D(filters, 3, padding="same", dilation_rate=rate)(x) for rate in (1, 2, 3)])
    x = kl.UpSampling2D(8, interpolation="bilinear")(kl.Conv2D(filters, 1, activation="relu")(x))
    return keras.Model(image, kl.Conv2D(2, 1, activation="softmax", name="mask")(x))


def open_unet() -> Any:
    """A small U-Net of any height and width."""
    import keras
    from keras import layers as kl

    image = keras.Input((None, None, 1), name="image")
    skip = kl.Conv2D(16, 3, padding="same", activation="relu")(image)
    x = kl.Conv2D(32, 3, padding="same", activation="relu")(kl.MaxPooling2D()(skip))
    x = kl.Concatenate()([skip, kl.UpSampling2D()(x)])
    return keras.Model(image, kl.Conv2D(1, 1, activation="sigmoid", name="mask")(x))


# --- classification


def application(name: str, size: int, classes: int = 14, activation: str = "sigmoid", **arguments: Any) -> Any:
    """A network of keras.applications with the head of a chest-film classifier."""
    import keras

    shape = (size, size, 3)
    base = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=shape, **arguments)
    x = keras.layers.GlobalAveragePooling2D()(base.output)
    return keras.Model(base.input, keras.layers.Dense(classes, activation=activation, name="findings")(x))


def vgg16(size: int = 224, dense: int = 4096) -> Any:
    """VGG16 with its Dense layers: most of its weights."""
    import keras
    from keras import layers as kl

    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(size, size, 3))
    x = kl.Flatten()(base.output)
    for _ in range(2):
        x = kl.Dense(dense, activation="relu")(x)
    return keras.Model(base.input, kl.Dense(14, activation="sigmoid", name="findings")(x))


def se_resnet(size: int = 32, width: int = 16, blocks: int = 2) -> Any:
    """Residual blocks with squeeze-and-excitation gates (Hu et al., 2018)."""
    import keras
    from keras import layers as kl

    def gated(x: Any, channels: int) -> Any:
        y = kl.Reshape((1, 1, channels))(kl.GlobalAveragePooling2D()(x))
        y = kl.Dense(channels, activation="sigmoid")(kl.Dense(channels // 4, activation="relu")(y))
        return kl.Multiply()([x, y])

    x = image = keras.Input((size, size, 3), name="image")
    x = kl.ReLU()(kl.BatchNormalization()(kl.Conv2D(width, 3, strides=2, padding="same")(x)))
    for level in range(3):
        channels = width << level
        for block in range(blocks):
            strides = 2 if level and not block else 1
            y = kl.ReLU()(kl.BatchNormalization()(kl.Conv2D(channels, 3, strides=strides, padding="same")(x)))
            y = gated(kl.BatchNormalization()(kl.Conv2D(channels, 3, padding="same")(y)), channels)
            if strides > 1:
                x = kl.BatchNormalization()(kl.Conv2D(channels, 1, strides=strides)(x))
            x = kl.ReLU()(kl.Add()([x, y]))
    x = kl.GlobalAveragePooling2D()(x)
    return keras.Model(image, kl.Dense(5, activation="softmax", name="grade")(x))


def vit(size: int = 32, patch: int = 8, width: int = 32, heads: int = 2, depth: int = 2) -> Any:
    """Vision transformer of Keras' own layers, with learned positions."""
    import keras
    from keras import layers as kl

    tokens = (size // patch) ** 2
    image = keras.Input((size, size, 3), name="image")
    x = kl.Reshape((tokens, width))(kl.Conv2D(width, patch, strides=patch)(image))
    positions = keras.ops.arange(tokens)
    x = x + kl.Embedding(tokens, width, name="positions")(positions)
    for _ in range(depth):
        y = kl.LayerNormalization(epsilon=1e-6)(x)
        x = kl.Add()([x, kl.MultiHeadAttention(heads, width // heads)(y, y)])
        y = kl.LayerNormalization(epsilon=1e-6)(x)
        x = kl.Add()([x, kl.Dense(width)(kl.Dense(4 * width, activation="gelu")(y))])
    x = kl.GlobalAveragePooling1D()(kl.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(image, kl.Dense(4, activation="softmax", name="classes")(x))


# --- sequences


def _sequence(body: Callable[[Any], Any], steps: int, channels: int) -> Any:
    import keras
    from keras import layers as kl

    signal = keras.Input((steps, channels), name="signal")
    x = kl.Conv1D(32, 5, padding="same", activation="relu")(signal)
    x = kl.Conv1D(32, 5, padding="same", activation="relu")(x)
    return keras.Model(signal, kl.Dense(2, activation="softmax", name="rhythm")(body(x)))


def lstm(steps: int = 24, units: int = 16) -> Any:
    """Two stacked LSTMs behind a convolution."""
    from keras import layers as kl

    return _sequence(lambda x: kl.LSTM(units)(kl.LSTM(units, return_sequences=True)(x)), steps, 12)


def lstm_alone(steps: int = 24, units: int = 16) -> Any:
    """Nothing but an LSTM and a Dense head."""
    import keras
    from keras import layers as kl

    signal = keras.Input((steps, 12), name="signal")
    return keras.Model(signal, kl.Dense(1, activation="sigmoid", name="risk")(kl.LSTM(units)(signal)))


def lstm_masked(steps: int = 24, units: int = 16) -> Any:
    """Padded vital signs: Masking, LSTM per step, a Dense head per step."""
    import keras
    from keras import layers as kl

    signal = keras.Input((steps, 12), name="signal")
    x = kl.LSTM(units, return_sequences=True)(kl.Masking(0.0)(signal))
    x = kl.Dense(32, activation="relu")(x)
    return keras.Model(signal, kl.Dense(1, activation="sigmoid", name="risk")(x))


def bigru(steps: int = 24, units: int = 16) -> Any:
    """Bidirectional GRU behind a convolution."""
    from keras import layers as kl

    return _sequence(
        lambda x: kl.GlobalMaxPooling1D()(kl.Bidirectional(kl.GRU(units, return_sequences=True))(x)), steps, 12
    )


def simple_rnn(steps: int = 24, units: int = 16) -> Any:
    """SimpleRNN behind a convolution."""
    from keras import layers as kl

    return _sequence(kl.SimpleRNN(units), steps, 12)


def convlstm(size: int = 16, frames: int = 4, filters: int = 16) -> Any:
    """ConvLSTM2D over a cine loop, then a convolution per pixel."""
    import keras
    from keras import layers as kl

    cine = keras.Input((frames, size, size, 1), name="cine")
    x = kl.ConvLSTM2D(filters, 3, padding="same")(cine)
    x = kl.Conv2D(32, 3, padding="same", activation="relu")(x)
    return keras.Model(cine, kl.Conv2D(1, 1, activation="sigmoid", name="ventricle")(x))


def cine_lstm(size: int = 32, frames: int = 4) -> Any:
    """TimeDistributed CNN, then an LSTM over the frames."""
    import keras
    from keras import layers as kl

    frame = keras.Sequential(
        [
            keras.Input((size, size, 1)),
            kl.Conv2D(16, 3, activation="relu"),
            kl.MaxPooling2D(),
            kl.Conv2D(32, 3, activation="relu"),
            kl.GlobalAveragePooling2D(),
        ],
        name="per_frame",
    )
    cine = keras.Input((frames, size, size, 1), name="cine")
    x = kl.LSTM(32)(kl.TimeDistributed(frame)(cine))
    return keras.Model(cine, kl.Dense(1, name="ejection_fraction")(x))


def ecg(steps: int = 200, leads: int = 12) -> Any:
    """1-D convolutions, causal and dilated, over an ECG."""
    import keras
    from keras import layers as kl

    x = signal = keras.Input((steps, leads), name="ecg")
    for rate in (1, 2, 4):
        x = kl.Conv1D(32, 7, padding="causal", dilation_rate=rate)(x)
        x = kl.MaxPooling1D()(kl.ReLU()(kl.BatchNormalization()(x)))
    x = kl.GlobalAveragePooling1D()(x)
    return keras.Model(signal, kl.Dense(5, activation="sigmoid", name="diagnoses")(x))


# --- other shapes of models


def autoencoder(size: int = 32) -> Any:
    """Convolutional autoencoder: strided down, transposed up."""
    import keras
    from keras import layers as kl

    x = image = keras.Input((size, size, 1), name="image")
    for width in (16, 32):
        x = kl.Conv2D(width, 3, strides=2, padding="same", activation="relu")(x)
    for width in (32, 16):
        x = kl.Conv2DTranspose(width, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(image, kl.Conv2D(1, 3, padding="same", activation="sigmoid", name="restored")(x))


def fusion(size: int = 32) -> Any:
    """An image and a row of a table."""
    import keras
    from keras import layers as kl

    image, table = keras.Input((size, size, 1), name="image"), keras.Input((8,), name="table")
    x = kl.Conv2D(16, 3, activation="relu")(image)
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(32, 3, activation="relu")(x))
    x = kl.Concatenate()([x, kl.Dense(16, activation="relu")(table)])
    return keras.Model([image, table], kl.Dense(1, activation="sigmoid", name="risk")(x))


def multi_output(size: int = 32) -> Any:
    """A mask, a class and a number from one encoder, as a dictionary."""
    import keras
    from keras import layers as kl

    image = keras.Input((size, size, 1), name="image")
    x = kl.Conv2D(32, 3, padding="same", activation="relu")(kl.Conv2D(16, 3, padding="same", activation="relu")(image))
    pooled = kl.GlobalAveragePooling2D()(x)
    outputs = {
        "mask": kl.Conv2D(1, 1, activation="sigmoid")(x),
        "view": kl.Dense(4, activation="softmax")(pooled),
        "age": kl.Dense(1)(pooled),
    }
    return keras.Model(image, outputs)


def with_layer(make: Callable[[Any], Any], size: int = 16, channels: int = 16, first: bool = False) -> Any:
    """One layer (or several) between two convolutions, or first of all."""
    import keras
    from keras import layers as kl

    made = make(kl)
    layers = list(made) if isinstance(made, (list, tuple)) else [made]
    image = keras.Input((size, size, 3), name="image")
    x = image
    if first:
        for layer in layers:
            x = layer(x)
    x = kl.Conv2D(channels, 3, padding="same")(x)
    if not first:
        for layer in layers:
            x = layer(x)
    x = kl.Conv2D(16, 3, padding="same")(x)
    return keras.Model(image, kl.Dense(2, activation="softmax", name="classes")(kl.GlobalAveragePooling2D()(x)))


def mixed_float16(size: int = 32) -> Any:
    """Trained with the policy mixed_float16: weights are FP32, layers compute in FP16."""
    import keras

    keras.config.set_dtype_policy("mixed_float16")
    try:
        return seed_cnn(size=size)
    finally:
        keras.config.set_dtype_policy("float32")


def custom_loss(size: int = 32) -> Any:
    """Compiled with a loss and a metric that nothing but the training script defines."""
    import keras

    def dice_loss(wanted: Any, given: Any) -> Any:
        return 1 - 2 * keras.ops.sum(wanted * given) / (keras.ops.sum(wanted) + keras.ops.sum(given) + 1)

    class Sensitivity(keras.metrics.Metric):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.hits = self.add_weight(name="hits", initializer="zeros")

        def update_state(self, wanted: Any, given: Any, sample_weight: Any = None) -> None:
            self.hits.assign_add(keras.ops.sum(wanted * keras.ops.round(given)))

        def result(self) -> Any:
            return self.hits

    model = seed_cnn(size=size)
    model.compile("adam", loss=dice_loss, metrics=[Sensitivity(name="sensitivity")])
    model.build()
    return model


CUSTOM_LAYER = '''
import keras


@keras.saving.register_keras_serializable("clinic")
class Threshold(keras.layers.Layer):
    """Soft threshold with one learned level for each channel."""

    def build(self, shape):
        self.level = self.add_weight(shape=(shape[-1],), name="bias")

    def call(self, x):
        return keras.ops.sign(x) * keras.ops.relu(keras.ops.abs(x) - keras.ops.abs(self.level))
'''


def custom_layer(size: int = 32) -> Any:
    """A registered custom layer, given with --allow-code."""
    names: dict[str, Any] = {}
    exec(CUSTOM_LAYER, names)
    return with_layer(lambda _: names["Threshold"](name="threshold"), size)


def wide_dense(size: int = 16, width: int = 64, layers: int = 2) -> Any:
    """Dense layers whose weights alone pass protobuf's 2 GiB at full size."""
    import keras
    from keras import layers as kl

    x = image = keras.Input((size, size, 1), name="image")
    x = kl.Flatten()(kl.Conv2D(8, 3, padding="same", activation="relu")(x))
    for _ in range(layers):
        x = kl.Dense(width, activation="relu")(x)
    return keras.Model(image, kl.Dense(2, name="score")(x))
