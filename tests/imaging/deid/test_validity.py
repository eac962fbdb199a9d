"""De-identified images are as valid as the originals, by dicom3tools' validator."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from edgemed.imaging.deid.deidentify import deidentify_file
from edgemed.imaging.deid.options import Options


def complaints(path: Path) -> set[str]:
    """Kinds of errors: what is wrong with which attribute, without its value."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, check=False)
    lines = (done.stdout + done.stderr).decode("latin-1").splitlines()
    return {re.sub(r"= <[^>]*>|<[^<>]*>$", "", line).strip() for line in lines if line.startswith("Error")}


NAMES = ["CT_small.dcm", "MR_small.dcm", "RG1_UNCR.dcm", "eCT_Supplemental.dcm", "MR2_UNCR.dcm"]

pytestmark = pytest.mark.skipif(
    shutil.which("dciodvfy") is None and not os.environ.get("CI"), reason="dicom3tools is not installed: make debian"
)


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "RG1_UNCR.dcm", "eCT_Supplemental.dcm", "MR2_UNCR.dcm"]
)
def test_no_new_kind_of_error(tmp_path: Path, name: str):
    source = get_testdata_file(name, download=False)
    assert isinstance(source, str)
    file, _ = deidentify_file(Path(source), Options())
    file.save_as(tmp_path / "out.dcm", enforce_file_format=True)
    assert complaints(tmp_path / "out.dcm") <= complaints(Path(source))


def test_the_validator_would_notice(tmp_path: Path):
    source = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(source, str)
    file, _ = deidentify_file(Path(source), Options())
    del file.Modality
    file.save_as(tmp_path / "out.dcm", enforce_file_format=True)
    assert not complaints(tmp_path / "out.dcm") <= complaints(Path(source))
