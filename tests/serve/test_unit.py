"""The systemd unit: systemd itself takes it, and finds it well shut in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path("examples/bedside/edgemed.service")


@pytest.fixture
def unit(repo: Path, tmp_path: Path) -> Path:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: Debian package systemd")
    text = (repo / UNIT).read_text().replace("/opt/edgemed/bin/edgemed", "/bin/true")
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    return copy


def test_systemd_takes_it(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_shut_in(unit: Path) -> None:
    # exposure in tenths: 14 when written; systemd calls up to 4.0 "OK", and an unconfined service has 9.6
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", unit]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
