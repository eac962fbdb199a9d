"""What is made again is the same thing, byte by byte, in another process too."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgemed.imaging.results import make_results
from edgemed.imaging.results.content import Content
from tests.imaging.results import cases, golden
from tests.serve import kit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PROGRAM = """
import sys
from tests.imaging.results import test_same
from pathlib import Path
print(*test_same.digests(Path(sys.argv[1])), sep="\\n")
"""


def contents(cine: Path) -> list[Content]:
    slice_ = cases.real("CT_small.dcm")
    shapes = {slice_: (128, 128), cine: (64, 64)}
    drawn = [cases.drawn(cases.blobs(*shape), frame=0 if path == cine else None) for path, shape in shapes.items()]
    return [
        cases.content(slice_, readings=(drawn[0], cases.classified()), notes=("Late.",), ood=0.5),
        cases.content(cine, readings=(drawn[1],), revision=2),
        cases.content(slice_, refusal="It came too late."),
    ]


def digests(cine: Path) -> list[str]:
    files = [file for said in contents(cine) for file in make_results(said, cases.EVERY)]
    return [f"{file.name} {hashlib.sha256(file.data).hexdigest()}" for file in files]


@pytest.fixture
def cine(tmp_path: Path) -> Path:
    return kit.write(kit.image(sop_class=kit.US_MULTIFRAME, frames=3), tmp_path / "us.dcm")


def test_in_another_process(repo: Path, cine: Path) -> None:
    here = digests(cine)
    assert len(here) == 5 + 4 + 3
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": f"{repo}{os.pathsep}{repo / 'tests'}"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(cine)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=repo, check=True)
    assert done.stdout.split("\n")[:-1] == here


def test_names_are_those_of_files(tmp_path: Path, cine: Path) -> None:
    for said in contents(cine)[:1]:
        for file in make_results(said, cases.EVERY):
            assert file.sop_instance in file.name
            path = tmp_path / file.name
            path.write_bytes(file.data)
            assert path.parent == tmp_path


def test_files_are_those_that_earlier_versions_wrote() -> None:
    assert golden.hashes() == json.loads(golden.KNOWN.read_text())
