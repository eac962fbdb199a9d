"""Watched folders: files become objects of the journal, then leave the folder."""

from __future__ import annotations

from edgemed.serve.services import Services


class FolderInlets:
    """Watched folders: files become objects of the journal, then leave the folder."""

    name = "folders"

    def __init__(self, services: Services) -> None:
        self._services = services

    def start(self) -> None:
        """Begin."""

    def drain(self) -> None:
        """Take nothing new."""

    def stop(self) -> None:
        """End."""
