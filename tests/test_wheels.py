"""The cache of fetched things: a folder of it is whole, or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.wheels import cache_dir, filled


def write(folder: Path) -> None:
    (folder / "file").write_text("whole")


def test_a_folder_is_filled_once(tmp_path: Path) -> None:
    fills: list[Path] = []

    def fill(folder: Path) -> None:
        fills.append(folder)
        write(folder)

    target = tmp_path / "kind" / "key"
    assert filled(target, fill) == filled(target, fill) == target
    assert len(fills) == 1
    assert (target / "file").read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o755  # also for other users, as a cache of CI may have


def test_what_was_not_filled_is_not_there(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise ConnectionError("the registry hung up")

    with pytest.raises(ConnectionError):
        filled(tmp_path / "key", fail)
    assert not list(tmp_path.iterdir())


def test_of_two_processes_the_quicker_one_fills_it(tmp_path: Path) -> None:
    target = tmp_path / "key"

    def slow(folder: Path) -> None:
        (folder / "file").write_text("too late")
        filled(target, write)

    assert (filled(target, slow) / "file").read_text() == "whole"
    assert list(tmp_path.iterdir()) == [target]


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("EDGEMED_CACHE", raising=False)
    assert cache_dir() == tmp_path / ".cache" / "edgemed"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "edgemed"
    monkeypatch.setenv("EDGEMED_CACHE", str(tmp_path / "chosen"))
    assert cache_dir() == tmp_path / "chosen"
