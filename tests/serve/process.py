"""The daemon as a process of its own, as a site runs it: a configuration file, ports, logs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import tomli_w
from pydicom.dataset import Dataset
from pynetdicom import AE

from edgemed.base.child import package_environment
from tests.serve import kit
from tests.waiting import wait_for


@dataclass
class Process:
    """One that runs.

    Attributes:
        child: the process.
        root: folder of its configuration; the state is `state` in it.
        http: its address.
        dicom: its port.
    """

    child: subprocess.Popen[bytes]
    root: Path
    http: str
    dicom: int

    @property
    def log(self) -> str:
        """All that it has said."""
        return (self.root / "log").read_text(encoding="utf-8")

    def ready(self, seconds: float = 60) -> None:
        """Wait until it says that it is ready."""

        def is_ready() -> bool:
            assert self.child.poll() is None, self.log
            return says_ready(self.http)

        wait_for(is_ready, lambda: self.log, seconds=seconds)

    def send(self, *images: Dataset) -> list[int]:
        """By one association; the statuses."""
        ae = AE("SENDER")
        for ds in images:
            ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
        association = ae.associate("127.0.0.1", self.dicom, ae_title="EDGEMED")
        assert association.is_established
        try:
            return [association.send_c_store(ds).get("Status") for ds in images]
        finally:
            association.release()

    def stop(self) -> int:
        """End it as systemd does; gives its exit code."""
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(60)


def says_ready(address: str) -> bool:
    """Whether a daemon answers there, and is ready."""
    try:
        return httpx.get(f"{address}/v2/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


@contextmanager
def started(root: Path, *, under: Sequence[str] = (), **sections: Any) -> Iterator[Process]:
    """A daemon with one model that takes everything.

    Args:
        root: folder for all of it.
        under: a program that is to run the daemon, with its arguments.
        sections: of the configuration; they replace or add.
    """
    http, dicom = free_port(), free_port()
    if not (root / "chest.edgemed").exists():
        kit.write_classifier(root / "chest.edgemed")
    config: dict[str, Any] = {
        "daemon": {"name": "bedside", "state": "state"},
        "http": {"host": "127.0.0.1", "port": http},
        "dicom": {"host": "127.0.0.1", "port": dicom, "peers": [{"ae_title": "SENDER", "addresses": ["127.0.0.1"]}]},
        "models": [{"name": "chest", "bundle": "chest.edgemed", "runner": "onnxruntime", "results": ["sr", "json"]}],
        "spool": {"reserve": "1MiB", "warn": "2MiB"},
        "trust": {"allow_unsigned": True},
        "log": {"level": "debug"},
    }
    config |= sections
    (root / "bedside.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    with (root / "log").open("ab") as log:
        child = subprocess.Popen(
            [*under, sys.executable, "-m", "edgemed", "serve", "bedside.toml"],
            cwd=root,
            stderr=log,
            stdout=log,
            env={**package_environment(), "TMPDIR": os.fspath(_temporary(root))},
        )
        try:
            yield Process(child, root, f"http://127.0.0.1:{http}", dicom)
        finally:
            child.kill()
            child.wait()


def _temporary(root: Path) -> Path:
    folder = root / "tmp"
    folder.mkdir(exist_ok=True)
    return folder
