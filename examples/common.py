"""What the examples share: convolutions, training, the folders that edgemed reads, and the commands typed on them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 0
os.environ.setdefault(
    "TF_CPP_MIN_LOG_LEVEL", "3"
)  # TensorFlow tells at length about GPUs that the example does not need


@dataclass(frozen=True)
class Split:
    """Images as uint8 (N, H, W, C), and their class indices (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)


def convolutions(filters: Sequence[int]) -> list[Any]:
    """Keras layers: a 3×3 convolution with ReLU and a 2×2 max-pooling for each number of filters."""
    from keras import layers

    blocks = [[layers.Conv2D(n, 3, padding="same", activation="relu"), layers.MaxPooling2D()] for n in filters]
    return [layer for block in blocks for layer in block]


def seed_everything() -> None:
    """Fix the seeds of Python, NumPy and TensorFlow, and choose TensorFlow's deterministic kernels."""
    import absl.logging
    import keras
    import tensorflow as tf

    absl.logging.set_verbosity(absl.logging.ERROR)  # keep Keras from advising .keras while .h5 is what we show
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()


def train(model: Any, data: Split, validation: Split, *, epochs: int) -> None:
    """Fit a binary classifier on pixels in 0-1, and print how it fares on `validation` after each epoch."""
    import keras

    start_ns = time.monotonic_ns()
    steps = epochs * -(-len(data) // 32)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        loss="binary_crossentropy",
        metrics=["accuracy"],
    )
    pixels = data.images.astype(np.float32) / 255.0
    held = (validation.images.astype(np.float32) / 255.0, validation.labels)
    model.fit(pixels, data.labels, batch_size=32, epochs=epochs, validation_data=held, verbose=2)
    seconds = (time.monotonic_ns() - start_ns) / 1e9
    print(f"Trained {model.count_params():,} parameters on {len(data)} images in {seconds:.0f} s.")


def write_images(folder: Path, split: Split, classes: Sequence[str] | None = None) -> list[Path]:
    """Write PNG files into `folder`, or into one sub-folder for each of `classes`; what was there is removed."""
    from PIL import Image

    shutil.rmtree(folder, ignore_errors=True)
    paths = []
    for index, (pixels, label) in enumerate(zip(split.images, split.labels, strict=True)):
        path = (folder / classes[label] if classes else folder) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.squeeze(pixels)).save(path)
        paths.append(path)
    return paths


def write_recipe(folder: Path, *, description: str, color: str, size: tuple[int, int], classes: Sequence[str]) -> None:
    """Write `recipe.toml`, where `edgemed build` looks for it: beside the calibration images."""
    names = ", ".join(f'"{name}"' for name in classes)
    (folder / "recipe.toml").write_text(
        f'description = "{description}"\n\n'
        f'[input]\ncolor = "{color}"\nsize = [{size[0]}, {size[1]}]\nscaling = {{ divisor = 255.0 }}\n\n'
        f'[output]\ntask = "binary"\nactivation = "sigmoid"\nclasses = [{names}]\nthreshold = 0.5\n',
        encoding="utf-8",
    )


def type_commands(folder: Path, image: Path) -> None:
    """Run in `folder` what a user would type there: build, run on one image, evaluate, profile; stop where one fails.

    A verdict on latency is one on this machine, at this moment: it is shown, and fails nothing.
    """
    shutil.copy(Path(__file__).parent / "slo.toml", folder / "slo.toml")
    shutil.rmtree(folder / "profile", ignore_errors=True)
    shutil.rmtree(folder / "model.edgemed", ignore_errors=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in (
        "edgemed build model.h5 --int8",
        f"edgemed run model.edgemed {shlex.quote(str(image.relative_to(folder)))}",
        "edgemed evaluate model.edgemed test/",
        "edgemed profile model.edgemed --load rate:30 --duration 10s --slo slo.toml --output profile",
    ):
        print(f"\n$ {command}", flush=True)
        done = subprocess.run(shlex.split(command), cwd=folder, env={**os.environ, "PATH": path}, check=False)
        verdict = command.startswith("edgemed profile") and done.returncode in (1, 3)
        if done.returncode and not verdict:
            sys.exit(done.returncode)
