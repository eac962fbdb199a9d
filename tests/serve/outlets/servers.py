"""HTTP and MLLP servers of the tests: they answer as they are told, and remember what they were sent."""

from __future__ import annotations

import asyncio
import queue
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hl7.mllp import start_hl7_server

Reply = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class Asked:
    """A request."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Site:
    """A web server; `answer` says what it replies."""

    answer: Callable[[Asked], Reply]
    asked: list[Asked] = field(default_factory=list)
    port: int = 0


@contextmanager
def site(answer: Callable[[Asked], Reply], tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    made = Site(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            made.asked.append(asked)
            status, headers, reply = made.answer(asked)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(reply)), **headers}.items():
                self.send_header(name, value)
            with suppress(ConnectionError):  # who asked may be gone
                self.end_headers()
                self.wfile.write(reply)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def mllp(
    answer: Callable[[str], bytes | None], *, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[str]]]:
    """The MLLP server of the hl7 library: its port, and the messages that it was sent.

    `answer` makes what is written back, frame and all; `None` leaves that to the library: an AA.
    """
    messages: list[str] = []
    ready: queue.SimpleQueue[int] = queue.SimpleQueue()

    async def serve(stop: asyncio.Event) -> None:
        async def talk(reader: Any, writer: Any) -> None:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while not reader.at_eof():
                    message = await reader.readmessage()
                    messages.append(str(message))
                    said = answer(str(message))
                    if said is None:
                        writer.writemessage(message.create_ack())
                    else:
                        writer.write(said)
                    await writer.drain()
                    if said == b"":
                        break
            writer.close()

        server = await start_hl7_server(talk, "127.0.0.1", 0, limit=1 << 20, encoding="utf-8", ssl=tls)
        ready.put(server.sockets[0].getsockname()[1])
        async with server:
            await stop.wait()

    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(stop)))
    thread.start()
    try:
        yield ready.get(timeout=20), messages
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
