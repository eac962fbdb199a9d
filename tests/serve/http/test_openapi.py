"""The description is true: schemathesis finds no answer that it does not describe, and nothing that breaks us."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx

from tests.fuzz.http import schemathesis


def test_schemathesis(running: Any, tmp_path: Path) -> None:
    _, server, client = running
    done = schemathesis(tmp_path, server.port, "--max-examples", "2", "--seed", "1")
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
