"""Masks find their images, and hold classes only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from edgemed.base.errors import InputError
from edgemed.imaging.labels.masks import pair_masks, read_mask


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)
    return path


ZEROS = np.zeros((4, 5), np.uint8)


def test_two_layouts(tmp_path: Path) -> None:
    for name in ("a", "sub/b"):
        save(tmp_path / "one" / "images" / f"{name}.jpg", ZEROS)
        save(tmp_path / "one" / "masks" / f"{name}.png", ZEROS)
        save(tmp_path / "two" / f"{name}.jpg", ZEROS)
        save(tmp_path / "two" / f"{name}_mask.png", ZEROS)
    one, two = pair_masks(tmp_path / "one"), pair_masks(tmp_path / "two")
    assert [(i.stem, m.stem) for i, m in one] == [("a", "a"), ("b", "b")]
    assert [(i.stem, m.stem) for i, m in two] == [("a", "a_mask"), ("b", "b_mask")]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["a.png"], "no images with masks"),
        (["a.png", "b.png", "b_mask.png"], "a.png is the image to which there is no mask"),
        (["a.png", "a_mask.png", "b_mask.png"], "b_mask.png is the mask to which there is no image"),
        (["a.png", "a.jpg", "a_mask.png"], "have the same name"),
    ],
)
def test_pairs_must_be_whole(files: list[str], said: str, tmp_path: Path) -> None:
    for name in files:
        save(tmp_path / name, ZEROS)
    with pytest.raises(InputError, match=said):
        pair_masks(tmp_path)


def test_values_are_classes(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    assert np.array_equal(read_mask(save(tmp_path / "a.png", labels), classes=3, shape=(2, 3)), labels)
    two = read_mask(save(tmp_path / "b.png", (labels > 0) * np.uint8(255)), classes=2, shape=(2, 3))
    assert np.array_equal(two, labels > 0)
    rgb = np.stack([labels] * 3, axis=-1)
    assert np.array_equal(read_mask(save(tmp_path / "c.png", rgb), classes=3, shape=(2, 3)), labels)


@pytest.mark.parametrize(
    ("pixels", "classes", "said"),
    [
        (np.full((2, 3), 3, np.uint8), 3, "has the value 3"),
        (np.full((2, 3), 255, np.uint8), 3, "has the value 255"),
        (np.full((2, 3), 0.5, np.float32), 2, "has the value 0.5"),
        (np.zeros((3, 2), np.uint8), 2, "is 3x2, and its image 2x3"),
        (np.arange(18, dtype=np.uint8).reshape(2, 3, 3), 3, "in colour"),
    ],
)
def test_what_is_no_mask_is_refused(pixels: np.ndarray, classes: int, said: str, tmp_path: Path) -> None:
    path = save(tmp_path / ("a.tif" if pixels.dtype == np.float32 else "a.png"), pixels)
    with pytest.raises(InputError, match=said):
        read_mask(path, classes=classes, shape=(2, 3))
