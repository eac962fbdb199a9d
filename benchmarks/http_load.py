"""A client that asks the same thing again and again: for latency with one connection, for a rate with several."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from contextlib import closing

Ask = Callable[[], None]


class Rest:
    """POSTs one body over connections that are kept."""

    def __init__(self, port: int, path: str, body: bytes, headers: dict[str, str]) -> None:
        self._port, self._path, self._body, self._headers = port, path, body, headers

    def open(self) -> tuple[Ask, Callable[[], None]]:
        """How to ask once, and how to end."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.connect()

        def ask() -> None:
            connection.request("POST", self._path, self._body, self._headers)
            response = connection.getresponse()
            data = response.read()
            if response.status != 200:
                raise RuntimeError(f"{response.status}: {data[:200]!r}")

        return ask, connection.close


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
