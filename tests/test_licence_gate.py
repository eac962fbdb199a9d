"""The licence gate, on metadata written to disk as an installer would."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from scripts import licence_gate as gate

Install = Callable[..., metadata.Distribution]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    def write(name: str, *lines: str) -> metadata.Distribution:
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            "\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines, ""])
        )
        return metadata.Distribution.at(folder)

    return write


def lookup(*dists: metadata.Distribution) -> gate.Lookup:
    known = {dist.name: dist for dist in dists}

    def find(name: str) -> metadata.Distribution:
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    return find


@pytest.mark.parametrize(
    "lines",
    [
        ["License-Expression: MIT"],
        ["License-Expression: BSD-3-Clause AND 0BSD AND Zlib"],
        ["License-Expression: GPL-3.0-only OR MIT"],
        ["License-Expression: (MIT OR Apache-2.0) AND ISC"],
        ["License: Apache 2.0"],
        ["License: a page of text", "Classifier: License :: OSI Approved :: BSD License"],
        ["Classifier: License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)"],
    ],
)
def test_permissive_licences_pass(install: Install, lines: list[str]) -> None:
    assert gate.refused({"x": install("x", *lines)}) == []


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["License: "],
        ["License: UNKNOWN"],
        ["License: Proprietary"],
        ["License-Expression: GPL-3.0-or-later"],
        ["License-Expression: AGPL-3.0-only"],
        ["License-Expression: LGPL-2.1-or-later"],
        ["License-Expression: MIT AND GPL-2.0-only"],
        ["License-Expression: (MIT OR GPL-2.0-only) AND ISC"],
        ["License: MIT", "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)"],
        [
            "Classifier: License :: OSI Approved :: MIT License",
            "Classifier: License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)",
        ],
    ],
)
def test_copyleft_and_unknown_licences_are_refused(install: Install, lines: list[str]) -> None:
    (complaint,) = gate.refused({"x": install("x", *lines)})
    assert complaint.startswith("x 1.0 declares ")


def test_a_wheel_that_carries_what_its_metadata_hide_is_refused(install: Install) -> None:
    (complaint,) = gate.refused({"av": install("av", "License-Expression: BSD-3-Clause")})
    assert "x264" in complaint


def test_a_review_holds_for_the_words_it_was_made_of(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    dist = install("x", "License: Proprietary")
    monkeypatch.setitem(gate.REVIEWED, "x", gate.Review("Proprietary", "a reason"))
    assert gate.refused({"x": dist}) == []
    monkeypatch.setitem(gate.REVIEWED, "x", gate.Review("Other words", "a reason"))
    assert gate.refused({"x": dist})


def test_the_closure_follows_extras_and_markers(install: Install) -> None:
    dists = [
        install(
            "root", "Requires-Dist: A_b>=1", "Requires-Dist: c[fast]; extra == 'x'", "Requires-Dist: no; extra == 'y'"
        ),
        install("a-b", "Requires-Dist: no; python_version < '3'", "Requires-Dist: root"),
        install("c", "Requires-Dist: d; extra == 'fast'", "Requires-Dist: no; extra == 'slow'"),
        install("d"),
    ]
    assert set(gate.closure("root", ["x"], lookup(*dists))) == {"root", "a-b", "c", "d"}


def test_a_package_that_is_not_installed_is_not_passed_over(install: Install) -> None:
    with pytest.raises(metadata.PackageNotFoundError):
        gate.closure("root", [], lookup(install("root", "Requires-Dist: absent")))


def test_edgemed_as_installed_here_passes() -> None:
    dists = gate.closure("edgemed", gate.EXTRAS)
    assert {"numpy", "tensorrt-rtx-cu13", "tf2onnx"} <= set(dists)
    assert gate.refused(dists) == []


def test_main_fails_on_a_refused_licence(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dist = install("edgemed", "License-Expression: AGPL-3.0-only")
    monkeypatch.setattr(gate, "closure", lambda root, extras: {"edgemed": dist})
    assert gate.main() == 1
    assert "AGPL-3.0-only" in capsys.readouterr().err
