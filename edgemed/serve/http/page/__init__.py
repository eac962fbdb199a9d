"""The page that the daemon serves."""

from __future__ import annotations

from fastapi import FastAPI

from edgemed.serve.services import Services


def include_page(app: FastAPI, services: Services) -> None:
    """Add the page's paths. It is mounted behind the gate: tokens, hosts and headers are dealt with there."""
