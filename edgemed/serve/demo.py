"""`edgemed serve --demo BUNDLE`: one bundle on loopback, with results in a folder."""

from __future__ import annotations

from pathlib import Path

from edgemed.serve.config import Config

HTTP_PORT = 8000
DICOM_PORT = 11112


def demo_config(bundle: Path, state: Path) -> Config:
    """A configuration for trying it out.

    Args:
        bundle: to serve; it need not be signed.
        state: where everything goes.
    """
    results = state / "results"
    results.mkdir()
    loopback = ("127.0.0.0/8", "::1/128")
    return Config.model_validate(
        {
            "daemon": {"name": "demo", "state": state / "state"},
            "dicom": {
                "host": "127.0.0.1",
                "port": DICOM_PORT,
                "peers": [{"ae_title": name, "addresses": loopback} for name in ("STORESCU", "ECHOSCU", "DEMO")],
            },
            "http": {"host": "127.0.0.1", "port": HTTP_PORT, "grpc_port": HTTP_PORT + 1},
            "models": [
                {"name": "demo", "bundle": bundle.absolute(), "results": ["sr", "sc", "json"], "send_to": ["folder"]}
            ],
            "destinations": [{"name": "folder", "kind": "folder", "path": results}],
            "spool": {"reserve": "64MiB", "warn": "256MiB"},
            "trust": {"allow_unsigned": True},
            "log": {"format": "text"},
        }
    )
