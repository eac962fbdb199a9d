"""The trail to an audit repository: syslog (RFC 5424) over TLS (RFC 5425), from where it was left.

TLS tells when a connection breaks, and not whether the last lines arrived: after a break the last lines are sent again.
A repository knows an entry by its text; what was sent twice is the same twice.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from edgemed.base.errors import EdgemedError, InputError, IntegrityError, ResourceError, from_os_error
from edgemed.base.store import write_atomic
from edgemed.serve.audit.entry import digest_of, is_seal
from edgemed.serve.audit.segments import LONGEST_LINE, opened, segments
from edgemed.serve.config.network import Tls
from edgemed.serve.tls import outgoing_context

_SENT: Final = "sent.json"
PRIORITY: Final = 85  # facility 10 (security), severity 5 (notice): PS3.15 A.6
_TIMEOUT_S: Final = 10.0
_MOST: Final = 200  # lines between two marks of how far it got


class Forwarder:
    """Sends entries that were not sent yet.

    Args:
        folder: of the trail.
        address: `host:port`.
        ca: who signs the repository's certificate; `None`: the system's own.
        station: name of this daemon.
        tls: what the repository is shown, and its `ca`; `None`: nothing.

    Raises:
        InputError: the address, or a file, is none.
        ResourceError: a file cannot be read.
    """

    def __init__(self, folder: Path, address: str, ca: Path | None, station: str, tls: Tls | None = None) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise InputError(f"audit.syslog: '{address}' is no address.", "Write host:port.")
        self._address = (host.strip("[]"), int(port))
        self._folder, self._station = folder, station
        self._tls, self._ca = tls, ca
        outgoing_context(tls, ca)  # what is wrong with its files is told at the start
        self._begin, self._offset, self._first = self._kept()

    def send(self, beat: Callable[[], None] = lambda: None) -> int:
        """Send what waits; returns how many entries.

        Args:
            beat: called after each entry.

        Raises:
            IntegrityError: the trail holds what is no entry.
            ResourceError: the repository cannot be reached, or broke off; a file that was changed cannot be used.
        """
        count = 0
        try:
            while (file := self._segment()) is not None:
                with file:
                    file.seek(self._offset)
                    count += self._send(file, beat)
                    if not self._goes_on(file):
                        break
        except (OSError, ssl.SSLError) as error:
            raise ResourceError(
                f"The audit repository at {self._address[0]}:{self._address[1]} takes nothing: {error}.",
                "Entries stay here and are sent when it does.",
            ) from error
        return count

    def _send(self, segment: BinaryIO, beat: Callable[[], None]) -> int:
        """What waits in one segment."""
        count, line = 0, _entry(segment)
        if not line:
            return 0
        context = self._context()
        with (
            socket.create_connection(self._address, timeout=_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=self._address[0]) as connection,
        ):
            while line:
                connection.sendall(self._frame(line))
                count += 1
                beat()
                if count % _MOST == 0:
                    self._mark(segment.tell())
                line = _entry(segment)
            self._end(connection)
            self._mark(segment.tell())
        return count

    def _context(self) -> ssl.SSLContext:
        """Of each connection anew: files may have changed."""
        try:
            return outgoing_context(self._tls, self._ca)
        except EdgemedError as error:
            raise ResourceError(error.what, error.hint) from error

    def _segment(self) -> BinaryIO | None:
        """That in which entries wait; `None` where there is none yet."""
        file = opened(self._folder, self._begin)
        if file is not None and self._first in ("", _first_digest(file)):
            self._first = _first_digest(file)
            return file
        if file is not None:
            file.close()
        # it was archived, and what follows is there; or the whole trail was moved away, and another one begun
        there = segments(self._folder)
        self._begin = min((first for first in there if first > self._begin), default=min(there, default=1))
        self._offset, self._first = 0, ""
        file = opened(self._folder, self._begin)
        self._first = _first_digest(file) if file is not None else ""
        return file

    def _goes_on(self, segment: BinaryIO) -> bool:
        """Whether a segment was closed, and all of it sent; then the next one is begun with."""
        line = segment.readline(LONGEST_LINE)
        if not (line.endswith(b"\n") and is_seal(line)):
            return False
        following = _after(line)
        file = opened(self._folder, following)
        if file is None:  # it was archived before its time, or is about to be there
            later = [first for first in segments(self._folder) if first > self._begin]
            if not later:
                return False
            following = min(later)
        else:
            file.close()
        self._begin, self._first = following, ""
        self._mark(0)
        return True

    def _frame(self, line: bytes) -> bytes:
        try:
            entry = json.loads(line)
            at, message = str(entry["at"]), str(entry["message"])
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                "The audit trail holds what is no entry: nothing behind it is sent.", "Run edgemed audit verify."
            ) from error
        head = f"<{PRIORITY}>1 {at} {self._station} edgemed {os.getpid()} IHE+RFC-3881 - "
        text: bytes = head.encode() + b"\xef\xbb\xbf" + message.encode()
        return str(len(text)).encode() + b" " + text

    @staticmethod
    def _end(connection: ssl.SSLSocket) -> None:
        """Close in order: a reset that is on its way shows here, and that our certificate is not taken.

        By TLS 1.3 a server says so after the client's handshake has ended, and OpenSSL does not always tell of it.
        """
        connection.settimeout(_TIMEOUT_S)
        plain = connection.unwrap()
        with suppress(TimeoutError):  # it has closed in order, and lets the connection be
            if plain.recv(1):
                raise ssl.SSLError("it did not close in order")

    def _kept(self) -> tuple[int, int, str]:
        """How far it got: the segment, by its first entry's number; the place in it; and that entry's digest."""
        path = self._folder / _SENT
        if not path.exists():
            return 1, 0, ""
        try:
            kept = json.loads(path.read_bytes())
            return int(kept["begin"]), int(kept["offset"]), str(kept["first"])
        except OSError as error:
            raise from_os_error(error, path) from error
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{path} is damaged.", "Remove it: all entries are sent again.") from error

    def _mark(self, offset: int) -> None:
        self._offset = offset
        kept = {"begin": self._begin, "offset": offset, "first": self._first}
        write_atomic(self._folder / _SENT, json.dumps(kept).encode())


def _entry(segment: BinaryIO) -> bytes:
    """The next whole line; before a seal, and where there is none, nothing is taken."""
    place = segment.tell()
    line = segment.readline(LONGEST_LINE)
    if line.endswith(b"\n") and not is_seal(line):
        return line
    segment.seek(place)
    return b""


def _after(seal: bytes) -> int:
    """Number of the first entry after a closed segment."""
    try:
        return int(json.loads(seal)["last"]) + 1
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            "A segment of the audit trail has no seal: nothing behind it is sent.", "Run edgemed audit verify."
        ) from error


def _first_digest(segment: BinaryIO) -> str:
    segment.seek(0)
    return digest_of(segment.readline(LONGEST_LINE)[:-1])
