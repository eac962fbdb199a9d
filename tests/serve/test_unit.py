"""The systemd unit: systemd itself takes it, and finds it well shut in."""

from __future__ import annotations

import ctypes.util
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.serve import kit, sandbox
from tests.serve.process import Process, started
from tests.waiting import wait_for

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


@pytest.mark.skipif(ctypes.util.find_library("seccomp") is None, reason="needs libseccomp (Debian: libseccomp2)")
def test_a_daemon_with_a_shadow_works_inside(unit: Path, tmp_path: Path) -> None:
    """Under the unit's list of system calls; whatever else is called would end it. The shadow asks for most."""
    model = {"name": "chest", "bundle": "chest.edgemed", "runner": "onnxruntime", "shadow": {"share": 1.0}}
    under = [sys.executable, sandbox.__file__, str(unit)]
    with started(tmp_path, under=under, models=[model]) as daemon:
        daemon.ready()
        _send(daemon, tmp_path)
        assert daemon.stop() == 0, daemon.log
    assert "signal 31" not in daemon.log  # SIGSYS of a worker, which the daemon would outlive
    assert (tmp_path / "state/audit/trail.jsonl").is_file()


def _send(daemon: Process, folder: Path) -> None:
    """One image, to its end."""
    from tests.serve.dicom.rig import storescu

    storescu(daemon.dicom, kit.write(kit.image(), folder / "image.dcm"), calling="SENDER", options=())

    def done() -> bool:
        studies = httpx.get(f"{daemon.http}/api/studies").json()["studies"]
        return [study["state"] for study in studies] == ["delivered"]

    wait_for(done, "the end of the image")
