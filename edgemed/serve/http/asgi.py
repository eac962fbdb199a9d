"""The words of ASGI, and reading a body of bounded size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, Protocol

import numpy as np

from edgemed.runtime.contained.berths import Berth

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


class Disconnected(Exception):
    """The client went away: nobody is there to be answered."""


def lines_of(headers: Iterable[Header]) -> bytes:
    """Headers as they are written."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def header(scope: Scope, name: bytes) -> bytes | None:
    """Value of the first header of that name, in small letters."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


WHOLE: Final = "edgemed.whole"
"""Key of the scope: where the connection gathers the body by itself."""


GONE: Final = "edgemed.gone"
"""Key of the scope: a list of what is called when the client goes away; on it for as long as somebody wants it."""


ANSWER: Final = "edgemed.answer"
"""Key of the scope: an `Answer`."""

RESPONSE: Final = "edgemed.response"
"""Type of a message that is a whole response: `status`, `headers`, and `parts` of its body, behind one another."""


class Answer(Protocol):
    """Writes a whole response at once; the two messages of ASGI are two segments, and wake the client for each."""

    async def __call__(self, status: int, lines: bytes, parts: list[bytes]) -> None:
        """Of `status`; `lines` of its headers, and the `parts` of its body, behind one another."""
        ...


class Whole:
    """A body of known length that is gathered at its place, without a message for each piece.

    Its memory is the system's until it is written: who only says that much will come takes none.

    Args:
        length: of all of it.
        head_length: of its first part; the rest is raw tensors.
        berth: memory of a model for the one tensor that has the size of the rest.

    Attributes:
        head: the first part.
        raw: the rest.
        room: where the next bytes go.
        left: how many are to come.
    """

    def __init__(self, length: int, head_length: int, berth: Berth | None = None) -> None:
        self.head = np.empty(head_length, np.uint8).data
        self.berth = berth
        if berth is None:
            self.raw = np.empty(length - head_length, np.uint8).data
        else:
            (tensor,) = berth.values()
            self.raw = tensor.data.cast("B")
        self.room = self.head or self.raw
        self.left = length

    def add(self, piece: bytes) -> None:
        """The next bytes; HTTP's parser holds them to the length."""
        while piece:
            part = piece[: len(self.room)]
            self.room[: len(part)] = part
            self.written(len(part))
            piece = piece[len(part) :]

    def written(self, size: int) -> None:
        """So many bytes were put at the beginning of `room`."""
        self.left -= size
        self.room = self.room[size:]
        if not self.room and self.left:
            self.room = self.raw


def content_length(scope: Scope) -> int | None:
    """As the client says; HTTP's parser has checked it."""
    text = header(scope, b"content-length")
    return int(text) if text is not None and text.isdigit() else None


async def read_body(scope: Scope, receive: Receive, most: int) -> Whole | bytearray | None:
    """The whole body; `None` where it is longer than `most` bytes.

    Raises:
        Disconnected: the client went away.
    """
    length = content_length(scope)
    if length is not None and length > most:
        return None
    whole: Whole | None = scope.pop(WHOLE, None)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body", False):
            return body if whole is None else whole
