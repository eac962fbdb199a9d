"""Takes tasks that are queued, and answers them."""

from __future__ import annotations

from edgemed.serve.services import Services


class Analyst:
    """Takes tasks that are queued, and answers them."""

    name = "analyst"

    def __init__(self, services: Services) -> None:
        self._services = services

    def start(self) -> None:
        """Begin."""

    def drain(self) -> None:
        """Take nothing new."""

    def stop(self) -> None:
        """End."""
