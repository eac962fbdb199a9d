"""A daemon whose HTTP and gRPC are asked, shared by the tests of one file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgemed.serve.daemon import Daemon
from edgemed.serve.http.server import HttpServer
from tests.serve import kit
from tests.waiting import wait_for


def server_of(daemon: Daemon) -> HttpServer:
    return next(part for part in daemon._parts if isinstance(part, HttpServer))


def wait_ready(client: httpx.Client) -> None:
    """Until the model is loaded."""
    path = "/v2/health/ready"
    wait_for(lambda: client.get(path).status_code == 200, lambda: client.get(path).text)


@contextmanager
def served(root: Path, *, ready: bool = True, http: dict[str, Any] | None = None, **sections: Any) -> Iterator[Any]:
    """A daemon, its HTTP server, and a client of it."""
    own = {"host": "127.0.0.1", "port": 0, "grpc_port": 0, "max_body": "4MiB", **(http or {})}
    with kit.running(kit.bedside(root, http=own, **sections)) as daemon:
        server = server_of(daemon)
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
            if ready:
                wait_ready(client)
            yield daemon, server, client


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with served(tmp_path_factory.mktemp("http")) as three:
        yield three


@pytest.fixture
def client(running: Any) -> httpx.Client:
    return running[2]
