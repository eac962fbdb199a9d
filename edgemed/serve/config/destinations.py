"""Where results go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgemed.base.quantity import SECOND
from edgemed.serve.config.network import AeTitle, Tls, Url
from edgemed.serve.config.section import HOUR, MINUTE, Name, Nanoseconds, Section, Text

ResultKind = Literal["sr", "seg", "sc", "gsps", "json"]


class Retry(Section):
    """Between tries to deliver: doubling with jitter, up to a cap; then it is given up, kept, and alarmed."""

    first_ns: Nanoseconds = 5 * SECOND
    cap_ns: Nanoseconds = 10 * MINUTE
    give_up_ns: Nanoseconds = 72 * HOUR
    timeout_ns: Nanoseconds = 30 * SECOND


class _Destination(Section):
    name: Name
    results: tuple[ResultKind, ...] | None = Field(None, description="None: all that the destination can carry")
    forward: bool = Field(False, description="the images themselves are sent on, too, byte for byte")
    retry: Retry = Retry()


class DicomDestination(_Destination):
    """A PACS or viewer that takes C-STORE."""

    kind: Literal["dicom"] = "dicom"
    ae_title: AeTitle
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    calling: AeTitle | None = None
    tls: Tls | None = None
    commitment: bool = Field(True, description="a result is delivered when the PACS has committed itself to keep it")
    commitment_within_ns: Nanoseconds = Field(10 * MINUTE, description="then it is sent again")


class _HttpDestination(_Destination):
    url: Url
    ca: Path | None = Field(None, description="who signs the server's certificate; None: whom the system trusts")
    tls: Tls | None = Field(None, description="a certificate of ours for the server, and its `ca`; None: none is shown")

    @model_validator(mode="after")
    def _by_tls(self) -> _HttpDestination:
        if self.tls is not None and self.ca is not None:
            raise ValueError("its ca stands in tls, where there is one")
        if self.tls is not None and not self.url.startswith("https:"):
            raise ValueError(f"tls is for https, and {self.url} is none")
        return self


class DicomWebDestination(_HttpDestination):
    """A STOW-RS service."""

    kind: Literal["dicomweb"] = "dicomweb"
    token: Path | None = None


class WebhookDestination(_HttpDestination):
    """Any HTTP service: the result as JSON, signed with HMAC-SHA-256 where there is a secret."""

    kind: Literal["webhook"] = "webhook"
    secret: Path | None = None


class Hl7Destination(_Destination):
    """ORU^R01 over MLLP."""

    kind: Literal["hl7"] = "hl7"
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    tls: Tls | None = Field(None, description="None: in clear, as most interface engines have it")
    application: Text = "EDGEMED"
    receiving: Text = ""


class FolderDestination(_Destination):
    """Files in a folder, each whole or not there."""

    kind: Literal["folder"] = "folder"
    path: Path


Destination = Annotated[
    DicomDestination | DicomWebDestination | WebhookDestination | Hl7Destination | FolderDestination,
    Field(discriminator="kind"),
]
