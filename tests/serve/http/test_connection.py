"""Clients that are slow, endless, or broken: each is let go in its time, and memory is bounded meanwhile."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from edgemed.serve.http import connection
from edgemed.serve.http.page import routes
from edgemed.serve.live.board import Channel
from tests.serve.http.conftest import served

HEAD = b"POST /v2/models/chest/infer HTTP/1.1\r\nHost: localhost\r\n"
LOOK = b"GET /live/scope.jpg?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"
ASK = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that gives each request half a second."""
    with served(tmp_path_factory.mktemp("slow"), ready=False, http={"request": "500ms", "max_requests": 2}) as three:
        yield three


@pytest.fixture
def watched(running: Any, impatient: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Live sources that never show anything, and are waited for."""
    monkeypatch.setattr(routes, "_WAIT_S", 60.0)
    channels = [Channel("scope", "chest", stale_ns=1) for _ in (running, impatient)]
    for (daemon, _, _), channel in zip((running, impatient), channels, strict=True):
        daemon.services.board.channels["scope"] = channel
    yield
    for channel in channels:
        channel.move("ended")
    for daemon, _, _ in (running, impatient):
        del daemon.services.board.channels["scope"]


@contextmanager
def raw(server: Any) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as one:
        yield one


def rest_of(one: socket.socket) -> bytes:
    """All that comes until the server closes."""
    data = b""
    while piece := one.recv(65536):
        data += piece
    return data


@pytest.mark.parametrize("start", [b"", b"GET", b"GET /v2 HTTP/1.1\r\nHo", HEAD + b"Content-Length: 9\r\n\r\nhalf"])
def test_who_does_not_go_on_is_let_go(impatient: Any, start: bytes) -> None:
    with raw(impatient[1]) as one:
        one.sendall(start)
        assert rest_of(one).startswith(b"HTTP/1.1 408")


def test_a_connection_that_is_kept_is_let_go_too(impatient: Any) -> None:
    with raw(impatient[1]) as one:
        one.sendall(ASK)
        assert rest_of(one).startswith(b"HTTP/1.1 200")


def test_a_byte_now_and_then_is_not_enough(impatient: Any) -> None:
    with raw(impatient[1]) as one:
        one.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        one.settimeout(0.05)
        data = b""
        for _ in range(400):
            try:
                one.sendall(b"x")
                if piece := one.recv(65536):
                    data += piece
                else:
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert data.startswith(b"HTTP/1.1 408")


def test_who_sends_steadily_is_given_time(impatient: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_LEAST_RATE", 64)
    with raw(impatient[1]) as one:
        one.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        one.settimeout(0.1)
        for _ in range(9):  # nearly a second, twice what is allowed without
            one.sendall(bytes(100))
            with pytest.raises(TimeoutError):
                one.recv(1)
        one.settimeout(30)
        one.sendall(bytes(100))
        assert one.recv(65536).startswith(b"HTTP/1.1 400")  # it is no JSON


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: " + b"a" * 40_000 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: a\r\n" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"A" * 400_000,
    ],
    ids=["path", "value", "many", "a name without end"],
)
def test_heads_that_are_too_long(running: Any, head: bytes) -> None:
    with raw(running[1]) as one:
        try:
            one.sendall(head)
            answer = rest_of(one)
        except ConnectionError:  # it was closed while we sent
            return
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: x\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http(running: Any, request_: bytes) -> None:
    with raw(running[1]) as one:
        one.sendall(request_)
        one.shutdown(socket.SHUT_WR)
        answer = rest_of(one)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
        assert b"traceback" not in answer.lower()
    with raw(running[1]) as one:
        one.sendall(ASK)
        assert one.recv(65536).startswith(b"HTTP/1.1 200")


def test_several_at_once_on_one_connection(running: Any) -> None:
    with raw(running[1]) as one:
        body = HEAD + b"Inference-Header-Content-Length: 0\r\nContent-Length: 64\r\n\r\n" + bytes(64)
        one.sendall((ASK + body) * 4 + ASK.replace(b"Host", b"Connection: close\r\nHost"))
        answer = rest_of(one)
        assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 200") + answer.count(b"HTTP/1.1 503")
        assert answer.count(b'"live"') == 5


@pytest.mark.parametrize("piece", [999, 16 << 10, 100_000, 1 << 20])
def test_a_long_body_leaves_the_parser_in_its_place(running: Any, piece: int) -> None:
    """It goes from the socket straight to where it is gathered; what follows it is a request of its own."""
    tensor = {"name": "image", "shape": [1, 4, 4, 1], "datatype": "FP32", "data": [0.9] * 16}
    body = json.dumps({"inputs": [tensor]}).replace(",", "," + " " * 20_000).encode()
    long = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    sent = long + ASK + long + ASK.replace(b"Host", b"Connection: close\r\nHost")
    with raw(running[1]) as one:
        for start in range(0, len(sent), piece):
            one.sendall(sent[start : start + piece])
        answers = rest_of(one)
    assert answers.count(b"HTTP/1.1 200") == 4
    assert (answers.count(b'"score"'), answers.count(b'"live"')) == (2, 2)


def test_what_a_refused_request_still_sends_is_let_go(running: Any) -> None:
    with raw(running[1]) as one:
        one.sendall(HEAD.replace(b"chest", b"none") + b"Content-Length: 400000\r\n\r\n" + bytes(100_000))
        assert one.recv(65536).startswith(b"HTTP/1.1 404")
        one.sendall(bytes(200_000))
        one.sendall(bytes(100_000) + ASK)
        assert one.recv(65536).startswith(b"HTTP/1.1 200")


def test_more_connections_than_places(impatient: Any) -> None:
    most = 2 + 64
    held = [socket.create_connection(("127.0.0.1", impatient[1].port), timeout=30) for _ in range(most + 4)]
    try:
        assert any(rest_of(one).startswith(b"HTTP/1.1 503") for one in held)
    finally:
        for one in held:
            one.close()


def test_silent_connections_make_room_for_who_asks(running: Any) -> None:
    _, server, _ = running
    with raw(server) as asking, ExitStack() as held:
        asking.sendall(HEAD + b"Content-Length: 9\r\n\r\nhalf")
        for _ in range(140):  # the server has 128 places, and 8 for this machine
            held.enter_context(raw(server))
        with raw(server) as other:
            other.sendall(ASK)
            assert other.recv(65536).startswith(b"HTTP/1.1 200")
        asking.sendall(b" more")  # who has asked already is not sent away for it
        assert asking.recv(65536).startswith(b"HTTP/1.1 400")


def test_one_address_cannot_have_all_places(impatient: Any, watched: None) -> None:
    """Even where each of its connections asks for something."""
    _, server, _ = impatient
    with ExitStack() as held:
        for _ in range(80):
            held.enter_context(raw(server)).sendall(LOOK)
        with socket.create_connection(("127.0.0.1", server.port), 30, ("127.0.0.2", 0)) as other:
            other.sendall(ASK)
            assert other.recv(65536).startswith(b"HTTP/1.1 200")


def test_who_looks_on_holds_up_nobody_who_asks(running: Any, watched: None) -> None:
    """A long body is read beside the loop, by threads that those who wait for pictures must not hold."""
    _, server, client = running
    with ExitStack() as held:
        looking = [held.enter_context(raw(server)) for _ in range(60)]
        for one in looking:
            one.sendall(LOOK)
        assert client.post("/v2/models/chest/infer", content=b"[" * 100_000).status_code == 400
        for one in looking:
            one.settimeout(0.0)
            with pytest.raises(BlockingIOError):  # they wait still
                one.recv(1)
