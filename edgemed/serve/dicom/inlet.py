"""C-ECHO, C-STORE and storage commitment for the peers that are named."""

from __future__ import annotations

from edgemed.serve.services import Services


class DicomInlet:
    """C-ECHO, C-STORE and storage commitment for the peers that are named."""

    name = "dicom"

    def __init__(self, services: Services) -> None:
        self._services = services

    def start(self) -> None:
        """Begin."""

    def drain(self) -> None:
        """Take nothing new."""

    def stop(self) -> None:
        """End."""
