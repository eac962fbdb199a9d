"""Tables of labels: what is read, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import InputError
from edgemed.imaging.labels.table import Columns, read_label_table


def write(folder: Path, text: str | bytes, *files: str) -> Path:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    table = folder / "labels.csv"
    table.write_bytes(text.encode() if isinstance(text, str) else text)
    return table


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
def test_separators_ends_and_marks(tmp_path: Path, separator: str, end: str, start: str) -> None:
    lines = ["label,file,age", 'b,"x 1.png",61', "", "a,sub/y.png,"]
    text = start + end.join(lines).replace(",", separator)
    table = read_label_table(write(tmp_path, text, "x 1.png", "sub/y.png"))
    assert table.classes == ("a", "b")
    assert table.exclusive
    assert [(row.path.relative_to(tmp_path).as_posix(), row.labels) for row in table.rows] == [
        ("x 1.png", ("b",)),
        ("sub/y.png", ("a",)),
    ]
    assert [row.line for row in table.rows] == [2 + (start == "\n"), 4 + (start == "\n")]


def test_columns_of_0_and_1(tmp_path: Path) -> None:
    text = "file,patient,edema,mass\na.png,7,0,1\nb.png,,0,0\nc.png,8,1.0,1\n"
    table = read_label_table(write(tmp_path, text, "a.png", "b.png", "c.png"))
    assert (table.classes, table.exclusive) == (("edema", "mass"), False)
    assert [row.labels for row in table.rows] == [("mass",), (), ("edema", "mass")]
    assert [row.patient for row in table.rows] == ["7", None, "8"]
    chosen = read_label_table(tmp_path / "labels.csv", Columns(classes=("mass",)))
    assert [row.labels for row in chosen.rows] == [("mass",), (), ("mass",)]


def test_names_may_be_given(tmp_path: Path) -> None:
    text = "image_id,dx\na.png,nv\n"
    table = read_label_table(write(tmp_path, text, "a.png"), Columns(file="image_id", label="dx"))
    assert table.rows[0].labels == ("nv",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,label\na.png,x\n", "no column 'file'"),
        ("file\na.png\n", "no column 'label'"),
        ("file,label\n", "no rows"),
        ("file,label\nsub,x\n", "line 2: "),
        ("file,label,label\na.png,x,y\n", "each its own"),
        ("file,label\na.png\n", "line 2: 1 cells where the header has 2"),
        ("file,label\na.png,x\na.png,x\n", "line 3: the image of line 2"),
        ("file,label\na.png,x\n./a.png,x\n", "line 3: the image of line 2"),
        ("file,label\n\nmissing.png,x\n", "missing.png does not exist"),
        ("file,label\n../outside.png,x\n", "line 2: '../outside.png' is no path inside"),
        ("file,label\n/etc/passwd,x\n", "is no path inside"),
        ("file,label\nlink.png,x\n", "is no path inside"),
        ("file,label\na.png,\n", "line 2: no label"),
        ("file,label\n,x\n", "line 2: '' is no path inside"),
        ("file,label\na.png,x\x1b[2J\n", "not printable"),
        ("file,x\na.png,2\n", "'2' in column 'x' is not 0 or 1"),
        ('file,label\n"a.png,x\n', "line 2: "),
        (b"file,label\na.png,\xff\n", "not UTF-8"),
        ("file,label\na.png,\0\n", "zero bytes"),
        ("file,label\na.png," + "x" * 200_000 + "\n", "line 2"),
        ("file,label\ndoor/b.png,x\n", "is no path inside"),
        (f"file,label\n{'y' * 3000},x\n", "is no path"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "outside.png").write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "door").symlink_to(tmp_path / "elsewhere")
    (folder / "sub").mkdir()
    table = write(folder, text, "a.png")
    with pytest.raises(InputError) as caught:
        read_label_table(table)
    assert said in caught.value.what
    assert caught.value.hint


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    table = tmp_path_factory.mktemp("any") / "labels.csv"
    table.write_bytes(b"file,label\n" + data)
    with pytest.raises(InputError):
        read_label_table(table)
