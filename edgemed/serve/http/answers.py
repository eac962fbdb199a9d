"""What goes back when something is not as it should be: a status of HTTP, and `{"error": sentence}` as OIP has it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from typing import Any, Final

from edgemed.base.errors import DeviceStateError, EdgemedError, InputError, IntegrityError, ResourceError
from edgemed.serve.http.asgi import RESPONSE, Header, Send
from edgemed.serve.logs import places_of

log = logging.getLogger(__name__)

RETRY_S: Final = 1
"""What a client is told to wait where something will be over soon."""


class HttpError(Exception):
    """A request that is answered by a status and a sentence."""

    def __init__(self, status: int, text: str, headers: Iterable[Header] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = list(headers)


def busy(text: str) -> HttpError:
    """503, to be tried again."""
    return HttpError(503, text, [(b"retry-after", str(RETRY_S).encode())])


def late() -> HttpError:
    """504: the deadline passed."""
    return HttpError(504, "The deadline passed before there was an answer. Allow it more time.")


def of_error(error: EdgemedError, deadline_ns: int | None = None) -> HttpError:
    """An error of ours as an answer.

    Args:
        error: why there is no answer.
        deadline_ns: of the request; what fails after it is answered by 504.
    """
    if isinstance(error, InputError):
        return HttpError(400, str(error))
    if deadline_ns is not None and time.monotonic_ns() >= deadline_ns:
        return late()
    if isinstance(error, (DeviceStateError, ResourceError, IntegrityError)):
        return busy(str(error))
    return HttpError(500, str(error))


def as_json(value: Any) -> bytes:
    """JSON without spaces; NaN has no place in it.

    Raises:
        ValueError: there is one.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


async def send_json(send: Send, status: int, value: Any, headers: Iterable[Header] = ()) -> None:
    """One whole response."""
    await send_bytes(send, status, as_json(value), b"application/json", headers)


async def send_bytes(send: Send, status: int, body: bytes, content_type: bytes, headers: Iterable[Header] = ()) -> None:
    """One whole response."""
    await send_parts(send, status, [body], content_type, headers)


async def send_parts(
    send: Send, status: int, parts: list[bytes], content_type: bytes, headers: Iterable[Header] = ()
) -> None:
    """One whole response, of several parts behind one another."""
    size = str(sum(map(len, parts))).encode()
    head = [(b"content-type", content_type), (b"content-length", size), *headers]
    await send({"type": RESPONSE, "status": status, "headers": head, "parts": parts})


def log_bug(error: BaseException) -> None:
    """Log a bug of ours: where it is, without its text, which may hold what identifies a patient."""
    log.error("a request failed by %s at %s", type(error).__name__, places_of(error))
