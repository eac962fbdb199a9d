"""The description is true: schemathesis finds no answer that it does not describe, and nothing that breaks us."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

REPO = Path(__file__).resolve().parents[3]


def schemathesis(folder: Path, port: int, examples: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Run it against a server; it leaves its cache in a folder."""
    program = Path(sys.executable).with_name("schemathesis")
    command = [
        str(program),
        "run",
        f"http://127.0.0.1:{port}/openapi.json",
        "--no-color",
        "--max-examples",
        str(examples),
    ]
    paths = os.pathsep.join((str(REPO), str(REPO / "tests")))
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.serve.http.schemathesis_hooks", "PYTHONPATH": paths}
    # which tensors a model takes, no description of a path can say: a body by the schema may be one for another model
    command += ["--exclude-checks", "positive_data_acceptance", *more]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, timeout=3600)


def test_schemathesis(running: Any, tmp_path: Path) -> None:
    _, server, client = running
    done = schemathesis(tmp_path, server.port, 2, "--phases", "coverage,fuzzing", "--seed", "1")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"(\d\d) selected / \1 total", done.stdout)
    assert client.get("/v2/health/ready").status_code == 200


def test_every_path_is_described(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v2/models/{model}/infer", "/dicom-web/studies", "/metrics", "/trace", "/admin/models"} <= set(paths)
    for path, methods in paths.items():
        for operation in methods.values():
            assert "422" not in operation["responses"], path
            assert {"400", "421", "503"} <= set(operation["responses"]), path
