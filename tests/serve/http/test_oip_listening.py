"""That gRPC listens, once, and for as long as the daemon lives."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from edgemed.serve.alarms import Alarm
from edgemed.serve.daemon import Daemon
from edgemed.serve.http.access import Logins
from edgemed.serve.http.oip import rpc
from edgemed.serve.http.proto import SERVICE
from tests.serve.http.client import Client
from tests.serve.http.conftest import served
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with served(tmp_path_factory.mktemp("listening"), ready=False) as (daemon, _, __):
        yield daemon


@pytest.fixture
def server(daemon: Any) -> Iterator[rpc.RpcServer]:
    """One beside the daemon's own, at which only the test looks."""
    made = rpc.RpcServer(daemon.services, Logins(None, daemon.services.audit), None)
    yield made
    made.stop(0)


def lives(port: int) -> bool:
    """What a new connection is told."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        return bool(Client(channel).call("ServerLive").live)


def test_a_look_during_the_start_opens_no_second_port(server: rpc.RpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC ends a server that is held no more, at its next event: the one of the start, if the look's replaced it."""
    real, bound = rpc.bind, []
    second, started = threading.Event(), threading.Event()
    looks = threading.Thread(target=server.look, daemon=True)

    def slow(*args: Any) -> int:
        port = real(*args)
        bound.append(port)
        if len(bound) == 1:
            looks.start()
            second.wait(1)
        else:
            second.set()
            started.wait()
        return port

    monkeypatch.setattr(rpc, "bind", slow)
    port = server.start()
    started.set()
    looks.join()
    assert lives(port)
    assert lives(port)
    assert bound == [port]


def test_a_port_that_is_lost_is_an_alarm_and_comes_back(daemon: Any, server: rpc.RpcServer) -> None:
    port = server.start()
    assert lives(port)
    lose(server)
    with listening_to(daemon) as heard:
        wait_for(lambda: listens_after_a_look(server), "gRPC listens anew")
        assert lives(port)
        server.look()
    assert [(alarm.code, raised) for alarm, raised in heard] == [("inlet-lost", True), ("inlet-lost", False)]
    assert heard[0][0].text == f"gRPC does not listen on port {port} any more. It listens anew."


def test_a_port_that_somebody_else_took_stays_an_alarm(daemon: Any, server: rpc.RpcServer) -> None:
    port = server.start()
    lose(server)
    with socket.create_server(("127.0.0.1", port)):
        for _ in range(4):
            server.look()
        standing = {alarm.subject: alarm.text for alarm in daemon.services.alarms.standing}
        assert standing["grpc"].startswith(f"gRPC does not listen: 127.0.0.1:{port} cannot be bound")
        assert daemon.services.readiness.light != "ready"
    wait_for(lambda: listens_after_a_look(server), "gRPC listens anew")
    assert lives(port)
    server.look()
    assert not daemon.services.alarms.stands("inlet-lost", "grpc")


def test_a_request_that_gets_no_thread_ends_no_server(server: rpc.RpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC hands requests on in one thread, which an error would end."""
    port = server.start()

    def none(thread: threading.Thread, real: Any = threading.Thread.start) -> None:
        if thread.name.startswith("grpc_"):  # of the pool; our client needs some, too
            raise RuntimeError("can't start new thread")
        real(thread)

    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        grpc.channel_ready_future(channel).result(30)
        client = Client(channel)
        request, response = client.proto.methods["ServerLive"]
        ask = channel.unary_unary(f"/{SERVICE}/ServerLive", request.SerializeToString, response.FromString)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none)
            waits = ask.future(request(), timeout=30)
            wait_for(lambda: server._pool is not None and server._pool._work_queue.qsize())
        assert client.call("ServerLive").live
        assert waits.result().live  # its thread is there now


def lose(server: rpc.RpcServer) -> None:
    """End what gRPC listens with, behind its back."""
    assert server._server is not None
    server._server.stop(0).wait()
    assert server._inlet is not None
    wait_for(server._inlet.lost, "the port is closed")


@contextmanager
def listening_to(daemon: Daemon) -> Iterator[list[tuple[Alarm, bool]]]:
    """Alarms of gRPC from now on, and whether each was raised or cleared."""
    heard: list[tuple[Alarm, bool]] = []

    def hear(alarm: Alarm, raised: bool) -> None:
        if alarm.subject == "grpc":
            heard.append((alarm, raised))

    daemon.services.alarms.listeners.append(hear)
    try:
        yield heard
    finally:
        daemon.services.alarms.listeners.remove(hear)


def listens_after_a_look(server: rpc.RpcServer) -> bool:
    server.look()
    return server._server is not None
