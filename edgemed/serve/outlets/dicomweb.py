"""STOW-RS (PS3.18 section 10.5): one instance a request, and what the service says of that instance counts.

A status of 200 alone is not success: services have answered it with nothing stored.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from edgemed.serve.config.destinations import DicomWebDestination
from edgemed.serve.outlets.courier import Done, Outcome, Parcel, Pulse, Unavailable
from edgemed.serve.outlets.file import one_by_one
from edgemed.serve.outlets.http import HttpClient, check_secret, read_secret, refusal
from edgemed.serve.outlets.status import of_status
from edgemed.serve.outlets.stow import Stored, Unreadable, parse_stored

_CHUNK: Final = 1 << 18


class StowCourier:
    """Stores one instance after the other over a connection that is kept."""

    most = 32

    def __init__(self, destination: DicomWebDestination) -> None:
        check_secret(destination.token, destination.name)
        self._destination = destination
        self._client = HttpClient(destination)

    @property
    def address(self) -> str:
        return self._client.address

    def carry(self, parcels: Sequence[Parcel], done: Done, pulse: Pulse) -> None:
        """See `Courier`."""
        one_by_one(parcels, done, pulse, lambda parcel: self._store(parcel, pulse))

    def _store(self, parcel: Parcel, pulse: Pulse) -> Outcome:
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        size = parcel.path.stat().st_size
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(len(head) + size + len(tail)),
            "Accept": "application/dicom+json",
        }
        if self._destination.token is not None:
            headers["Authorization"] = f"Bearer {read_secret(self._destination.token)}"
        answer = self._client.post("/studies", _pieces(head, parcel.path, tail, pulse), headers, parcel)
        try:
            stored = parse_stored(answer.body, answer.content_type)
        except Unreadable as error:
            refused = refusal(answer)
            if refused is not None:
                return refused
            raise Unavailable("It does not say what it has stored.", parcel) from error
        return _verdict(parcel, stored)

    def close(self) -> None:
        self._client.close()


def _verdict(parcel: Parcel, stored: Stored) -> Outcome:
    if parcel.sop_instance in stored.failed:
        return of_status(stored.failed[parcel.sop_instance], parcel.kind)
    if parcel.sop_instance not in stored.kept:
        return Outcome("later", "It does not say that it has stored this one.")
    warning = stored.kept[parcel.sop_instance]
    return Outcome("delivered", f"Stored with a warning: 0x{warning:04X}." if warning else "")


def _pieces(head: bytes, path: Path, tail: bytes, pulse: Pulse) -> Iterator[bytes]:
    yield head
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            pulse()
            yield chunk
    yield tail
