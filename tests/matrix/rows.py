"""The rows of the matrix: which model, how large in CI and in full, how it is saved, and what to expect of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.keras_models import resnet50, seed_cnn, unet
from tests.matrix.models import (
    CUSTOM_LAYER,
    application,
    attention_unet,
    autoencoder,
    bigru,
    cine_lstm,
    convlstm,
    custom_layer,
    custom_loss,
    deeplab,
    ecg,
    fusion,
    lstm,
    lstm_alone,
    lstm_masked,
    mixed_float16,
    multi_output,
    open_unet,
    se_resnet,
    simple_rnn,
    unet3d,
    vgg16,
    vit,
    wide_dense,
    with_layer,
)

Size = Literal["small", "full"]
Arguments = dict[str, Any]

MYELIN = "Myelin"
"""TensorRT-RTX 1.7 fails inside its own compiler, at shape inference of a node that it made itself."""


@dataclass(frozen=True)
class Row:
    """One row of the matrix.

    Attributes:
        family: which test file runs it, and under which heading it stands.
        title: the model in the field's words.
        build: makes the Keras model.
        small: arguments of `build` in CI.
        full: arguments at full size.
        suffix: `.h5`, `.keras`, or empty for a SavedModel.
        high: samples lie between 0 and this (models that rescale by themselves take 0-255).
        precision: `int8`, or `fp16` for a model in which nothing can run in INT8.
        batch: `--dynamic-batch`.
        code: Python source for `--allow-code`.
        shapes: `--input`, by size: full shapes of inputs with open dimensions.
        refused: words of NVIDIA's own error, by graph that TensorRT-RTX refuses.
        note: what a reader of the table should know.
    """

    family: str
    title: str
    build: Callable[..., Any]
    small: Arguments = field(default_factory=dict)
    full: Arguments = field(default_factory=dict)
    suffix: str = ".h5"
    high: float = 1.0
    precision: Literal["int8", "fp16"] = "int8"
    batch: str | None = None
    code: str | None = None
    shapes: dict[Size, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    note: str = ""


ROWS: dict[str, Row] = {}


def _row(family: str, name: str, title: str, build: Callable[..., Any], /, *sizes: Arguments, **more: Any) -> None:
    ROWS[name] = Row(family, title, build, *sizes, **more)


def _application(family: str, title: str, small: int, full: int, /, **more: Any) -> None:
    """A network of keras.applications, by its name there."""
    slim = more.pop("slim", {})
    sizes = {"name": title, "size": small, **slim}, {"name": title, "size": full}
    _row(family, title.lower(), title, application, *sizes, **more)


def _layer(name: str, title: str, make: Callable[[Any], Any], /, *, first: bool = False, **more: Any) -> None:
    """One or more layers between two convolutions, or first of all."""

    def build(size: int) -> Any:
        return with_layer(make, size, first=first)

    _row("layers", name, title, build, {"size": 16}, {"size": 128}, suffix=".keras", **more)


# --- segmentation

_LARGE_UNET = {"size": 256, "filters": 32, "depth": 3}
_row("segmentation", "unet", "U-Net, transposed convolution", unet, {"size": 32}, _LARGE_UNET)
_row(
    "segmentation",
    "unet_nearest",
    "U-Net, nearest upsampling",
    unet,
    {"up": "nearest"},
    {**_LARGE_UNET, "up": "nearest"},
    suffix=".keras",
)
_row(
    "segmentation",
    "unet_bilinear",
    "U-Net, bilinear upsampling",
    unet,
    {"up": "bilinear"},
    {**_LARGE_UNET, "up": "bilinear"},
)
_row("segmentation", "attention_unet", "attention U-Net", attention_unet, {}, _LARGE_UNET)
_row("segmentation", "unet3d", "3-D U-Net, transposed convolution", unet3d, {}, {"size": 64})
_row(
    "segmentation",
    "unet3d_nearest",
    "3-D U-Net, nearest upsampling",
    unet3d,
    {"up": "nearest"},
    {"size": 64, "up": "nearest"},
    suffix=".keras",
)
_row("segmentation", "deeplab", "dilated convolutions, bilinear ×8", deeplab, {}, {"size": 256, "filters": 64})
_row(
    "segmentation",
    "open_unet",
    "U-Net of open height and width",
    open_unet,
    shapes={"small": {"image": (1, 32, 48, 1)}, "full": {"image": (1, 512, 512, 1)}},
    note="`--input image=1x512x512x1`",
)

# --- classification

_row("classic", "seed_cnn", "seed CNN", seed_cnn, {"size": 32}, {"size": 256})
_row("classic", "resnet50", "ResNet50", resnet50, {"size": 64}, {"size": 224, "classes": 1000})
_row("classic", "se_resnet", "SE-ResNet", se_resnet, {}, {"size": 224, "width": 64})
_application("classic", "DenseNet121", 32, 224, note="CheXNet's head: 14 sigmoids")
_row("classic", "vgg16", "VGG16", vgg16, {"size": 32, "dense": 64}, {"size": 224}, note="external data")
_application("classic", "InceptionV3", 75, 299)
_application("classic", "Xception", 71, 299)
_application("efficient", "MobileNetV2", 32, 224, slim={"alpha": 0.35})
_application("efficient", "MobileNetV3Large", 32, 224, slim={"alpha": 0.75}, high=255.0)
_application("efficient", "EfficientNetB0", 32, 224, high=255.0)
_application("efficient", "EfficientNetV2B0", 32, 224, suffix=".keras", high=255.0, note="²")
_application("efficient", "NASNetMobile", 32, 224)
_application("efficient", "ConvNeXtTiny", 32, 224, suffix=".keras", high=255.0)
_row(
    "efficient",
    "vit",
    "ViT (MultiHeadAttention)",
    vit,
    {},
    {"size": 224, "patch": 16, "width": 384, "heads": 6, "depth": 12},
    suffix=".keras",
)

# --- sequences

_LONG = {"steps": 500, "units": 128}
_row("sequences", "lstm", "Conv1D, two LSTMs", lstm, {}, _LONG)
_row(
    "sequences",
    "lstm_alone",
    "LSTM and a Dense head",
    lstm_alone,
    {},
    _LONG,
    precision="fp16",
    note="nothing in it can run in INT8",
)
_row(
    "sequences",
    "lstm_masked",
    "Masking, LSTM, Dense per step",
    lstm_masked,
    {},
    {"steps": 128, "units": 128},
    suffix=".keras",
    note="a mask may skip any step: the LSTM stays a Loop",
)
_row("sequences", "bigru", "Conv1D, bidirectional GRU", bigru, {}, _LONG, suffix=".keras")
_row("sequences", "simple_rnn", "Conv1D, SimpleRNN", simple_rnn, {}, _LONG)
_row(
    "sequences",
    "convlstm",
    "ConvLSTM2D, Conv2D",
    convlstm,
    {},
    {"size": 64, "frames": 8, "filters": 32},
    suffix=".keras",
    refused={"int8": MYELIN},
    note="the ConvLSTM is a Loop, and stays in floating point",
)
_row(
    "sequences",
    "cine_lstm",
    "TimeDistributed CNN, LSTM",
    cine_lstm,
    {},
    {"size": 112, "frames": 16},
    suffix=".keras",
)
_row("sequences", "ecg", "1-D ECG CNN", ecg, {}, {"steps": 5000})

# --- other shapes of models, and how they were saved

_row("other", "autoencoder", "autoencoder", autoencoder, {}, {"size": 256})
_row("other", "fusion", "image + table, two inputs", fusion, {}, {"size": 224}, suffix=".keras")
_row("other", "multi_output", "three outputs in a dictionary", multi_output, {}, {"size": 224}, suffix=".keras")
_row("other", "saved_model", "SavedModel", seed_cnn, {"size": 32}, {"size": 256}, suffix="")
_row("other", "mixed_float16", "mixed_float16", mixed_float16, {}, {"size": 256}, suffix=".keras")
_row("other", "custom_loss", "custom loss and metric in the file", custom_loss, {}, {"size": 256})
_row(
    "other",
    "custom_layer",
    "registered custom layer",
    custom_layer,
    {},
    {"size": 128},
    suffix=".keras",
    code=CUSTOM_LAYER,
    note="`--allow-code custom.py`",
)
_row(
    "other",
    "dynamic_batch",
    "batch that varies",
    unet,
    {"up": "bilinear"},
    {**_LARGE_UNET, "up": "bilinear"},
    batch="1:4:8",
    note="`--dynamic-batch 1:4:8`",
)
_row(
    "other",
    "beyond_2_gib",
    "more than 2 GiB of weights",
    wide_dense,
    {},
    {"size": 64, "width": 17000, "layers": 1},
    note="external data",
)

# --- layers

_layer("rescaling", "Rescaling", lambda kl: kl.Rescaling(1 / 127.5, offset=-1), first=True, high=255.0)
_layer(
    "normalization",
    "Normalization",
    lambda kl: kl.Normalization(mean=[120.0, 110.0, 100.0], variance=[3600.0, 3500.0, 3400.0]),
    first=True,
    high=255.0,
)
_layer("resizing", "Resizing, bilinear", lambda kl: kl.Resizing(24, 20), first=True)
_layer("resizing_nearest", "Resizing, nearest", lambda kl: kl.Resizing(24, 20, interpolation="nearest"), first=True)
_layer(
    "separable",
    "SeparableConv2D, DepthwiseConv2D",
    lambda kl: [kl.SeparableConv2D(32, 3), kl.DepthwiseConv2D(3, depth_multiplier=2)],
)
_layer("grouped", "grouped Conv2D", lambda kl: kl.Conv2D(32, 3, groups=4))
_layer("group_norm", "GroupNormalization", lambda kl: kl.GroupNormalization(4))
_layer("instance_norm", "GroupNormalization, groups=-1", lambda kl: kl.GroupNormalization(-1))
_layer("layer_norm", "LayerNormalization", lambda kl: kl.LayerNormalization())
_layer("prelu", "PReLU", lambda kl: [kl.PReLU(shared_axes=[1, 2]), kl.Conv2D(16, 3), kl.PReLU()])
_layer("leaky_relu", "LeakyReLU", lambda kl: kl.LeakyReLU(0.1))
_layer("swish", "swish", lambda kl: kl.Activation("swish"))
_layer("hard_swish", "hard_swish", lambda kl: kl.Activation("hard_swish"))
_layer("gelu", "GELU, exact", lambda kl: kl.Activation("gelu"))
_layer(
    "activations",
    "ELU, SELU, softplus, Mish, ReLU6, tanh, softsign, hard_sigmoid",
    lambda kl: [
        kl.Activation(name) for name in ("elu", "selu", "softplus", "mish", "relu6", "tanh", "softsign", "hard_sigmoid")
    ],
)
_layer(
    "pooling",
    "pooling, padding, cropping",
    lambda kl: [
        kl.AveragePooling2D(2, padding="same"),
        kl.ZeroPadding2D(2),
        kl.Cropping2D(1),
        kl.MaxPooling2D(3, 1),
    ],
)
_layer(
    "augmentation",
    "augmentation layers, gone at inference",
    lambda kl: [kl.RandomFlip(), kl.RandomRotation(0.1), kl.RandomZoom(0.1), kl.RandomContrast(0.1)],
    first=True,
)


@dataclass(frozen=True)
class Refusal:
    """What cannot work: refused with the Keras layer's name and a way out.

    Attributes:
        title: the case.
        build: makes the Keras model.
        what: pattern that the message must match.
        hint: pattern that the way out must match.
        precision: what is asked for.
    """

    title: str
    build: Callable[[], Any]
    what: str
    hint: str
    precision: Literal["int8", "fp32"] = "fp32"


def _stateful() -> Any:
    import keras
    from keras import layers as kl

    fixed = keras.Input(batch_shape=(1, 6, 5), name="signal")
    return keras.Model(fixed, kl.LSTM(2, stateful=True, name="memory")(fixed))


def _lookup() -> Any:
    import keras
    from keras import layers as kl

    codes = keras.Input((3,), dtype="int64", name="codes")
    x = kl.Embedding(7, 2)(kl.IntegerLookup(vocabulary=[1, 5], name="lookup")(codes))
    return keras.Model(codes, kl.Dense(2)(kl.Flatten()(x)))


def _words() -> Any:
    import keras
    from keras import layers as kl

    word = keras.Input((1,), dtype="string", name="word")
    return keras.Model(word, kl.Dense(2)(kl.Flatten()(kl.Embedding(4, 2)(kl.StringLookup(vocabulary=["a"])(word)))))


def _resized(**arguments: Any) -> Callable[[], Any]:
    return lambda: with_layer(lambda kl: kl.Resizing(24, 20, name="shrink", **arguments), 32, first=True)


def _lambda() -> Any:
    return with_layer(lambda kl: kl.Lambda(lambda x: x * 2.0, output_shape=(16, 16, 16), name="double"), 16)


REFUSALS: dict[str, Refusal] = {
    "antialias": Refusal(
        "Resizing(antialias=True)", _resized(antialias=True), r"'shrink' \(Resizing\)", "without antialias|recipe"
    ),
    "bicubic": Refusal(
        "Resizing(interpolation='bicubic')",
        _resized(interpolation="bicubic"),
        r"'shrink' \(Resizing\)",
        "bilinear|recipe",
    ),
    "stateful": Refusal("a stateful recurrent layer", _stateful, r"'memory' \(LSTM\)", "stateful=False"),
    "lookup": Refusal("IntegerLookup, Hashing, …", _lookup, r"'lookup' \(IntegerLookup\)", "Take the layer out"),
    "words": Refusal("an input of strings", _words, "'word'", "starts at numbers"),
    "lambda": Refusal("a Lambda layer, without --allow-code", _lambda, "'double'", "--allow-code"),
    "all_float": Refusal(
        "`--int8` where nothing can run in INT8", lstm_alone, "recurrent layers", "--fp16", precision="int8"
    ),
}
