"""`make example-chest DATA=…/pneumoniamnist.npz`: chest X-rays, normal or pneumonia, then edgemed on the model.

PneumoniaMNIST (MedMNIST v2, Yang et al., Scientific Data 2023; images of Kermany et al., Cell 2018; CC BY 4.0): 28×28
pixels, 8-bit grey, with the official splits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from examples.common import (
    SEED,
    Split,
    convolutions,
    seed_everything,
    train,
    type_commands,
    write_images,
    write_recipe,
)

CLASSES = ("normal", "pneumonia")
CALIBRATION_IMAGES = 512


def load(path: Path) -> dict[str, Split]:
    """The official splits `train`, `val` and `test` of a MedMNIST file."""
    if not path.is_file():
        sys.exit(f"{path} does not exist. Give MedMNIST's file: make example-chest DATA=/path/pneumoniamnist.npz")
    with np.load(path) as arrays:
        return {
            name: Split(arrays[f"{name}_images"][..., None], arrays[f"{name}_labels"].reshape(-1).astype(np.int64))
            for name in ("train", "val", "test")
        }


def sample(split: Split, count: int) -> Split:
    """`count` images of `split`, drawn without replacement."""
    chosen = np.sort(np.random.default_rng(SEED).choice(len(split), count, replace=False))
    return Split(split.images[chosen], split.labels[chosen])


def main() -> None:
    """Train, save, write the folders, and type the commands."""
    parser = argparse.ArgumentParser(description="Train on chest X-rays, then build, run and evaluate a bundle.")
    parser.add_argument("folder", type=Path, help="where everything goes")
    parser.add_argument("--data", type=Path, required=True, help="pneumoniamnist.npz of MedMNIST")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    splits = load(arguments.data)
    folder.mkdir(parents=True, exist_ok=True)

    seed_everything()
    import keras
    from keras import layers

    head = [layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential([keras.Input((28, 28, 1)), *convolutions((16, 32, 64)), *head])
    train(model, splits["train"], splits["val"], epochs=8)
    model.save(folder / "model.h5")

    write_images(folder / "calibration", sample(splits["train"], CALIBRATION_IMAGES))
    write_recipe(folder / "calibration", description="chest X-rays", color="gray", size=(28, 28), classes=CLASSES)
    tests = write_images(folder / "test", splits["test"], CLASSES)
    type_commands(folder, tests[0])


if __name__ == "__main__":
    main()
