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
from pathlib import Path
from typing import Final

from edgemed.base.errors import InputError, IntegrityError, ResourceError, from_os_error
from edgemed.base.store import write_atomic
from edgemed.serve.audit.chain import TRAIL
from edgemed.serve.audit.entry import digest_of

_SENT: Final = "sent.json"
_PRIORITY: Final = 85  # facility 10 (security), severity 5 (notice): PS3.15 A.6
_TIMEOUT_S: Final = 10.0
_MOST: Final = 200  # lines between two marks of how far it got
_LONGEST: Final = 4 << 20


class Forwarder:
    """Sends entries that were not sent yet.

    Args:
        folder: of the trail.
        address: `host:port`.
        ca: who signs the repository's certificate; `None`: the system's own.
        station: name of this daemon.
    """

    def __init__(self, folder: Path, address: str, ca: Path | None, station: str) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise InputError(f"audit.syslog: '{address}' is no address.", "Write host:port.")
        self._address = (host.strip("[]"), int(port))
        self._folder, self._station = folder, station
        try:
            self._context = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"audit.syslog_ca: {ca} holds no certificates.", "Give a PEM file.") from error
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._offset, self._first = self._kept()

    def send(self, beat: Callable[[], None] = lambda: None) -> int:
        """Send what waits; returns how many entries.

        Args:
            beat: called after each entry.

        Raises:
            IntegrityError: the trail holds what is no entry.
            ResourceError: the repository cannot be reached, or broke off.
        """
        path = self._folder / TRAIL
        self._begin(path)
        if not path.exists() or path.stat().st_size <= self._offset:
            return 0
        count = 0
        try:
            with (
                path.open("rb") as trail,
                socket.create_connection(self._address, timeout=_TIMEOUT_S) as plain,
                self._context.wrap_socket(plain, server_hostname=self._address[0]) as connection,
            ):
                trail.seek(self._offset)
                while (line := trail.readline(_LONGEST)).endswith(b"\n"):
                    connection.sendall(self._frame(line))
                    count += 1
                    beat()
                    if count % _MOST == 0:
                        self._mark(trail.tell())
                self._end(connection)
                self._mark(trail.tell() - len(line))
        except (OSError, ssl.SSLError) as error:
            raise ResourceError(
                f"The audit repository at {self._address[0]}:{self._address[1]} takes nothing: {error}.",
                "Entries stay here and are sent when it does.",
            ) from error
        return count

    def _begin(self, path: Path) -> None:
        """A trail that was moved away has another one in its place, which is sent from its first entry on."""
        try:
            with path.open("rb") as trail:
                line = trail.readline(_LONGEST)
        except FileNotFoundError:
            return
        except OSError as error:
            raise from_os_error(error, path) from error
        first = digest_of(line) if line.endswith(b"\n") else ""
        if first != self._first:
            self._offset, self._first = 0, first

    def _frame(self, line: bytes) -> bytes:
        try:
            entry = json.loads(line)
            at, message = str(entry["at"]), str(entry["message"])
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                "The audit trail holds what is no entry: nothing behind it is sent.", "Run edgemed audit verify."
            ) from error
        head = f"<{_PRIORITY}>1 {at} {self._station} edgemed {os.getpid()} IHE+RFC-3881 - "
        text: bytes = head.encode() + b"\xef\xbb\xbf" + message.encode()
        return str(len(text)).encode() + b" " + text

    @staticmethod
    def _end(connection: ssl.SSLSocket) -> None:
        """Close in order: a reset that is on its way shows here."""
        connection.settimeout(_TIMEOUT_S)
        connection.unwrap()

    def _kept(self) -> tuple[int, str]:
        """How far it got, in the trail that begins with which entry (its digest)."""
        path = self._folder / _SENT
        if not path.exists():
            return 0, ""
        try:
            kept = json.loads(path.read_bytes())
            return int(kept["offset"]), str(kept.get("first", ""))
        except OSError as error:
            raise from_os_error(error, path) from error
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{path} is damaged.", "Remove it: all entries are sent again.") from error

    def _mark(self, offset: int) -> None:
        write_atomic(self._folder / _SENT, json.dumps({"offset": offset, "first": self._first}).encode())
        self._offset = offset
