"""Brings results to their destinations, until they have them."""

from __future__ import annotations

from edgemed.serve.services import Services


class Outlets:
    """Brings results to their destinations, until they have them."""

    name = "outlets"

    def __init__(self, services: Services) -> None:
        self._services = services

    def start(self) -> None:
        """Begin."""

    def drain(self) -> None:
        """Take nothing new."""

    def stop(self) -> None:
        """End."""
