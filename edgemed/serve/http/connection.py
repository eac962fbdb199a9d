"""One connection of a client: how much it may send before it says what it wants, and how long it may take.

uvicorn bounds none of it: a client that sends a byte a minute, or headers without end, would hold memory and a place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from edgemed.serve.http.asgi import ANSWER, GONE, WHOLE, Scope, Whole, content_length, lines_of

_LEAST_RATE: Final = 16 << 10
"""Bytes a second, beyond the time that every request is given: a slow line is none that stands still."""
_OTHERS: Final = 32  # of the places, which one address cannot have
_LOCAL: Final = 8  # beyond them, for this machine: its own probes
_FIRST: Final = 16 << 10
"""Bytes that are read where a head is expected: what follows one of a body goes straight to its place."""
_SCRATCH: Final = 256 << 10
_LONG: Final = b"The head of the request is too long."
_CROWDED: Final = b"Too many connections. Try again later."


Place = Callable[[Scope, int], Whole | None]


@dataclass(frozen=True)
class Patience:
    """Bounds of each connection.

    Attributes:
        request_ns: for the head of a request, for its body beyond what comes at 16 KiB/s, and for a client to take
            what is written.
        connections: at a time; who waits for nothing makes room for who comes.
        head_bytes: of URL and headers.
        place: where the body of a request of so many bytes is gathered; `None`: it comes in pieces.
        gathered_bytes: of such a body at most.
    """

    request_ns: int
    connections: int
    head_bytes: int = 32 << 10
    place: Place = lambda scope, length: None  # noqa: ARG005
    gathered_bytes: int = 0


class Reader(asyncio.BufferedProtocol):
    """Reads from the socket for a connection, which tells it where to.

    Args:
        connection: of one client.
        scratch: of all connections of a loop: what is read is taken from it at once.
    """

    def __init__(self, connection: Connection, scratch: memoryview) -> None:
        self._connection = connection
        self._scratch = scratch
        self._room = scratch
        # asked for everything else; a class apart, for uvloop reads bytes for whatever is an `asyncio.Protocol`, too
        self.connection_made = connection.connection_made  # type: ignore[method-assign,assignment]
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign]
        self.eof_received = connection.eof_received  # type: ignore[method-assign]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        self._room = self._connection.room(self._scratch)
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.received(self._room, nbytes)


def reading(patience: Patience) -> Callable[..., Reader]:
    """What uvicorn makes of each connection of one loop."""
    scratch = memoryview(bytearray(_SCRATCH))
    return lambda **others: Reader(Connection(patience, **others), scratch)


class Connection(HttpToolsProtocol):
    """uvicorn's own, with bounds."""

    def __init__(self, patience: Patience, **others: Any) -> None:
        super().__init__(**others)
        self._patience = patience
        self._head = self._unparsed = 0  # bytes
        self._head_open = True
        self._address = ""
        self._taken = 0
        self._sent_s = 0.0
        self._whole: Whole | None = None
        self._past = 0
        self._gone: list[Callable[[], object]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = self.client[0] if self.client is not None else ""
        if not self._has_room():
            self._refuse(503, _CROWDED)
            return
        self._expect()

    def _has_room(self) -> bool:
        """Whether there is a place; else the one makes room that has been silent for longest, if any is."""
        places = self._patience.connections + (_LOCAL if _is_local(self._address) else 0)
        there = [one for one in cast("set[Connection]", self.connections) if not one.transport.is_closing()]
        crowd = [one for one in there if one._address == self._address]
        if len(crowd) <= self._patience.connections - _OTHERS:
            if len(there) <= places:
                return True
            crowd = there
        silent = [one for one in crowd if one is not self and one._waits]
        if silent:
            min(silent, key=lambda one: one._sent_s)._refuse(503, _CROWDED)
        return bool(silent)

    @property
    def _waits(self) -> bool:
        """Nobody works for it: it has not asked yet, or was answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        self._taking()
        super().connection_lost(exc)
        if self.cycle is not None:
            self._let_go()
        for tell in list(self._gone):
            tell()

    # -- the head --------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._head_open:
            self._unparsed += len(data)
        super().data_received(data)
        if self._head_open and self._unparsed > self._patience.head_bytes:  # a name without end is no header yet
            self._refuse(431, _LONG)
        elif self._whole is not None and not self.parser.should_upgrade():
            self._past = self._whole.left

    def on_message_begin(self) -> None:
        self._head = 0
        self._expect()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_open = False
        super().on_headers_complete()
        self._whole = None
        scope = cast("Scope", self.scope)
        scope[GONE] = self._gone
        scope[ANSWER] = partial(self._answer, self.cycle)
        length = content_length(scope)
        if length is not None and length <= self._patience.gathered_bytes:
            self._whole = self._patience.place(scope, length)
        if self._whole is not None:
            scope[WHOLE] = self._whole

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > self._patience.head_bytes:
            raise ValueError  # the parser stops, and calls `send_400_response`

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's; its words tell nothing
        if self._head > self._patience.head_bytes:
            self._refuse(431, _LONG)
        else:
            self._refuse(400, b"This is no valid HTTP request.")

    # -- time ------------------------------------------------------------------------------------------------------

    def _expect(self) -> None:
        self._cancel()
        self._taken = 0
        self._sent_s = self.loop.time()
        self._timer = self.loop.call_later(self._patience.request_ns / 1e9, self._late)

    def _late(self) -> None:
        """The time is over; who sends fast enough is given more, and who is not being read is not to blame."""
        allowed_s = self._patience.request_ns / 1e9 + self._taken / _LEAST_RATE
        left_s = self._sent_s + allowed_s - self.loop.time()
        if self.flow is not None and self.flow.read_paused:
            left_s = max(left_s, 1.0)
        if left_s > 0:
            self._timer = self.loop.call_later(left_s, self._late)
            return
        self._refuse(408, b"The request did not come in time.")

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_body(self, body: bytes) -> None:
        self._taken += len(body)
        if self._whole is None:
            super().on_body(body)
        else:
            self._whole.add(body)
            self._let_go()

    def _let_go(self) -> None:
        """Of a request that was answered, what still comes is wanted by nobody."""
        if self.cycle.response_complete or self.cycle.disconnected:
            cast("Scope", self.scope).pop(WHOLE, None)
            self._whole = None

    # -- past the parser -------------------------------------------------------------------------------------------

    def room(self, scratch: memoryview) -> memoryview:
        """Where the next bytes go, straight from the socket: the rest of a body that is gathered, or `scratch`."""
        if not self._past:
            return scratch[:_FIRST] if self._head_open else scratch
        return scratch[: self._past] if self._whole is None else self._whole.room

    def received(self, room: memoryview, size: int) -> None:
        """So many bytes lie in `room`."""
        if not self._past:
            self.data_received(bytes(room[:size]))
        elif not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._pass(size)

    def _pass(self, size: int) -> None:
        self._taken += size
        self._past -= size
        if self._whole is not None:
            self._whole.written(size)
            self._let_go()
        if not self._past:
            self.parser = _parser(self)  # the other one waits for a body that has come
            self.on_message_complete()

    def on_response_complete(self) -> None:
        self._let_go()
        super().on_response_complete()

    def on_message_complete(self) -> None:
        self._cancel()
        self._whole = None
        self._head_open, self._unparsed = True, 0  # of the next one
        super().on_message_complete()

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _answer(self, cycle: RequestResponseCycle, status: int, lines: bytes, parts: list[bytes]) -> None:
        """See `Answer`: what the cycle's own `send` does, for headers that are ours and need no check."""
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        last = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        head = STATUS_LINE[status] + lines_of(cycle.default_headers) + lines + last
        cycle.response_started = cycle.response_complete = True
        self.transport.writelines([head] if cycle.scope["method"] == "HEAD" else [head, *parts])
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    def pause_writing(self) -> None:
        self._taking()
        self._stall = self.loop.call_later(self._patience.request_ns / 1e9, self._abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._taking()
        super().resume_writing()

    def _taking(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _abort(self) -> None:
        self.transport.abort()

    def _refuse(self, status: int, text: bytes) -> None:
        """Answer, where nothing was answered yet, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = b'{"error":"' + text + b'"}'
            head = b"HTTP/1.1 %d \r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()


def _parser(connection: Connection) -> httptools.HttpRequestParser:
    """As uvicorn makes it."""
    parser = httptools.HttpRequestParser(connection)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def _is_local(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:  # no address at all, or one with a zone
        return False
