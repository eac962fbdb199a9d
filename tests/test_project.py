"""What is shipped and how it is installed: the wheel, the extras, the pinned versions, the entry points of CI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import edgemed
from edgemed.base.toml import read_toml

REPO = Path(__file__).resolve().parent.parent
PROJECT = read_toml(REPO / "pyproject.toml")["project"]
PINS = sorted((REPO / "constraints").glob("py*.txt"))
PINNED_EXTRAS = {"build", "imaging", "serve", "rtx", "scale", "dev"}


def build_wheel(source: Path, out: Path) -> set[str]:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--wheel-dir", str(out), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def copy_sources(target: Path, *folders: str) -> Path:
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, target)
    for name in ("edgemed", *folders):
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_the_wheel_holds_code_types_schemas_profiles_and_recipes(tmp_path: Path) -> None:
    names = build_wheel(copy_sources(tmp_path / "source", "profiles", "calibration"), tmp_path / "out")
    wanted = {path.relative_to(REPO).as_posix() for path in (REPO / "edgemed").rglob("*") if path.is_file()}
    assert {name for name in wanted if "__pycache__" not in name} <= names
    assert {"edgemed/py.typed", "edgemed/schemas/manifest.schema.json"} <= names
    for kind in ("profiles", "calibration"):
        shipped = {f"edgemed/_data/{kind}/{path.name}" for path in (REPO / kind).glob("*.toml")}
        assert shipped <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [
        name for name in names if name.partition("/")[0] not in ("edgemed", f"edgemed-{edgemed.__version__}.dist-info")
    ]


def test_a_missing_or_empty_folder_of_data_does_not_break_the_wheel(tmp_path: Path) -> None:
    source = copy_sources(tmp_path / "source")
    (source / "calibration").mkdir()
    assert "edgemed/py.typed" in build_wheel(source, tmp_path / "out")


def test_versions_agree() -> None:
    assert PROJECT["version"] == edgemed.__version__
    assert f"## [{edgemed.__version__}]" in (REPO / "CHANGELOG.md").read_text(encoding="utf-8")


def test_extras_are_the_contracts() -> None:
    assert set(PROJECT["optional-dependencies"]) == {*PINNED_EXTRAS, "gpu", "tensorrt"}


def test_the_core_is_lean() -> None:
    core = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert core == {"numpy", "pydantic", "rich", "tomli", "typer"}


def test_there_is_a_file_of_pins_for_each_supported_python() -> None:
    tags = {
        c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith("Programming Language :: Python :: 3.")
    }
    assert {path.stem for path in PINS} == {f"py{tag.replace('.', '')}" for tag in tags}


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.stem)
def test_pins_name_versions_of_all_direct_requirements_and_no_host(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")
    pins = {}
    for line in filter(None, lines):
        assert re.fullmatch(r"[a-z0-9.-]+==[A-Za-z0-9.+!-]+", line), line
        name, _, version = line.partition("==")
        pins[canonicalize_name(name)] = version
    python = f"3.{path.stem.removeprefix('py3')}"
    environment = {"python_version": python, "platform_machine": "x86_64", "sys_platform": "linux"}
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in PINNED_EXTRAS)]
    for need in map(Requirement, [text for group in groups for text in group]):
        if need.name != "edgemed" and (need.marker is None or need.marker.evaluate(environment)):
            assert need.specifier.contains(pins[canonicalize_name(need.name)]), need


def test_the_command_is_installed() -> None:
    (entry,) = metadata.distribution("edgemed").entry_points.select(name="edgemed")
    assert entry.value == "edgemed.cli.main:main"


def test_ci_runs_make_test() -> None:
    script = REPO / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").rstrip().endswith("exec make --keep-going test")


def test_make_help_lists_the_targets() -> None:
    done = subprocess.run(["make", "--no-print-directory"], cwd=REPO, capture_output=True, text=True, check=True)
    for target in ("test", "demo", "example-chest", "lint", "types", "licences", "schemas", "constraints", "venv"):
        assert re.search(rf"^  make {target} ", done.stdout, re.MULTILINE)


def test_another_python_is_refused_by_make(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho py39\n")
    python.chmod(0o755)
    done = subprocess.run(["make", "venv", f"PYTHON={python}"], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 2
    assert "supports Python 3.10 to 3.13" in done.stderr


def test_a_skip_for_a_missing_package_fails_in_ci(tmp_path: Path) -> None:
    shutil.copy(REPO / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_x.py").write_text(
        "import pytest\ndef test_a():\n    pytest.importorskip('no_such_package')\ndef test_b(): pass\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    for ci, code in (("true", 1), ("", 0)):
        done = subprocess.run(command, env={**os.environ, "CI": ci}, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stdout


def test_every_test_file_is_collected(repo: Path) -> None:
    """pytest passes over folders by name; a test that never runs cannot fail."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=True).stdout
    collected = {line.partition("::")[0] for line in listed.splitlines() if "::" in line}
    there = {path.relative_to(repo).as_posix() for path in (repo / "tests").rglob("test_*.py")}
    assert there == collected
