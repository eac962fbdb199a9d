"""What is a sample: files, series, rows of a table; and which table is refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from edgemed.base.errors import InputError
from edgemed.imaging.sources import Sample, list_samples
from edgemed.imaging.table import read_table
from edgemed.recipe.schema import Recipe
from tests.imaging.make_dicom import write, write_series

FUSION = Recipe.model_validate({"inputs": {"image": {}, "table": {"columns": ["age", "dose"]}}})
VOLUMES = Recipe.model_validate({"input": {"kind": "volume"}})


def png(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pil.fromarray(np.full((4, 4), value, np.uint8)).save(path)
    return path


def test_dicom_is_found_by_its_mark_not_by_its_name(tmp_path: Path):
    write(tmp_path / "IM0001", np.zeros((4, 4), np.int16))
    write(tmp_path / "sub" / "b.dcm", np.ones((4, 4), np.int16))
    png(tmp_path / "c.png")
    (tmp_path / "README").write_text("no image")
    (tmp_path / "notes.txt").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 200)
    assert [sample.name for sample in list_samples(tmp_path)] == ["IM0001", "c.png", "sub/b.dcm"]


def test_for_volumes_a_folder_of_slices_is_one_sample(tmp_path: Path):
    volume = np.arange(48, dtype=np.int16).reshape(3, 4, 4)
    write_series(tmp_path / "a", volume)
    write_series(tmp_path / "b", volume + 1)
    np.save(tmp_path / "c.npy", volume)
    samples = list_samples(tmp_path, VOLUMES)
    assert [sample.name for sample in samples] == ["a", "b", "c.npy"]
    assert len(samples[0].files) == 3
    assert samples[0].digest() != samples[1].digest()
    assert len(list_samples(tmp_path)) == 7


def test_the_digest_of_a_series_does_not_depend_on_file_names(tmp_path: Path):
    for path in write_series(tmp_path / "a", np.arange(48, dtype=np.int16).reshape(3, 4, 4)):
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / f"x{path.name}").write_bytes(path.read_bytes())
    assert Sample.of(tmp_path / "a").digest() == Sample.of(tmp_path / "b").digest()


def table(folder: Path, text: str) -> Path:
    path = folder / "samples.csv"
    path.write_bytes(text.encode("utf-8"))
    return path


def test_rows_name_a_file_for_each_input_and_hold_numbers(tmp_path: Path):
    png(tmp_path / "im" / "a.png", 1)
    png(tmp_path / "im" / "b.png", 2)
    table(tmp_path, "\ufeffimage;age;dose;label\nim/a.png;61;0.5;ill\n\nim/b.png;47;1e-3;well\n")
    one, other = list_samples(tmp_path, FUSION)
    assert one.name == "samples.csv:2"
    assert other.name == "samples.csv:4"
    assert one.parts == (("image", tmp_path / "im" / "a.png"),)
    assert dict(other.values) == {"age": 47.0, "dose": 0.001}
    assert one.digest() != other.digest()


def test_a_row_with_other_numbers_is_another_sample(tmp_path: Path):
    png(tmp_path / "a.png")
    table(tmp_path, "image,age,dose\na.png,61,1\na.png,62,1\n")
    one, other = list_samples(tmp_path, FUSION)
    assert one.digest() != other.digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,age,dose\n", "no rows below its header"),
        ("", "no rows below its header"),
        ("image,age,age\na.png,1,2\n", "each its own"),
        ("image,,dose\na.png,1,2\n", "need names"),
        ("image,age,dose\na.png,1\n", "line 2: 2 cells where the header has 3"),
        ("image,age,dose\n../a.png,1,2\n", "line 2: '../a.png' is no path inside"),
        ("image,age,dose\n/etc/passwd,1,2\n", "is no path inside"),
        ("image,age,dose\nlink.png,1,2\n", "is no path inside"),
        ("image,age,dose\n,1,2\n", "is no path inside"),
        ("image,age,dose\nb.png,1,2\n", "line 2: .*b.png does not exist"),
        ("image,age,dose\na.png,old,2\n", "line 2: 'old' in the column age is no number"),
        ("image,age,dose\na.png,nan,2\n", "is no number"),
        ("image,age,dose\na.png,inf,2\n", "is no number"),
        ("image,age\na.png,1\n", "has no column 'dose'"),
        ("file,age,dose\na.png,1,2\n", "has no column 'image'"),
        ('image,age,dose\n"a.png,1,2\n', "line 2: "),
        ("image,age,dose\na.png,1,\0\n", "zero bytes"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, text: str, message: str):
    png(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    table(tmp_path, text)
    with pytest.raises(InputError, match=message):
        list_samples(tmp_path, FUSION)


def test_a_table_wants_a_recipe_that_names_the_inputs(tmp_path: Path):
    png(tmp_path / "a.png")
    table(tmp_path, "image,age\na.png,1\n")
    with pytest.raises(InputError, match="does not say which inputs they feed"):
        list_samples(tmp_path)


def test_other_encodings_are_refused(tmp_path: Path):
    path = tmp_path / "samples.csv"
    path.write_bytes("image,größe\n".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_table(path)


def test_a_table_of_tiny_rows_takes_little_and_has_a_limit(tmp_path: Path):
    path = tmp_path / "samples.csv"
    path.write_text("a\n" + "1\n" * 200_000)
    tracemalloc.start()
    try:
        _, rows = read_table(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(rows) == 200_000
    # of each row: itself 64 bytes, its tuple 64, its number 32, its place in the list 8; the rest is the text
    assert peak < 200_000 * 200
    path.write_text("a\n" + "1\n" * 500_001)
    with pytest.raises(InputError, match="more than 500,000 rows"):
        read_table(path)
    path.write_text("a\n" + "1" * (64 << 20))
    with pytest.raises(InputError, match="more than 64 MiB"):
        read_table(path)
