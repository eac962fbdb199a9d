"""Runs live sources through their models, and puts what is newest on the board."""

from __future__ import annotations

from edgemed.serve.services import Services


class LiveSources:
    """Runs live sources through their models, and puts what is newest on the board."""

    name = "live"

    def __init__(self, services: Services) -> None:
        self._services = services

    def start(self) -> None:
        """Begin."""

    def drain(self) -> None:
        """Take nothing new."""

    def stop(self) -> None:
        """End."""
