"""A missing package is a sentence that names the extra."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from edgemed.base.errors import MissingSoftwareError
from edgemed.base.lazy import needing, require


def test_what_is_there_is_returned() -> None:
    assert require("json", extra="build", purpose="test") is json


def test_what_is_missing_is_said_with_its_extra() -> None:
    with pytest.raises(MissingSoftwareError) as caught:
        require("no_such_package.part", extra="build", purpose="convert Keras models")
    assert caught.value.what == "no_such_package is needed to convert Keras models, and is not installed."
    assert caught.value.hint == "Install it with: pip install 'edgemed[build]'"
    assert caught.value.exit_code == 4


def test_what_a_package_itself_misses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingSoftwareError, match=r"it misses no_such_library"):
        require("half_installed", extra="build", purpose="test")


def test_a_block_that_misses_a_package_says_which_extra_brings_it() -> None:
    with pytest.raises(MissingSoftwareError) as caught, needing("serve", purpose="serve"):
        importlib.import_module("no_such_package.part")
    assert caught.value.what == "no_such_package is needed to serve, and is not installed."
    assert caught.value.hint == "Install it with: pip install 'edgemed[serve]'"


def test_a_module_of_ours_that_is_missing_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError), needing("serve", purpose="serve"):
        importlib.import_module("edgemed.no_such_room")
