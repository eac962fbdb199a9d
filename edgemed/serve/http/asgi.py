"""The words of ASGI, and reading a body of bounded size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


class Disconnected(Exception):
    """The client went away: nobody is there to be answered."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """Value of the first header of that name, in small letters."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


async def read_body(scope: Scope, receive: Receive, most: int) -> bytearray | None:
    """The whole body, in memory that is its size; `None` where it is longer than `most` bytes.

    Raises:
        Disconnected: the client went away.
    """
    text = header(scope, b"content-length")
    length = int(text) if text is not None and text.isdigit() else None
    if length is not None and length > most:
        return None
    body, at = bytearray(length or 0), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        if at + len(chunk) > most:
            return None
        body[at : at + len(chunk)] = chunk
        at += len(chunk)
        if not message.get("more_body", False):
            del body[at:]
            return body
