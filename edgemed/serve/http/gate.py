"""What every request passes: host, origin, token, limits; and what every answer carries."""

from __future__ import annotations

from typing import Final

from edgemed.base.errors import EdgemedError
from edgemed.serve.config.inlets import HttpSection
from edgemed.serve.http.access import Hosts, Logins, check_origin, role_of
from edgemed.serve.http.answers import HttpError, busy, log_bug, of_error, send_json
from edgemed.serve.http.asgi import (
    ANSWER,
    RESPONSE,
    Answer,
    App,
    Disconnected,
    Header,
    Message,
    Receive,
    Scope,
    Send,
    content_length,
    lines_of,
)

USER: Final = "edgemed.user"
"""Key of the scope: name of the token that asks."""

HEADERS: Final[list[Header]] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # `no-referrer` would take the Origin from our own forms, too
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        b" font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
]
_OURS: Final = lines_of(HEADERS)

_MOST_BODY: Final = 1 << 20
"""Of requests that are neither inference nor images; those know their own limits."""

_STREAMS: Final = ("/page/", "/live/")
"""What goes on for as long as somebody looks: it takes no place from those who ask for answers."""


class Gate:
    """ASGI: lets through, or answers by itself."""

    def __init__(self, config: HttpSection, app: App, logins: Logins) -> None:
        self._app = app
        self._hosts = Hosts(config)
        self._logins = logins
        self._most = config.max_requests
        self._under_way = 0
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        out = _Out(send, scope[ANSWER])
        try:
            counted = self._enter(scope)
            try:
                await self._app(scope, receive, out)
            finally:
                self._under_way -= counted
        except Disconnected:
            return
        except HttpError as error:
            await out.fail(error)
        except EdgemedError as error:
            await out.fail(of_error(error))
        except Exception as error:
            log_bug(error)
            await out.fail(HttpError(500, "The server failed. Its log says where."))

    def _enter(self, scope: Scope) -> int:
        """Check a request; how many places it takes."""
        host = origin = site = authorization = None
        for name, value in scope["headers"]:
            if name == b"host":
                if host is not None:
                    raise HttpError(400, "The request names two hosts. Send one Host header.")
                host = value
            elif name == b"authorization":
                authorization = value
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        method, path = scope["method"], scope["path"]
        self._hosts.check(host)
        check_origin(method, host or b"", origin, site)
        role = role_of(method, path)
        address = scope["client"][0] if scope.get("client") else ""
        scope[USER] = self._logins.check(role, address, authorization).name
        if role is None or path.startswith(_STREAMS):
            return 0
        if self.draining:
            raise busy("The server is ending. Try again later.")
        if self._under_way >= self._most:
            raise busy(f"{self._most} requests are under way. Try again in a moment.")
        self._under_way += 1
        return 1


class _Out:
    """Sends, with the headers that every answer carries where it has none of its own."""

    def __init__(self, send: Send, answer: Answer) -> None:
        self._send = send
        self._answer = answer
        self.started = False
        self.complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == RESPONSE:
            self.started = self.complete = True
            await self._answer(message["status"], _lines(message["headers"]), message["parts"])
            return
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = _with_ours(list(message.get("headers", ())))
        elif not message.get("more_body", False):
            self.complete = True
        await self._send(message)

    async def fail(self, error: HttpError) -> None:
        if self.complete:
            return
        if self.started:  # half an answer: the connection ends, which the client sees
            raise ConnectionAbortedError from None
        await send_json(self, error.status, {"error": error.text}, error.headers)


def _with_ours(own: list[Header]) -> list[Header]:
    names = {name.lower() for name, _ in own}
    return own + [pair for pair in HEADERS if pair[0] not in names]


def _lines(own: list[Header]) -> bytes:
    """Of an answer of our own, which names none of `HEADERS` itself."""
    return lines_of(own) + _OURS


def limited(app: App) -> App:
    """The same, refusing bodies that no other request of ours needs."""

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        if (content_length(scope) or 0) > _MOST_BODY:
            raise _too_long()
        taken = 0

        async def some() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > _MOST_BODY:
                raise _too_long()
            return message

        await app(scope, some, send)

    return bounded


def _too_long() -> HttpError:
    return HttpError(413, f"The body has more than {_MOST_BODY} bytes. Send less.")
