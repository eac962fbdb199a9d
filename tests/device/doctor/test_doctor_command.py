"""`edgemed doctor` as a user runs it: lines, JSON by its schema, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from evaluate.bundles import write_bundle

from edgemed.device.doctor.checks import CHECKS, bundle
from edgemed.device.profile import load_profile
from tests.device.roots.builder import healthy, write

REPO = Path(__file__).resolve().parents[3]


def doctor(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgemed", "doctor", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    return healthy(tmp_path / "orin", *load_profile("orin-nano-8gb@6.2"))


def test_one_line_for_each_check_and_a_count(orin: Path) -> None:
    done = doctor("--root", orin)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    shown = [line for line in lines if line.split()[0] in ("ok", "note", "wrong", "unknown")]
    assert len(shown) == len(CHECKS)
    assert lines[0].split() == [
        "ok",
        "board",
        *["Jetson", "Orin", "Nano", "8", "GB", "(p3767-0005),", "compute", "capability", "8.7"],
    ]
    assert lines[-1] == "9 ok, 8 unknown"


def test_what_is_wrong_is_exit_code_four_and_says_what_to_do(orin: Path) -> None:
    write(orin, "sys/class/hwmon/hwmon3/oc1_event_cnt", "2\n")
    write(orin, "proc/sys/kernel/osrelease", "5.15.136-tegra\n")
    done = doctor("--root", orin)
    assert done.returncode == 4
    assert "error: 2 of 17 checks are wrong: kernel, supply." in done.stderr
    assert "→ Restart the board" in done.stdout


@pytest.mark.parametrize("sick", [False, True])
def test_json_is_one_document_by_the_shipped_schema(orin: Path, sick: bool) -> None:
    if sick:
        write(orin, "proc/sys/kernel/osrelease", "5.15.136-tegra\n")
    done = doctor("--root", orin, "--json")
    assert done.returncode == (4 if sick else 0)
    document = json.loads(done.stdout)
    schema = json.loads((REPO / "edgemed/schemas/doctor.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["machine"] == "orin-nano-8gb"
    statuses = {line["check"]: line["status"] for line in document["lines"]}
    assert statuses["kernel"] == ("wrong" if sick else "ok")


def test_a_bundle_gets_a_line_and_is_verified_first(orin: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "little.edgemed", boundaries={"float": 0.5, "int8": 0.5})
    done = doctor(bundle, "--root", orin, "--json")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)["lines"][-1]
    assert (line["check"], line["facts"]["bundle"], line["facts"]["precision"]) == ("bundle", "little.edgemed", "int8")
    (bundle / "recipe.toml").write_text("changed")
    assert doctor(bundle, "--root", orin).returncode == 5
    assert doctor(tmp_path / "none.edgemed", "--root", orin).returncode == 2


def test_here_and_now(tmp_path: Path) -> None:
    """On whatever machine runs the tests: every check is judged, and the code follows from the lines."""
    done = doctor("--json", EDGEMED_STATE=str(tmp_path))
    document = json.loads(done.stdout)
    wrong = [line for line in document["lines"] if line["status"] == "wrong"]
    assert done.returncode == (4 if wrong else 0)
    assert len(document["lines"]) == len(CHECKS)
    assert not any((tmp_path).iterdir())  # it looks and writes nothing


def test_a_state_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    done = doctor("--json", EDGEMED_STATE="/proc/edgemed")
    (disk,) = (line for line in json.loads(done.stdout)["lines"] if line["check"] == "disk")
    assert (disk["status"], "EDGEMED_STATE" in disk["remedy"]) == ("wrong", True)


def test_the_documentation_has_every_check() -> None:
    page = (REPO / "docs" / "jetson.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1] for row in page.splitlines() if row.startswith("| ")]
    named = {name.strip() for row in rows for name in row.split(",")}
    assert {check.__name__.replace("_", " ") for check in (*CHECKS, bundle)} <= named
