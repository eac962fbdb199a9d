"""Shipped files are found by name, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemed.base import resources
from edgemed.base.errors import InputError
from edgemed.base.resources import find_resource, resource_dir, shipped


def test_profiles_of_this_checkout_are_found() -> None:
    profiles = shipped("profiles")
    assert "orin-nano-8gb" in profiles
    assert find_resource("profiles", "orin-nano-8gb") == profiles["orin-nano-8gb"]
    assert list(profiles) == sorted(profiles)


def test_a_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("orin-nano-8gb.toml").touch()
    assert find_resource("profiles", "orin-nano-8gb.toml") == Path("orin-nano-8gb.toml")
    assert find_resource("profiles", "orin-nano-8gb").is_absolute()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        find_resource("profiles", "toaster")
    assert "device profile 'toaster'" in caught.value.what
    assert "orin-nano-8gb" in caught.value.hint


def test_a_name_cannot_climb_out() -> None:
    with pytest.raises(InputError):
        find_resource("profiles", "../profiles/orin-nano-8gb")


def test_the_wheels_own_copy_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "edgemed"
    (package / "_data" / "profiles").mkdir(parents=True)
    (package / "_data" / "profiles" / "mine.toml").touch()
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert list(shipped("profiles")) == ["mine"]
    assert resource_dir("calibration") == tmp_path / "calibration"
    assert shipped("calibration") == {}
