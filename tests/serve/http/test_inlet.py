"""That HTTP is served for as long as the daemon lives, whatever becomes of its server."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgemed.base.quantity import SECOND
from edgemed.serve.http import inlet, server
from edgemed.serve.http.inlet import Inlet
from edgemed.serve.http.server import HttpServer
from tests.serve.http.conftest import served
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with served(tmp_path_factory.mktemp("inlet"), ready=False) as (daemon, http, _):
        yield daemon, http


def comes_back(running: Any, before: object) -> None:
    """Another server is there, the alarm has come and gone, and a request is answered."""
    daemon, http = running
    wait_for(lambda: http._server is not before and http._server.up.is_set(), "another server")
    wait_for(lambda: not daemon.services.alarms.stands("inlet-lost", "http"))
    with daemon.services.journal.read() as connection:
        sql = "SELECT count(*) FROM alarm WHERE code = 'inlet-lost' AND subject = 'http' AND raised > ?"
        assert connection.execute(sql, ("",)).fetchone()[0]
    assert httpx.get(f"http://127.0.0.1:{http.port}/v2/health/live").status_code == 200


def test_a_server_that_an_error_ends_is_begun_anew(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, http = running
    before = http._server

    async def fail(counter: int) -> bool:
        raise MemoryError

    monkeypatch.setattr(before, "on_tick", fail)
    comes_back(running, before)
    assert isinstance(before.failed, MemoryError)


def test_a_server_that_lost_its_socket_is_begun_anew(running: Any) -> None:
    """As uvloop does by itself after some errors of `accept`: it closes the socket, and says nothing."""
    _, http = running
    before = http._server
    loop = before.servers[0].get_loop()
    loop.call_soon_threadsafe(before.servers[0].close)
    comes_back(running, before)


def test_without_handles_who_is_connected_keeps_the_server(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon, http = running
    before, real = http._server, socket.socket

    def full(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with httpx.Client(base_url=f"http://127.0.0.1:{http.port}") as client:
        assert client.get("/v2/health/live").status_code == 200
        with monkeypatch.context() as patch:
            patch.setattr(http._inlet, "lost", lambda taken: "Nobody can connect.")
            patch.setattr(server.socket, "socket", full)
            wait_for(lambda: daemon.services.alarms.stands("inlet-lost", "http"))
            assert client.get("/v2/health/live").status_code == 200
            assert http._server is before
            patch.setattr(server.socket, "socket", real)
        wait_for(lambda: not daemon.services.alarms.stands("inlet-lost", "http"))


def test_a_port_that_somebody_else_took_stays_an_alarm(tmp_path: Path) -> None:
    with served(tmp_path, ready=False) as (daemon, http, _):
        assert isinstance(http, HttpServer)
        http._server.should_exit = True
        http._thread.join()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", http.port))
            other.listen()
            wait_for(lambda: daemon.services.alarms.stands("inlet-lost", "http"))
        wait_for(lambda: not daemon.services.alarms.stands("inlet-lost", "http"))
        assert httpx.get(f"http://127.0.0.1:{http.port}/v2/health/live").status_code == 200


def test_a_server_that_is_lost_while_the_daemon_ends_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To begin anew takes a while: what began then would outlive the daemon, and take what nobody keeps any more."""
    with served(tmp_path, ready=False) as (daemon, http, _):
        assert isinstance(http, HttpServer)
        assert daemon.services.loops.stop(10 * SECOND) == []
        before, end = http._server, http._end

        def end_with_the_daemon() -> None:
            end()
            http.drain()

        with monkeypatch.context() as patch:
            patch.setattr(http._inlet, "lost", lambda taken: "Nobody can connect.")
            patch.setattr(http, "_end", end_with_the_daemon)
            http._look()
        assert http._server is before
        assert not http._thread.is_alive()


def test_where_nobody_accepts_is_lost_too() -> None:
    """After some errors of `accept`, a server keeps the socket, and never accepts again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        inlet = Inlet("gRPC", address[1])
        with socket.create_connection(address):
            assert [inlet.lost() for _ in range(9)] == [None] * 9
            assert inlet.lost() == f"gRPC takes no connections on port {address[1]}."
            listener.accept()[0].close()
            assert inlet.lost() is None


def test_who_takes_some_is_only_busy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        watched = Inlet("HTTP", listener.getsockname()[1])
        with socket.create_connection(listener.getsockname()):
            assert [watched.lost(taken) for taken in range(20)] == [None] * 20


def test_what_the_system_does_not_tell_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without handles nothing of /proc can be read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with monkeypatch.context() as patch:
            patch.setattr(inlet, "_TABLES", (tmp_path,))  # opening it fails, as without handles
            watched = Inlet("HTTP", listener.getsockname()[1])
            assert watched.lost() is None
        assert watched.lost() is None
        with monkeypatch.context() as patch:
            patch.setattr(inlet, "_TABLES", (tmp_path,))
            assert watched.lost() is None
        listener.close()
        assert watched.lost() == f"HTTP does not listen on port {watched._port} any more."
