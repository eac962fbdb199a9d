"""How a peer or a server is named, reached and trusted."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from edgemed.serve.config.section import Section


def _network(text: str) -> str:
    ip_network(text, strict=False)
    return text


def is_loopback(host: str) -> bool:
    """Whether a host that is listened on, or called, is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


AeTitle = Annotated[str, Field(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]
Network = Annotated[str, Field(max_length=64), AfterValidator(_network)]
Port = Annotated[int, Field(ge=0, le=65535)]
Url = Annotated[str, Field(max_length=2048, pattern=r"^https?://[^\s]+$")]


class Tls(Section):
    """Mutual TLS by BCP 195: 1.2 and 1.3, forward secrecy only."""

    certificate: Path
    key: Path
    ca: Path | None = Field(None, description="who signs the peers' certificates; None: peers show none")
    verify_host: bool = Field(True, description="a server's certificate must name it; false: any that `ca` has signed")

    @model_validator(mode="after")
    def _somebody_is_asked(self) -> Tls:
        if not self.verify_host and self.ca is None:
            raise ValueError("verify_host = false would trust every certificate of the world: give a ca of the site")
        return self
