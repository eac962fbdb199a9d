"""What each object is for, and when a series is complete."""

from __future__ import annotations

from edgemed.serve.services import Services


class Router:
    """What each object is for, and when a series is complete."""

    name = "router"

    def __init__(self, services: Services) -> None:
        self._services = services

    def start(self) -> None:
        """Begin."""

    def drain(self) -> None:
        """Take nothing new."""

    def stop(self) -> None:
        """End."""
