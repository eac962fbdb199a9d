"""Small Keras models for tests, with random biases and BatchNorm statistics.

Fresh Keras models have zero biases and unit statistics; optimizers delete those, which hides the failures that
trained models meet (an int32 bias that TensorRT rejects, most of all). Every builder randomizes them.

`python tests/keras_models.py NAME OUT [NAME OUT ...]` writes models in this process: `.h5`, `.keras`, or a
directory for a SavedModel. NAME may carry keyword arguments: `unet:size=64,up=nearest`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def randomize(model: Any, seed: int = 0) -> Any:
    """Give every bias and every BatchNorm statistic of `model` random values; returns `model`."""
    import numpy as np

    rng = np.random.default_rng(seed)
    for variable in model.weights:
        randomize_variable(variable, variable.name, rng)
    return model


def randomize_variable(variable: Any, name: str, rng: Any = None) -> None:
    """Give one variable random values if `name` is that of a bias or a BatchNorm statistic."""
    import numpy as np

    rng = rng or np.random.default_rng(0)
    draws = {
        "bias": lambda shape: rng.normal(0, 0.1, shape),
        "beta": lambda shape: rng.normal(0, 0.1, shape),
        "gamma": lambda shape: rng.uniform(0.5, 1.5, shape),
        "moving_mean": lambda shape: rng.normal(0, 0.1, shape),
        "moving_variance": lambda shape: rng.uniform(0.5, 1.5, shape),
    }
    draw = draws.get(name)
    if draw is not None:
        variable.assign(draw(tuple(variable.shape)).astype("float32"))


def _built(build: Any, seed: int) -> Any:
    import keras

    keras.utils.set_random_seed(seed)
    return randomize(build(keras.layers), seed)


def seed_cnn(size: int = 32, channels: int = 3, seed: int = 1) -> Any:
    """Conv32, Conv64, Conv128, each with MaxPool, then Dense64, Dropout and one sigmoid."""
    import keras

    return _built(
        lambda kl: keras.Sequential(
            [
                keras.Input((size, size, channels), name="image"),
                kl.Conv2D(32, 3, activation="relu"),
                kl.MaxPooling2D(),
                kl.Conv2D(64, 3, activation="relu"),
                kl.MaxPooling2D(),
                kl.Conv2D(128, 3, activation="relu"),
                kl.MaxPooling2D(),
                kl.Flatten(),
                kl.Dense(64, activation="relu"),
                kl.Dropout(0.5),
                kl.Dense(1, activation="sigmoid", name="probability"),
            ]
        ),
        seed,
    )


def double_convolution(x: Any, width: int, rank: int = 2, bias: bool = False) -> Any:
    """Twice a 3×3 (or 3×3×3) convolution with BatchNorm and ReLU: the block of a U-Net."""
    from keras import layers as kl

    convolution = getattr(kl, f"Conv{rank}D")
    for _ in range(2):
        x = kl.ReLU()(kl.BatchNormalization()(convolution(width, 3, padding="same", use_bias=bias)(x)))
    return x


def unet(size: int = 32, filters: int = 8, depth: int = 2, up: str = "transpose", seed: int = 2) -> Any:
    """U-Net with skip concatenations; `up` is `transpose`, `nearest` or `bilinear`."""
    import keras

    def build(kl: Any) -> Any:
        x = image = keras.Input((size, size, 1), name="image")
        skips = []
        for level in range(depth):
            x = double_convolution(x, filters << level)
            skips.append(x)
            x = kl.MaxPooling2D()(x)
        x = double_convolution(x, filters << depth)
        for level in reversed(range(depth)):
            if up == "transpose":
                x = kl.Conv2DTranspose(filters << level, 2, strides=2)(x)
            else:
                x = kl.UpSampling2D(interpolation=up)(x)
            x = double_convolution(kl.Concatenate()([skips[level], x]), filters << level)
        return keras.Model(image, kl.Conv2D(1, 1, activation="sigmoid", name="mask")(x))

    return _built(build, seed)


def resnet50(weights: str | None = None, size: int = 64, classes: int = 10, seed: int = 3) -> Any:
    """ResNet50 of keras.applications."""
    import keras

    return _built(
        lambda kl: keras.applications.ResNet50(weights=weights, input_shape=(size, size, 3), classes=classes), seed
    )


def vgg16(seed: int = 12) -> Any:
    """VGG16 of keras.applications at its full size: 553 MB of weights."""
    import keras

    return _built(lambda kl: keras.applications.VGG16(weights=None), seed)


def tiny_resnet(size: int = 32, width: int = 8, seed: int = 4) -> Any:
    """Two residual blocks: convolution with bias, BatchNorm, addition."""
    import keras

    def build(kl: Any) -> Any:
        x = image = keras.Input((size, size, 3), name="image")
        x = kl.Conv2D(width, 3, padding="same")(x)
        for _ in range(2):
            y = kl.ReLU()(kl.BatchNormalization()(kl.Conv2D(width, 3, padding="same")(x)))
            y = kl.BatchNormalization()(kl.Conv2D(width, 3, padding="same")(y))
            x = kl.ReLU()(kl.Add()([x, y]))
        x = kl.GlobalAveragePooling2D()(x)
        return keras.Model(image, kl.Dense(4, activation="softmax", name="classes")(x))

    return _built(build, seed)


def sequential(size: int = 16, seed: int = 5) -> Any:
    """A Sequential that is built late: no Input, no name for its input."""
    import keras

    def build(kl: Any) -> Any:
        model = keras.Sequential([kl.Conv2D(4, 3), kl.BatchNormalization(), kl.Flatten(), kl.Dense(3)])
        model.build((None, size, size, 1))
        return model

    return _built(build, seed)


def functional(size: int = 16, seed: int = 6) -> Any:
    """A functional model with BatchNorm and a nested Sequential."""
    import keras

    def build(kl: Any) -> Any:
        image = keras.Input((size, size, 2), name="image")
        inner = keras.Sequential([keras.Input((size, size, 2)), kl.Conv2D(4, 3), kl.BatchNormalization()], name="inner")
        x = kl.GlobalMaxPooling2D()(inner(image))
        return keras.Model(image, kl.Dense(2, name="score")(x))

    return _built(build, seed)


def multi_io(size: int = 16, seed: int = 7) -> Any:
    """Two inputs, two outputs in a dictionary whose order is not the alphabet's."""
    import keras

    def build(kl: Any) -> Any:
        image, age = keras.Input((size, size, 1), name="image"), keras.Input((3,), name="age")
        x = kl.Flatten()(kl.Conv2D(4, 3, strides=2)(image))
        x = kl.Concatenate()([x, age])
        return keras.Model([image, age], {"zone": kl.Dense(2)(x), "grade": kl.Dense(1, activation="sigmoid")(x)})

    return _built(build, seed)


def grouped(size: int = 16, seed: int = 8) -> Any:
    """Grouped convolution, which Keras wraps in an XLA function."""
    import keras

    return _built(
        lambda kl: keras.Sequential(
            [keras.Input((size, size, 4)), kl.Conv2D(8, 3, groups=4), kl.GlobalAveragePooling2D(), kl.Dense(2)]
        ),
        seed,
    )


def gelu(size: int = 16, seed: int = 9) -> Any:
    """Exact GELU, which TensorFlow writes with Erfc."""
    import keras

    return _built(
        lambda kl: keras.Sequential(
            [keras.Input((size, size, 1)), kl.Conv2D(4, 3, activation="gelu"), kl.GlobalAveragePooling2D(), kl.Dense(2)]
        ),
        seed,
    )


def normalization(size: int = 16, seed: int = 10) -> Any:
    """A nested model that begins with Rescaling and Normalization, as EfficientNet does."""
    import keras

    def build(kl: Any) -> Any:
        inner = keras.Sequential(
            [
                keras.Input((size, size, 3)),
                kl.Rescaling(1 / 255),
                kl.Normalization(mean=[0.48, 0.46, 0.41], variance=[0.05, 0.06, 0.04]),
                kl.Conv2D(4, 3),
            ],
            name="backbone",
        )
        image = keras.Input((size, size, 3), name="image")
        return keras.Model(image, kl.Dense(2)(kl.GlobalAveragePooling2D()(inner(image))))

    return _built(build, seed)


def rescaling(size: int = 16, seed: int = 11) -> Any:
    """A Sequential that begins with Rescaling and ends with Softmax as a layer of its own."""
    import keras

    return _built(
        lambda kl: keras.Sequential(
            [
                keras.Input((size, size, 3)),
                kl.Rescaling(1 / 127.5, offset=-1),
                kl.Conv2D(4, 3),
                kl.Flatten(),
                kl.Dense(3),
                kl.Softmax(),
            ]
        ),
        seed,
    )


def vit(size: int = 32, patch: int = 8, width: int = 32, seed: int = 12) -> Any:
    """Patches, one pre-norm transformer block, mean over tokens, one Softmax."""
    import keras

    def build(kl: Any) -> Any:
        image = keras.Input((size, size, 3), name="image")
        x = kl.Reshape(((size // patch) ** 2, width))(kl.Conv2D(width, patch, strides=patch)(image))
        y = kl.LayerNormalization()(x)
        x = kl.Add()([x, kl.MultiHeadAttention(2, width // 2)(y, y)])
        y = kl.Dense(2 * width, activation="gelu")(kl.LayerNormalization()(x))
        x = kl.GlobalAveragePooling1D()(kl.Add()([x, kl.Dense(width)(y)]))
        return keras.Model(image, kl.Dense(4, activation="softmax", name="classes")(x))

    return _built(build, seed)


def hot_cnn(size: int = 16, seed: int = 13) -> Any:
    """Convolutions whose activations pass 1e5 in the middle, as those of badly scaled models do."""
    import keras

    def build(kl: Any) -> Any:
        x = image = keras.Input((size, size, 3), name="image")
        x = kl.Conv2D(16, 3, activation="relu", name="warm")(x)
        x = kl.Conv2D(16, 3, activation="relu", name="hot")(x)
        x = kl.Conv2D(16, 3, activation="relu", name="cool")(x)
        x = kl.GlobalAveragePooling2D()(x)
        return keras.Model(image, kl.Dense(1, activation="sigmoid", name="probability")(x))

    model = _built(build, seed)
    for name, factor in (("hot", 1e6), ("cool", 1e-6)):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel * factor, bias])
    return model


BUILDERS = {
    "vit": vit,
    "hot_cnn": hot_cnn,
    "seed_cnn": seed_cnn,
    "unet": unet,
    "resnet50": resnet50,
    "vgg16": vgg16,
    "tiny_resnet": tiny_resnet,
    "sequential": sequential,
    "functional": functional,
    "multi_io": multi_io,
    "grouped": grouped,
    "gelu": gelu,
    "normalization": normalization,
    "rescaling": rescaling,
}


def save(model: Any, path: Path) -> None:
    """Write `model` as `.h5`, `.keras`, or (any other name) as a SavedModel directory."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras calls .h5 legacy
        if path.suffix in (".h5", ".keras"):
            model.save(path)
        else:
            model.export(path, verbose=False)


def build(spec: str) -> Any:
    """Build `NAME` or `NAME:key=value,...`."""
    name, _, rest = spec.partition(":")
    pairs = (item.split("=", 1) for item in rest.split(",") if item)
    return BUILDERS[name](**{key: int(value) if value.lstrip("-").isdigit() else value for key, value in pairs})


def main(arguments: list[str]) -> None:
    """Write one model per pair of arguments."""
    for spec, path in zip(arguments[::2], arguments[1::2], strict=True):
        save(build(spec), Path(path))


if __name__ == "__main__":
    main(sys.argv[1:])
