"""Keeps the disk from filling up: watermarks, and what may be deleted."""

from __future__ import annotations

from edgemed.serve.services import Services


class Housekeeping:
    """Keeps the disk from filling up: watermarks, and what may be deleted."""

    name = "housekeeping"

    def __init__(self, services: Services) -> None:
        self._services = services

    def start(self) -> None:
        """Begin."""

    def drain(self) -> None:
        """Take nothing new."""

    def stop(self) -> None:
        """End."""
