"""Where images come in: DICOM, HTTP, watched folders, live sources."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgemed.base.quantity import SECOND
from edgemed.serve.config.network import AeTitle, Network, Port, Tls, is_loopback
from edgemed.serve.config.section import Bytes, Name, Nanoseconds, Section, Text


class Peer(Section):
    """One application entity that may talk to us. What is not named is denied."""

    ae_title: AeTitle
    addresses: Annotated[tuple[Network, ...], Field(min_length=1)]
    may: tuple[Literal["echo", "store", "commit", "mpps"], ...] = Field(
        ("echo", "store"),
        description="commit: what it asks for is kept until a destination has it; mpps: it tells which images it makes",
    )
    sop_classes: tuple[Text, ...] = Field((), description="UIDs or keywords; empty: every image storage class we know")
    associations: Annotated[int, Field(ge=1, le=1000)] = 10
    per_minute: Annotated[int, Field(ge=1)] | None = Field(None, description="objects; more are refused as busy")
    port: Port | None = Field(None, description="where storage commitment is reported to; None: the same association")

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(text, strict=False) for text in self.addresses)


class DicomSection(Section):
    """The DICOM inlet: C-ECHO, C-STORE, storage commitment, procedure steps."""

    ae_title: AeTitle = Field("EDGEMED", description="ours")
    # a modality sends from elsewhere; peers are denied by default
    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104
    port: Port = 11112
    tls: Tls | None = Field(None, description="None: in clear")
    associations: Annotated[int, Field(ge=1, le=1000)] = Field(25, description="at a time, of all peers")
    association_ns: Nanoseconds = Field(30 * SECOND, description="for a peer to ask for its association")
    idle_ns: Nanoseconds = Field(60 * SECOND, description="without a byte; then the association is aborted")
    max_pdu_bytes: Annotated[Bytes, Field(ge=4096, le=1 << 20)] = Field(
        131072, description="that we receive: Maximum Length"
    )
    max_object_bytes: Bytes = Field(2 << 30, description="of a data set; larger ones are refused")
    peers: tuple[Peer, ...] = ()


class HttpSection(Section):
    """Open Inference Protocol, STOW-RS, metrics and the page."""

    host: str = "127.0.0.1"
    port: Port = 8000
    grpc_port: Port | None = Field(None, description="None: no gRPC")
    names: tuple[Text, ...] = Field((), description="host names that clients use, besides the machine's own")
    tls: Tls | None = None
    tokens: Path | None = Field(None, description="file of `name role sha256-of-token` lines; None: loopback only")
    max_body_bytes: Bytes = 256 << 20
    max_requests: Annotated[int, Field(ge=1, le=10_000)] = 64
    sop_classes: tuple[Text, ...] = Field(
        (), description="that STOW-RS takes: UIDs or keywords; empty: every image storage class we know"
    )
    per_minute: Annotated[int, Field(ge=1)] | None = Field(
        None, description="objects by STOW-RS, of each token; more are refused as busy"
    )
    request_ns: Nanoseconds = Field(30 * SECOND, description="for a client to send a request, and for us to answer")

    @model_validator(mode="after")
    def _closed(self) -> HttpSection:
        if self.tokens is None and not is_loopback(self.host):
            raise ValueError(f"without tokens, {self.host} would be open to the network: give tokens, or 127.0.0.1")
        return self


class FolderSection(Section):
    """A watched folder: a file is taken when it has not changed for a while, and removed when it is in the journal."""

    name: Name
    path: Path
    settle_ns: Nanoseconds = 2 * SECOND
    max_file_bytes: Bytes = 2 << 30


class LiveSection(Section):
    """A camera or stream, analysed as it comes: its frames are counted, not kept."""

    name: Name
    source: Text = Field(description="/dev/video0, rtsp://…, gst:PIPELINE, or a file")
    model: Name
    policy: Text = "latest"
    stale_ns: Nanoseconds = Field(500_000_000, description="a result older than this is shown as stale, then removed")
    loop: bool = Field(False, description="play a file over and over, in its own time: for demonstrations")
