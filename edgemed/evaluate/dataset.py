"""Labelled images: one folder per class or a table, disjoint from the images that the model was calibrated on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_json
from edgemed.imaging.labels.table import read_label_table
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
        folder: where they lie, or the table that names them.
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
    """List and hash a folder with one subfolder per class, or the images that a CSV file names.

    Args:
        folder: the data; a file is read as a table with the columns `file` and `label`.
        recipe: what a sample becomes, see `list_samples`.
        classes: how many classes the model tells apart.
        named: class names of the recipe, in the order of the output (for a binary model also just the positive one).
        seen: SHA-256 of the samples the model was calibrated on.

    Raises:
        InputError: no such folders or table, an empty one, classes that cannot be mapped, a file with two labels, or a
            file that calibration has seen.
    """
    if folder.is_file():
        order, files = _from_table(folder, named, classes)
        unnamed = "labels in alphabetical order"
    else:
        order, files = _from_folders(folder, recipe, named, classes)
        unnamed = "folders in alphabetical order, as Keras reads them"
    _refuse_seen(files, frozenset(seen))
    _refuse_two_labels(files, order)
    repeated = len(files) - len({file.sha256 for file in files})
    return LabelledSet(folder, order, files, repeated, "named by the recipe" if named else unnamed)


def _from_folders(
    folder: Path, recipe: Recipe | None, named: tuple[str, ...], classes: int
) -> tuple[tuple[str, ...], tuple[LabelledFile, ...]]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a directory.", "Give a directory with one folder of images per class.")
    folders = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    order = class_order(folders, named, classes)
    files = tuple(
        LabelledFile(sample, label, sample.digest())
        for label, name in enumerate(order)
        for sample in _samples(folder / name, recipe)
    )
    return order, files


def _from_table(path: Path, named: tuple[str, ...], classes: int) -> tuple[tuple[str, ...], tuple[LabelledFile, ...]]:
    table = read_label_table(path)
    if not table.exclusive:
        raise InputError(
            f"{path} has no column 'label'.", "Classifiers with one answer are evaluated on one label for each image."
        )
    order = class_order(list(table.classes), named, classes, noun="label")
    rows = sorted(table.rows, key=lambda row: row.path)
    samples = [Sample(row.path.relative_to(path.parent).as_posix(), row.path) for row in rows]
    labels = [order.index(row.labels[0]) for row in rows]
    return order, tuple(
        LabelledFile(sample, label, sample.digest()) for sample, label in zip(samples, labels, strict=True)
    )


def class_order(
    folders: list[str], named: tuple[str, ...], classes: int, *, noun: str = "class folder"
) -> tuple[str, ...]:
    """Names of folders, or labels of a table, in the order of the model's output.

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
                f"The recipe names the classes {', '.join(named)}, and the {noun}s are {have}.",
                f"Name one {noun} after each class; the model tells {classes} apart.",
            )
        return named
    if len(folders) != classes:
        raise InputError(f"The model tells {classes} classes apart, and the {noun}s are {have}.", _layout())
    if all(name.isdecimal() for name in folders) and folders != sorted(folders, key=int):
        raise InputError(f"The order of the {noun}s {have} is ambiguous.", _NAME_THE_CLASSES)
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
            f"{Path(same[0].sample.name).name} has several classes ({where}); {len(twice)} such images in all.",
            "Keep it in one class.",
        )
