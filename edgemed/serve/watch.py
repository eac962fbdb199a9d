"""Watches the daemon itself: loops, worker, clock, certificates, heat; tells systemd."""

from __future__ import annotations

from edgemed.serve.services import Services


class Watch:
    """Watches the daemon itself: loops, worker, clock, certificates, heat; tells systemd."""

    name = "watch"

    def __init__(self, services: Services) -> None:
        self._services = services

    def start(self) -> None:
        """Begin."""

    def drain(self) -> None:
        """Take nothing new."""

    def stop(self) -> None:
        """End."""
