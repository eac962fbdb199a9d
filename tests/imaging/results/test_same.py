"""What is made again is the same thing, byte by byte, in another process too."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgemed.imaging.results import make_results
from edgemed.imaging.results.content import Content
from tests.imaging.results import cases

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PROGRAM = """
import sys
from tests.imaging.results import test_same
print(*test_same.digests(), sep="\\n")
"""


def contents() -> list[Content]:
    slice_ = cases.real("CT_small.dcm")
    cine = cases.real("examples_ybr_color.dcm")
    shapes = {slice_: (128, 128), cine: (240, 320)}
    drawn = [cases.drawn(cases.blobs(*shape), frame=0 if path == cine else None) for path, shape in shapes.items()]
    return [
        cases.content(slice_, readings=(drawn[0], cases.classified()), notes=("Late.",), ood=0.5),
        cases.content(cine, readings=(drawn[1],), revision=2),
        cases.content(slice_, refusal="It came too late."),
    ]


def digests() -> list[str]:
    files = [file for said in contents() for file in make_results(said, cases.EVERY)]
    return [f"{file.name} {hashlib.sha256(file.data).hexdigest()}" for file in files]


def test_in_another_process(repo: Path) -> None:
    here = digests()
    assert len(here) == 5 + 4 + 3
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": f"{repo}{os.pathsep}{repo / 'tests'}"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=repo, check=True)
    assert done.stdout.split("\n")[:-1] == here


def test_names_are_those_of_files(tmp_path: Path) -> None:
    for said in contents():
        for file in make_results(said, cases.EVERY):
            assert file.sop_instance in file.name
            path = tmp_path / file.name
            path.write_bytes(file.data)
            assert path.parent == tmp_path
