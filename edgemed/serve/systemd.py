"""What systemd is told (sd_notify(3)): that we are ready, that we live, that we stop. Nothing where nobody asked."""

from __future__ import annotations

import os
import socket
import time
from typing import Final

_ASK_EVERY_NS: Final = 5_000_000_000
_MORE_US: Final = 120_000_000  # the longest step of a start that shows no progress: a large bundle is copied and hashed


class Notifier:
    """Speaks to the socket that systemd names in the environment.

    Args:
        environment: of the process.
    """

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        given = dict(os.environ) if environment is None else environment
        path = given.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        for_us = given.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = given.get("WATCHDOG_USEC", "") if for_us else ""
        self.watchdog_ns = int(usec) * 1000 if usec.isdigit() else None
        """Silence after which systemd kills us; `None`: it does not watch."""

    def tell(self, *lines: str) -> bool:
        """Send assignments such as `READY=1`; returns whether anybody was told."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
                one.settimeout(1)
                one.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True


class Patience:
    """Called at each step of a long start (a full spool, large bundles): systemd waits while there is progress.

    Args:
        notifier: speaks to systemd.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._asked_ns: int | None = None

    def __call__(self) -> None:
        """A step is done; systemd hears of it each few seconds at most."""
        now_ns = time.monotonic_ns()
        if self._asked_ns is None or now_ns - self._asked_ns > _ASK_EVERY_NS:
            self._asked_ns = now_ns
            self._notifier.tell(f"EXTEND_TIMEOUT_USEC={_MORE_US}", "STATUS=starting")
