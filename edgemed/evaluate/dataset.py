"""Labelled images: one folder per class, disjoint from the images that the model was calibrated on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_json
from edgemed.imaging.sources import Sample, list_samples
from edgemed.recipe.schema import Recipe

_NAME_THE_CLASSES = "Name them in the order of the model's output in the recipe: [output] classes = [...]."


@dataclass(frozen=True)
class LabelledFile:
    """One sample, the index of its class, its hash."""

    sample: Sample
    label: int
    sha256: str


@dataclass(frozen=True)
class LabelledSet:
    """Labelled samples in the order of their paths.

    Args:
        folder: where they lie.
        classes: class names in the order of the model's output.
        files: the samples.
        duplicates: files whose bytes occur more than once within their class.
        named_by: where the order of the classes comes from, in words.
    """

    folder: Path
    classes: tuple[str, ...]
    files: tuple[LabelledFile, ...]
    duplicates: int
    named_by: str

    @property
    def truth(self) -> NDArray[np.intp]:
        """Index of the true class of each sample, shape `(n,)`."""
        return np.array([file.label for file in self.files], dtype=np.intp)

    @property
    def digest(self) -> str:
        """Identity of samples and labels, independent of file names."""
        return sha256_json(sorted([file.sha256, self.classes[file.label]] for file in self.files))


def open_labelled_set(
    folder: Path,
    recipe: Recipe | None = None,
    *,
    classes: int,
    named: tuple[str, ...] = (),
    seen: Collection[str] = (),
) -> LabelledSet:
    """List and hash a folder with one subfolder per class.

    Args:
        folder: the data.
        recipe: what a sample becomes, see `list_samples`.
        classes: how many classes the model tells apart.
        named: class names of the recipe, in the order of the output (for a binary model also just the positive one).
        seen: SHA-256 of the samples the model was calibrated on.

    Raises:
        InputError: no such folders, an empty one, classes that cannot be mapped, a file with two labels, or a file
            that calibration has seen.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a directory.", "Give a directory with one folder of images per class.")
    folders = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    order = class_order(folders, named, classes)
    files = tuple(
        LabelledFile(sample, label, sample.digest())
        for label, name in enumerate(order)
        for sample in _samples(folder / name, recipe)
    )
    _refuse_seen(files, frozenset(seen))
    _refuse_two_labels(files, order)
    repeated = len(files) - len({file.sha256 for file in files})
    named_by = "named by the recipe" if named else "folders in alphabetical order, as Keras reads them"
    return LabelledSet(folder, order, files, repeated, named_by)


def class_order(folders: list[str], named: tuple[str, ...], classes: int) -> tuple[str, ...]:
    """Folder names in the order of the model's output.

    Without names in the recipe the alphabetical order stands, which is how `keras.utils.image_dataset_from_directory`
    numbers them; numbers that sort otherwise (`10` before `2`) are refused as ambiguous.

    Raises:
        InputError: folders and classes do not match one to one.
    """
    if classes == 2 and len(named) == 1 and named[0] in folders and len(folders) == 2:
        negative = next(name for name in folders if name != named[0])
        return (negative, named[0])
    have = ", ".join(folders) or "none"
    if named:
        if len(named) != classes or set(named) != set(folders):
            raise InputError(
                f"The recipe names the classes {', '.join(named)}, and the folders are {have}.",
                f"Name one folder after each class; the model tells {classes} apart.",
            )
        return named
    if len(folders) != classes:
        raise InputError(f"The model tells {classes} classes apart, and the class folders are {have}.", _layout())
    if all(name.isdecimal() for name in folders) and folders != sorted(folders, key=int):
        raise InputError(f"The order of the class folders {have} is ambiguous.", _NAME_THE_CLASSES)
    return tuple(folders)


def _samples(folder: Path, recipe: Recipe | None) -> list[Sample]:
    samples = list_samples(folder, recipe)
    if not samples:
        raise InputError(f"The class folder {folder} holds no images.", _layout())
    return samples


def _layout() -> str:
    return "Give a directory with one folder of images per class, such as data/benign and data/malignant."


def _refuse_seen(files: tuple[LabelledFile, ...], seen: frozenset[str]) -> None:
    shared = [file.sample.name for file in files if file.sha256 in seen]
    if shared:
        raise InputError(
            f"{len(shared)} of {len(files)} images were used for calibration, {shared[0]} first.",
            "Evaluate on images that calibration has not seen.",
        )


def _refuse_two_labels(files: tuple[LabelledFile, ...], classes: tuple[str, ...]) -> None:
    labels = {(file.sha256, file.label) for file in files}
    twice = [digest for digest, count in Counter(digest for digest, _ in labels).items() if count > 1]
    if twice:
        same = [file for file in files if file.sha256 == twice[0]]
        where = " and ".join(sorted({classes[file.label] for file in same}))
        raise InputError(
            f"{Path(same[0].sample.name).name} lies in several classes ({where}); {len(twice)} such images in all.",
            "Remove it from the wrong folder.",
        )
