"""Masks as images: one value a class, beside the images or in a folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.read import IMAGE_SUFFIXES, read_image
from edgemed.imaging.sources import list_samples

IMAGES: Final = "images"
MASKS: Final = "masks"
MASK_ENDING: Final = "_mask"
_LAYOUT: Final = "Give images/NAME.png with masks/NAME.png, or NAME.png with NAME_mask.png."


def pair_masks(folder: Path) -> list[tuple[Path, Path]]:
    """Images and their masks, sorted by image.

    Either `images/` and `masks/` hold files of the same names, suffixes aside; or `NAME_mask.png` lies beside `NAME.*`.

    Raises:
        InputError: no such files, an image without a mask or a mask without an image, or two of either.
    """
    if (folder / IMAGES).is_dir() and (folder / MASKS).is_dir():
        images = _by_name(folder / IMAGES)
        masks = _by_name(folder / MASKS)
    else:
        every = _by_name(folder)
        masks = {name.removesuffix(MASK_ENDING): path for name, path in every.items() if name.endswith(MASK_ENDING)}
        images = {name: path for name, path in every.items() if not name.endswith(MASK_ENDING)}
    if not images or not masks:
        raise InputError(f"{folder} holds no images with masks.", _LAYOUT)
    for name in sorted(images.keys() ^ masks.keys()):
        have, lack = ("image", "mask") if name in images else ("mask", "image")
        raise InputError(f"{(images | masks)[name]} is the {have} to which there is no {lack}.", _LAYOUT)
    return [(path, masks[name]) for name, path in sorted(images.items())]


def read_mask(path: Path, *, classes: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Labels from a mask.

    Args:
        path: a gray image: its values are the classes, 0 the background; for two classes 0 and 255 will do.
        classes: how many there are, background included; at most 256.
        shape: rows and columns of the image that it belongs to.

    Returns:
        `(rows, columns)`, values below `classes`.

    Raises:
        InputError: not such an image, of another size, colourful, or with values that are no class.
    """
    pixels = read_image(path).pixels
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise InputError(f"{path} is a mask in colour.", "Store classes as gray values 0, 1, 2, ...")
        pixels = pixels[..., 0]
    if pixels.shape != shape:
        raise InputError(
            f"{path} is {pixels.shape[0]}x{pixels.shape[1]}, and its image {shape[0]}x{shape[1]}.",
            "Give masks of the size of their images.",
        )
    found = np.unique(pixels)
    if classes == 2 and set(found.tolist()) <= {0, 255}:
        return (pixels > 0).astype(np.uint8)
    wrong = [value for value in found.tolist() if value != int(value) or not 0 <= value < classes]
    if wrong:
        raise InputError(
            f"{path} has the value {wrong[0]:g}; {classes} classes are 0 to {classes - 1}.",
            "Store classes as gray values 0, 1, 2, ... in a format without loss.",
        )
    return pixels.astype(np.uint8)


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for sample in list_samples(folder):
        path = sample.path
        inside = path.relative_to(folder)
        known = path.suffix.lower() in IMAGE_SUFFIXES | {".dcm"}
        name = inside.with_suffix("").as_posix() if known else inside.as_posix()
        if name in found:
            raise InputError(f"{path} and {found[name]} have the same name.", _LAYOUT)
        found[name] = path
    return found
