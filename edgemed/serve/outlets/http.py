"""What HTTP destinations share: a client that trusts nothing it was not told to, and what status codes mean."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import httpx

from edgemed.base.errors import EdgemedError, InputError
from edgemed.base.quantity import SECOND
from edgemed.serve.clock import utc
from edgemed.serve.config.destinations import DicomWebDestination, WebhookDestination
from edgemed.serve.outlets.courier import Outcome, Parcel, Unavailable
from edgemed.serve.renewal import states_of
from edgemed.serve.tls import files_of, outgoing_context

_MOST_BYTES: Final = 4 << 20  # of an answer; real ones have some kilobytes
# the request may be right and the moment wrong: an operator mends an address or a token, a server its load
_PASSING: Final = frozenset({401, 403, 404, 405, 407, 408, 421, 425, 429})


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    content_type: str
    body: bytes
    retry_after_ns: int | None


class HttpClient:
    """One server. Connections are kept; redirects are not followed, and no proxy of the environment is used.

    Args:
        place: its URL; the time for each step, and for the whole of an answer; whom it must be signed by, and what it
            is shown. Files that have changed are taken up by the next request.
    """

    def __init__(self, place: DicomWebDestination | WebhookDestination) -> None:
        self.address = httpx.URL(place.url).netloc.decode("ascii", "replace")
        self._url = place.url
        self._timeout_ns = place.retry.timeout_ns
        self._tls, self._ca = place.tls, place.ca
        self._seen = states_of(files_of(self._tls, self._ca))
        self._client: httpx.Client | None = None
        self._watch = _Watch(self._timeout_ns)

    def post(self, path: str, body: Iterable[bytes] | bytes, headers: Mapping[str, str], parcel: Parcel) -> Answer:
        """Send a request for a parcel.

        Args:
            path: appended to the URL.
            body: as a whole, or in pieces; then `headers` say how long it is.
            headers: of the request.
            parcel: that it is for.

        Raises:
            Unavailable: no connection, no answer in time, none that is HTTP, or one that another moment may change.
        """
        return self._ask("POST", path, body, headers, parcel)

    def get(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Ask for something.

        Raises:
            Unavailable: see `post`.
        """
        return self._ask("GET", path, None, headers, None)

    def _ask(
        self,
        method: str,
        path: str,
        body: Iterable[bytes] | bytes | None,
        headers: Mapping[str, str],
        parcel: Parcel | None,
    ) -> Answer:
        end_ns = 0
        seen = states_of(files_of(self._tls, self._ca))
        if seen != self._seen:
            self.close()
            self._seen = seen
        try:
            if self._client is None:
                self._client = self._open()
            url = self._url.rstrip("/") + path if path else self._url
            watch = {"trace": self._watch.trace}
            with self._client.stream(method, url, content=body, headers=dict(headers), extensions=watch) as response:
                end_ns = time.monotonic_ns() + self._timeout_ns
                data = bytearray()
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > _MOST_BYTES or time.monotonic_ns() > end_ns:
                        raise Unavailable("Its answer does not end.", parcel)
                answer = Answer(
                    response.status_code,
                    response.headers.get("content-type", ""),
                    bytes(data),
                    _retry_after(response.headers.get("retry-after")),
                )
        except httpx.ConnectError as error:
            raise Unavailable(_no_connection(error)) from error
        except httpx.ConnectTimeout as error:
            raise Unavailable("It takes no connection.") from error
        except httpx.TimeoutException as error:
            raise Unavailable("It does not answer in time.", parcel) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            self.close()
            what = "It does not answer in time." if self._watch.cut else "The connection was lost."
            raise Unavailable(what, parcel) from error
        finally:
            self._watch.end()
        if passing(answer.status):
            raise Unavailable(f"It answers HTTP {answer.status}.", parcel, answer.retry_after_ns)
        return answer

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _open(self) -> httpx.Client:
        try:
            context = outgoing_context(self._tls, self._ca)
        except EdgemedError as error:  # a file that was changed, and is none
            raise Unavailable(error.what) from error
        return httpx.Client(
            verify=context,
            timeout=self._timeout_ns / SECOND,
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": "edgemed", "Accept-Encoding": "identity"},
        )


class _Watch:
    """Cuts a connection whose answer does not begin in time: a server that sends a byte now and then is not waited for.

    httpx' own time-outs are for each read alone. It tells of its steps; the socket is cut from a timer's thread.
    """

    def __init__(self, timeout_ns: int) -> None:
        self._timeout_ns = timeout_ns
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None
        self.cut = False

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """A step of httpcore."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")
        elif event == "http11.send_request_headers.started":
            self.cut = False
        elif event == "http11.send_request_body.complete":
            self._timer = threading.Timer(self._timeout_ns / SECOND, self._cut)
            self._timer.daemon = True
            self._timer.start()
        elif event.startswith("http11.receive_response_headers.") and not event.endswith(".started"):
            self.end()

    def end(self) -> None:
        """The answer has begun, or never will."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut(self) -> None:
        self.cut = True
        if self._socket is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # not of TLS, which its own thread uses


def passing(status: int) -> bool:
    """Whether the same request may have another answer later."""
    return status in _PASSING or status >= 500 or status < 200 or 300 <= status < 400


def refusal(answer: Answer) -> Outcome | None:
    """An answer that the same request will always get; `None` where it is none."""
    return Outcome("refused", f"It answers HTTP {answer.status}.") if answer.status >= 400 else None


def read_secret(path: Path) -> str:
    """The one line of a file: a token, or a key. It is read each time, so that it can be changed.

    Raises:
        Unavailable: it cannot be read, or holds none.
    """
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable("The file of its token or secret cannot be read.") from error
    if not text or "\n" in text or not text.isprintable():
        raise Unavailable("The file of its token or secret holds none.")
    return text


def check_secret(path: Path | None, name: str) -> None:
    """Refuse at the start what could never work.

    Raises:
        InputError: the file cannot be read, or holds no token or secret.
    """
    if path is None:
        return
    try:
        read_secret(path)
    except Unavailable as error:
        raise InputError(f"Destination {name}: {error.reason}", f"Write it into {path}, as one line.") from error


def _no_connection(error: httpx.ConnectError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"Its certificate is not trusted: {cause.verify_message}."
        if isinstance(cause, ssl.SSLError):
            return "It does not speak TLS as it should."
        cause = cause.__cause__ or cause.__context__
    return "It takes no connection."


def _retry_after(text: str | None) -> int | None:
    """Seconds, or a date (RFC 9110 section 10.2.3)."""
    if text is None:
        return None
    if text.strip().isdigit():
        return min(int(text.strip()[:9]), 86400) * SECOND
    try:
        seconds = (parsedate_to_datetime(text) - utc()).total_seconds()
    except (TypeError, ValueError):
        return None
    return int(min(max(seconds, 0), 86400)) * SECOND
