"""Folders of classes: the order of the classes, and what is refused."""

from pathlib import Path

import pytest

from edgemed.base.errors import InputError
from edgemed.evaluate.dataset import class_order, open_labelled_set
from evaluate.bundles import first_hash, write_images


@pytest.mark.parametrize(
    ("folders", "named", "classes", "expected"),
    [
        (["benign", "malignant"], (), 2, ("benign", "malignant")),
        (["benign", "malignant"], ("malignant", "benign"), 2, ("malignant", "benign")),
        (["melanoma", "other"], ("melanoma",), 2, ("other", "melanoma")),
        (["0", "1", "2"], (), 3, ("0", "1", "2")),
    ],
)
def test_class_order(folders: list[str], named: tuple[str, ...], classes: int, expected: tuple[str, ...]) -> None:
    assert class_order(folders, named, classes) == expected


@pytest.mark.parametrize(
    ("folders", "named", "classes"),
    [
        (["a", "b", "c"], (), 2),
        (["a"], (), 2),
        ([], (), 2),
        (["a", "b"], ("a", "c"), 2),
        (["a", "b"], ("a", "b", "c"), 2),
        (["a", "b", "c"], ("a",), 2),
        (["1", "10", "2"], (), 3),  # alphabetical is not numerical
    ],
)
def test_class_order_refuses(folders: list[str], named: tuple[str, ...], classes: int) -> None:
    with pytest.raises(InputError) as caught:
        class_order(folders, named, classes)
    assert caught.value.hint


def test_labels_follow_the_folders(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", {"b": [10, 20], "a": [30]})
    found = open_labelled_set(data, classes=2)
    assert found.classes == ("a", "b")
    assert found.truth.tolist() == [0, 1, 1]
    assert [file.sample.path.parent.name for file in found.files] == ["a", "b", "b"]


def test_digest_tells_labels_but_not_names(tmp_path: Path) -> None:
    one = write_images(tmp_path / "one", {"a": [1, 2], "b": [3]})
    two = write_images(tmp_path / "two", {"a": [1, 2], "b": [3]})
    (two / "a" / "0001.png").rename(two / "a" / "renamed.png")
    assert open_labelled_set(one, classes=2).digest == open_labelled_set(two, classes=2).digest
    (two / "b" / "0003.png").rename(two / "b" / "x.png")
    (two / "a" / "renamed.png").rename(two / "b" / "renamed.png")
    assert open_labelled_set(one, classes=2).digest != open_labelled_set(two, classes=2).digest


def test_calibration_images_are_refused(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", {"a": [1, 2], "b": [3]})
    with pytest.raises(InputError, match="1 of 3 images were used for calibration"):
        open_labelled_set(data, classes=2, seen={first_hash(data)})


def test_an_image_in_two_classes_is_refused_and_copies_are_counted(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", {"a": [1, 2], "b": [3]})
    copy = (data / "a" / "0001.png").read_bytes()
    (data / "a" / "copy.png").write_bytes(copy)
    assert open_labelled_set(data, classes=2).duplicates == 1
    (data / "b" / "copy.png").write_bytes(copy)
    with pytest.raises(InputError, match="several classes"):
        open_labelled_set(data, classes=2)


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a directory"):
        open_labelled_set(tmp_path / "nothing", classes=2)
    data = write_images(tmp_path / "data", {"a": [1]})
    (data / "b").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        open_labelled_set(data, classes=2)


def test_a_table_gives_what_folders_give(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", {"b": [10, 20], "a": [30]})
    rows = "".join(f"{path.relative_to(data).as_posix()},{path.parent.name}\n" for path in sorted(data.rglob("*.png")))
    table = data / "labels.csv"
    table.write_text("file,label\n" + rows)
    by_table, by_folder = open_labelled_set(table, classes=2), open_labelled_set(data, classes=2)
    pairs = [[(file.sample.path, file.label, file.sha256) for file in found.files] for found in (by_table, by_folder)]
    assert pairs[0] == pairs[1]
    assert by_table.digest == by_folder.digest
    assert by_table.classes == by_folder.classes


def test_a_table_must_fit_the_model(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", {"b": [10, 20], "a": [30]})
    table = data / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{p.relative_to(data)},{p.parent.name}\n" for p in data.rglob("*.png")))
    with pytest.raises(InputError, match="labels are a, b"):
        open_labelled_set(table, classes=3)
    table.write_text("file,a,b\n" + "".join(f"{p.relative_to(data)},0,1\n" for p in data.rglob("*.png")))
    with pytest.raises(InputError, match="no column 'label'"):
        open_labelled_set(table, classes=2)
    table.unlink()
    with pytest.raises(InputError, match="not a directory"):
        open_labelled_set(table, classes=2)
