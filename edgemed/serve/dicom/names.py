"""Addresses of hosts. Name servers are asked in the background: nobody who comes waits for one that is dead."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

from edgemed.base.quantity import SECOND

_BELIEVED_NS: Final = 60 * SECOND


class Names:
    """What is known of some hosts; what was known stays so until a name server tells otherwise.

    Args:
        hosts: names or addresses. Names are asked for at once.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, frozenset[str]] = {}
        self._until_ns: dict[str, int | None] = {}
        for host in set(hosts):
            self.addresses(host)

    def addresses(self, host: str) -> frozenset[str]:
        """As far as they are known now; empty before the first answer."""
        with suppress(ValueError):
            return frozenset({str(ip_address(host))})
        with self._lock:
            until_ns = self._until_ns.get(host, 0)
            if until_ns is not None and time.monotonic_ns() >= until_ns:
                thread = threading.Thread(target=self._ask, args=(host,), name="names", daemon=True)
                with suppress(RuntimeError):  # there can be no more threads: the next who comes tries again
                    thread.start()  # it waits for the lock to tell
                    self._until_ns[host] = None  # it is being asked for
            return self._found.get(host, frozenset())

    def _ask(self, host: str) -> None:
        found = None
        try:
            with suppress(OSError, UnicodeError):  # the latter: a label without letters, or too long
                found = frozenset(str(entry[4][0]) for entry in socket.getaddrinfo(host, None))
        finally:
            with self._lock:
                if found is not None:
                    self._found[host] = found
                self._until_ns[host] = time.monotonic_ns() + _BELIEVED_NS
