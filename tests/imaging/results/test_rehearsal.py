"""After a rehearsal, the first results load nothing more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgemed.base.errors import InputError
from edgemed.imaging.results.rehearsal import rehearse
from tests.imaging.results import cases
from tests.serve import kit

PROGRAM = """
import sys
from pathlib import Path
from edgemed.imaging.results import make_results
from edgemed.imaging.results.rehearsal import rehearse
from tests.imaging.results import cases

folder = Path(sys.argv[1])
slice_ = folder / "slice.dcm"
said = cases.content(slice_, readings=(cases.classified(), cases.drawn(cases.blobs(64, 64))))
late = cases.content(slice_, refusal="It came too late.")
if sys.argv[2] == "rehearsed":
    rehearse(cases.AUTHOR, cases.EVERY, ("sr", "json"), folder / "image")
before = set(sys.modules)
assert len(make_results(said, cases.EVERY)) == 5 and len(make_results(late, ("sr", "json"))) == 2
print(*sorted(set(sys.modules) - before), sep="\\n")
"""


def loaded(folder: Path, repo: Path, how: str) -> list[str]:
    """Modules that the first results load."""
    kit.write(kit.image(), folder / "slice.dcm")
    environment = {**os.environ, "PYTHONPATH": f"{repo}{os.pathsep}{repo / 'tests'}"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder), how]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=repo, check=True)
    assert [file.name for file in folder.iterdir()] == ["slice.dcm"]
    return done.stdout.split()


def test_the_first_results_load_nothing_more(tmp_path: Path, repo: Path) -> None:
    assert "highdicom.sr.sop" in loaded(tmp_path, repo, "cold")
    assert loaded(tmp_path, repo, "rehearsed") == []


def test_nothing_is_left_where_it_fails(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pdf"):
        rehearse(cases.AUTHOR, ("pdf",), (), tmp_path / "image")
    assert list(tmp_path.iterdir()) == []
