"""A client that asks the same thing again and again: for latency with one connection, for a rate with several."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing

Ask = Callable[[], None]
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Rest:
    """POSTs one body over connections that are kept; on a bare socket, for Python's clients take a millisecond."""

    def __init__(self, port: int, path: str, body: bytes, headers: dict[str, str]) -> None:
        own = {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(body)), **headers}
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in own.items())
        self._port, self._request = port, head.encode() + b"\r\n" + body

    def open(self) -> tuple[Ask, Callable[[], None]]:
        """How to ask once, and how to end."""
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask() -> None:
            connection.sendall(self._request)
            data = b""
            while (end := data.find(b"\r\n\r\n")) < 0:
                data += _some(connection)
            length = _LENGTH.search(data, 0, end)
            if not data.startswith(b"HTTP/1.1 200") or length is None:
                raise RuntimeError(repr(data[:2000]))
            left = end + 4 + int(length[1]) - len(data)
            while left > 0:
                left -= len(_some(connection))

        return ask, connection.close


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise RuntimeError("the server closed the connection")
    return data


class Rpc:
    """Calls `ModelInfer` with one message that is encoded already."""

    def __init__(self, port: int, message: bytes) -> None:
        self._port, self._message = port, message

    def open(self) -> tuple[Ask, Callable[[], None]]:
        import grpc

        channel = grpc.insecure_channel(f"127.0.0.1:{self._port}", options=[("grpc.use_local_subchannel_pool", 1)])
        method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        return (lambda: method(self._message, timeout=60) and None), channel.close


def latencies_ns(client: Rest | Rpc, count: int) -> list[int]:
    """Of `count` requests, one after the other."""
    ask, close = client.open()
    with closing(_Closing(close)):
        found = []
        for _ in range(count):
            begin_ns = time.perf_counter_ns()
            ask()
            found.append(time.perf_counter_ns() - begin_ns)
        return found


def rate(client: Rest | Rpc, connections: int, seconds: float) -> float:
    """Requests a second over several connections."""
    done: list[int] = []
    failed: list[BaseException] = []
    ends_ns = time.monotonic_ns() + int(seconds * 1e9)

    def work() -> None:
        ask, close = client.open()
        with closing(_Closing(close)):
            count = 0
            try:
                while time.monotonic_ns() < ends_ns:
                    ask()
                    count += 1
            except BaseException as error:
                failed.append(error)
            done.append(count)

    began_ns = time.monotonic_ns()
    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return sum(done) / (time.monotonic_ns() - began_ns) * 1e9


class _Closing:
    def __init__(self, close: Callable[[], None]) -> None:
        self.close = close
