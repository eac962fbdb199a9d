"""TOML that cannot be read is refused with the file's name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgemed.base.errors import InputError, ResourceError
from edgemed.base.toml import read_toml


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('name = "µ"\n[input]\nsize = [32, 64]\n', encoding="utf-8")
    assert read_toml(path) == {"name": "µ", "input": {"size": [32, 64]}}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a = \n", "line 1"),
        (b"a = 1\na = 2\n", "line 2"),
        (b"\xff\xfe", "not valid TOML"),
        (b"#\n" * 2**15 + b"#", "64 KiB"),
        (b"a = 1\n# " + b"#" * 4096, "line 2 is longer"),
        (b".".join([b"a"] * 100_000) + b" = 1", "64 KiB"),
        (b".".join([b"a"] * 10_000) + b" = 1", "line 1 is longer"),
        (b"a = " + b"[" * 4000, "nested too deeply"),
        (b"a = [\n" + b"[\n" * 20_000, "nested too deeply"),
    ],
)
def test_bad_bytes(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        read_toml(path)
    assert str(path) in caught.value.what


def test_a_pipe_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.toml")
    with pytest.raises(InputError, match="not a regular file"):
        read_toml(tmp_path / "x.toml")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="does not exist"):
        read_toml(tmp_path / "absent.toml")
    with pytest.raises(ResourceError):
        read_toml(tmp_path)
