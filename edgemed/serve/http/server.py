"""The HTTP and gRPC servers, each in a thread of its own."""

from __future__ import annotations

from edgemed.serve.services import Services


class HttpServer:
    """The HTTP and gRPC servers, each in a thread of its own."""

    name = "http"

    def __init__(self, services: Services) -> None:
        self._services = services

    def start(self) -> None:
        """Begin."""

    def drain(self) -> None:
        """Take nothing new."""

    def stop(self) -> None:
        """End."""
