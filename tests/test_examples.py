"""The examples keep training and test apart, and drop the pairs that would join them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgemed.recipe.schema import load_recipe
from examples import common
from examples.chest import train as chest
from examples.demo import train as demo


def add_pair(tar: tarfile.TarFile, kind: str, number: int, sides: list[np.ndarray]) -> None:
    for side, pixels in zip("ab", sides, strict=True):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "BMP")
        member = tarfile.TarInfo(f"package/data/{kind}/patch{number}{side}.bmp")
        member.size = file.tell()
        file.seek(0)
        tar.addfile(member, file)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Ten pairs of each of 12 lesions: pair 20 has a clipped patch, pairs 30 and 45 share a patch."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (120, 2, 32, 32, 3), dtype=np.uint8)
    patches[45, 0] = patches[30, 1]
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for number, (left, right) in enumerate(patches):
            kind = "Similar" if number % 10 < 5 else "nonSimilar"
            add_pair(tar, kind, number, [left, right[:, :25] if number == 20 else right])
    return tmp_path / "a.tar.gz"


def test_clipped_and_shared_pairs_are_dropped(archive: Path) -> None:
    pairs = demo.read_pairs(archive)
    assert len(pairs) == 119
    assert sum(pair.label for pair in pairs) == 59  # 60 similar, less the clipped one
    kept = demo.without_shared_patches(pairs)
    assert len(kept) == 117
    assert {pair.lesion for pair in kept} == set(range(12))


def test_no_lesion_is_in_two_splits(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LESIONS", {"train": 6, "calibration": 2})
    pairs = demo.read_pairs(archive)
    owner = {np.concatenate(pair.patches, axis=1).tobytes(): pair.lesion for pair in pairs}
    splits = demo.split_by_lesion(pairs)
    lesions = {name: {owner[image.tobytes()] for image in split.images} for name, split in splits.items()}
    assert [len(lesions[name]) for name in ("train", "calibration", "test")] == [6, 2, 4]
    assert len(set.union(*lesions.values())) == 12
    assert sum(map(len, splits.values())) == len(pairs)


def test_the_colour_threshold_is_chosen_on_training_pairs() -> None:
    def pairs(differences: list[int], labels: list[int]) -> common.Split:
        images = np.zeros((len(labels), 32, 64, 3), np.uint8)
        images[:, :, 32:] = np.array(differences, np.uint8)[:, None, None, None]
        return common.Split(images, np.array(labels))

    training = pairs([1, 2, 9, 10], [1, 1, 0, 0])
    assert demo.colour_threshold_accuracy(training, pairs([0, 2, 3, 200], [1, 1, 0, 1])) == 0.75


def test_a_changed_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / demo.ARCHIVE).write_bytes(b"other")
    with pytest.raises(SystemExit, match="not the archive"):
        demo.download(tmp_path)


def test_images_and_recipe_are_what_edgemed_reads(tmp_path: Path) -> None:
    split = common.Split(np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1), np.array([1, 0]))
    paths = common.write_images(tmp_path / "test", split, chest.CLASSES)
    assert [path.parent.name for path in paths] == ["pneumonia", "normal"]
    np.testing.assert_array_equal(np.asarray(Image.open(paths[1])), split.images[1, ..., 0])
    common.write_recipe(tmp_path, description="d", color="gray", size=(28, 28), classes=chest.CLASSES)
    recipe = load_recipe(tmp_path / "recipe.toml")
    assert (recipe.input.size, recipe.input.scaling.divisor) == ((28, 28), 255.0)
    assert (recipe.output.classes, recipe.assumed) == (chest.CLASSES, False)


def test_old_images_do_not_stay(tmp_path: Path) -> None:
    split = common.Split(np.zeros((3, 4, 4, 3), np.uint8), np.zeros(3, np.int64))
    common.write_images(tmp_path / "x", split)
    common.write_images(tmp_path / "x", common.Split(split.images[:1], split.labels[:1]))
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["0000.png"]


def test_the_chest_file_has_its_official_splits(chest_npz: Path) -> None:
    splits = chest.load(chest_npz)
    assert {name: len(split) for name, split in splits.items()} == {"train": 4690, "val": 524, "test": 624}
    drawn = chest.sample(splits["train"], 512)
    test = {image.tobytes() for image in splits["test"].images}
    assert len({image.tobytes() for image in drawn.images}) == 512
    assert not any(image.tobytes() in test for image in drawn.images)
