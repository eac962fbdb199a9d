"""Debian's Orthanc as a peer."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.waiting import wait_for

PROGRAM = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
needs_orthanc = pytest.mark.skipif(PROGRAM is None, reason="not installed: orthanc")


class Orthanc:
    """One that runs; its REST interface."""

    def __init__(self, http_port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=60, trust_env=False)

    def get(self, path: str) -> Any:
        return self._client.get(path).raise_for_status().json()

    def post(self, path: str, body: Any) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._client.post(path, content=content).raise_for_status().json()

    def close(self) -> None:
        self._client.close()


@contextmanager
def orthanc(
    folder: Path,
    modalities: dict[str, dict[str, Any]],
    *,
    dicom_port: int = 4242,
    http_port: int = 8042,
    **settings: Any,
) -> Iterator[Orthanc]:
    """Run it, in the network of this thread."""
    folder.mkdir(exist_ok=True)
    config = {
        "Name": "peer",
        "DicomAet": "ORTHANC",
        "DicomPort": 4242,
        "HttpPort": http_port,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomModalities": modalities,
        "Plugins": [],
        **settings,
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    assert PROGRAM is not None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log)
        client = Orthanc(http_port)
        try:
            _until_up(client, process, folder / "log")
            yield client
        finally:
            client.close()
            process.terminate()
            process.wait(20)


def _until_up(client: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    def told() -> str:
        return f"Orthanc does not come up:\n{log.read_text()[-2000:]}"

    def is_up() -> bool:
        assert process.poll() is None, told()
        try:
            client.get("/system")
        except httpx.TransportError:
            return False
        return True

    wait_for(is_up, told)
