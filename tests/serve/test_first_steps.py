"""The first steps of docs/serve.md, typed as they stand there (on ports that are free)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from edgemed.base.child import package_environment
from tests.serve import kit
from tests.serve.process import free_port, says_ready
from tests.waiting import wait_for


def test_they_run(repo: Path, tmp_path: Path) -> None:
    if shutil.which("storescu") is None:
        pytest.skip("storescu is not installed: Debian package dcmtk")
    page = (repo / "docs/serve.md").read_text(encoding="utf-8")
    ports = {"11112": str(free_port()), "8000": str(free_port())}
    toml = page.partition("```toml\n")[2].partition("```")[0] + "[http]\nport = 8000\n"
    (tmp_path / "bedside.toml").write_text(_with(toml, ports), encoding="utf-8")
    kit.write_classifier(tmp_path / "model.edgemed")
    shutil.copy(str(get_testdata_file("CT_small.dcm")), tmp_path)
    commands = [_with(line[2:], ports) for line in page.splitlines() if line.startswith("$ ")]
    assert any("&" in command for command in commands)
    daemon: subprocess.Popen[bytes] | None = None
    try:
        for command in commands:
            if command.endswith("&"):
                daemon = subprocess.Popen(_words(command[:-1]), cwd=tmp_path, env=package_environment(), stderr=-3)
                _until(lambda: says_ready(f"http://127.0.0.1:{ports['8000']}"), daemon)
                continue
            said = _run(command, tmp_path)
            if "storescu" in command:
                _until(lambda: len(list((tmp_path / "results").iterdir())) == 3, daemon)
            if "--check" in command:
                assert re.search(r"✓ model chest +little, .*sequence \d+ of key", said), said
            if "reconcile" in command:
                assert "1 with exactly one end" in said or "1 on the way" in said, said
        assert daemon is not None
        daemon.terminate()
        assert daemon.wait(60) == 0
    finally:
        if daemon is not None:
            daemon.kill()
            daemon.wait()
    assert "1 with exactly one end; nothing is lost" in _run("edgemed reconcile bedside.toml", tmp_path)


def _with(text: str, ports: dict[str, str]) -> str:
    for port, free in ports.items():
        text = re.sub(rf"\b{port}\b", free, text)
    return text


def _words(command: str) -> list[str]:
    words = command.split()
    return [sys.executable, "-m", "edgemed", *words[1:]] if words[0] == "edgemed" else words


def _run(command: str, folder: Path) -> str:
    done = subprocess.run(
        _words(command), cwd=folder, env=package_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def _until(true: Callable[[], object], daemon: subprocess.Popen[bytes]) -> None:
    wait_for(lambda: true() or daemon.poll() is not None)
    assert daemon.poll() is None, "the daemon has ended"
