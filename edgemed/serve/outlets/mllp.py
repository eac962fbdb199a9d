"""HL7 version 2 over MLLP: a message is delivered when its own acknowledgement has come back (original mode).

`AA` and `CA` are delivery. `AE` is tried again, for engines say it while their database is down; it and `AR` are
final where an error code (HL7 table 0357) or `AR` without any blames the message itself.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Final

from edgemed.base.errors import EdgemedError
from edgemed.base.quantity import SECOND
from edgemed.serve.config.destinations import Hl7Destination
from edgemed.serve.outlets.courier import Done, Outcome, Parcel, Pulse, Unavailable
from edgemed.serve.outlets.file import one_by_one
from edgemed.serve.tls import client_context

START: Final = b"\x0b"
END: Final = b"\x1c\r"
_MOST_BYTES: Final = 1 << 20
_MESSAGE_IS_WRONG: Final = range(100, 204)  # segment order, missing and mistyped fields, unsupported types
_PASSING: Final = range(204, 208)  # unknown key, duplicate, locked, internal error

Render = Callable[[Any], bytes]
"""An ORU^R01 message of a result in its JSON form."""


class Hl7Courier:
    """Sends one message after the other over one connection, each after the answer to the one before."""

    most = 32

    def __init__(self, destination: Hl7Destination, render: Render | None = None) -> None:
        self._destination = destination
        self._render = render or _oru(destination)
        self._timeout_ns = destination.retry.timeout_ns
        if destination.tls is not None:
            client_context(destination.tls)  # what is wrong with its files is told at the start

    @property
    def address(self) -> str:
        return f"{self._destination.host}:{self._destination.port}"

    def carry(self, parcels: Sequence[Parcel], done: Done, pulse: Pulse) -> None:
        """See `Courier`."""
        with closing(self._connect()) as connection:
            one_by_one(parcels, done, pulse, lambda parcel: self._send(connection, parcel))

    def close(self) -> None:
        """Nothing is open."""

    def _connect(self) -> socket.socket:
        place = self._destination
        try:
            plain = socket.create_connection((place.host, place.port), self._timeout_ns / SECOND)
        except OSError as error:
            raise Unavailable("It takes no connection.") from error
        if place.tls is None:
            return plain
        try:
            return client_context(place.tls).wrap_socket(plain, server_hostname=place.host)
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise Unavailable(f"Its certificate is not trusted: {error.verify_message}.") from error
        except OSError as error:
            plain.close()
            raise Unavailable("It does not speak TLS as it should.") from error
        except EdgemedError as error:  # a certificate of ours that was changed, and is none
            plain.close()
            raise Unavailable(error.what) from error

    def _send(self, connection: socket.socket, parcel: Parcel) -> Outcome:
        try:
            message = self._render(json.loads(parcel.path.read_bytes()))
        except EdgemedError as error:
            return Outcome("refused", error.what)
        except ValueError:
            return Outcome("refused", "The result is not what a message can be made of.")
        try:
            connection.settimeout(self._timeout_ns / SECOND)
            connection.sendall(START + message + END)
            answer = _receive(connection, time.monotonic_ns() + self._timeout_ns)
        except TimeoutError as error:
            raise Unavailable("It does not acknowledge in time.", parcel) from error
        except OSError as error:
            raise Unavailable("The connection was lost.", parcel) from error
        if answer is None:
            raise Unavailable("What it answers is no acknowledgement.", parcel)
        outcome = acknowledged(answer, control_id(message))
        if outcome is None:
            raise Unavailable("It acknowledges another message, or none.", parcel)
        return outcome


def _receive(connection: socket.socket, end_ns: int) -> bytes | None:
    """One framed message; `None` where what comes is none. What came after it is an error, too."""
    data = b""
    while not data.endswith(END):
        left_ns = end_ns - time.monotonic_ns()
        if left_ns <= 0:
            raise TimeoutError
        connection.settimeout(left_ns / SECOND)
        chunk = connection.recv(1 << 16)
        data += chunk
        if not chunk or len(data) > _MOST_BYTES or not data.startswith(START):
            return None
    body = data[len(START) : -len(END)]
    return None if START in body else body


def control_id(message: bytes) -> bytes:
    """MSH-10 of a message."""
    fields = message.split(b"\r", 1)[0].split(message[3:4])
    return fields[9].strip() if len(fields) > 9 else b""


def acknowledged(answer: bytes, control: bytes) -> Outcome | None:
    """What an acknowledgement says of a message.

    Args:
        answer: without its frame.
        control: MSH-10 of the message: another one's acknowledgement says nothing.

    Returns:
        `None` where it is no acknowledgement of that message.
    """
    if not answer.startswith(b"MSH") or len(answer) < 8:
        return None
    separator = answer[3:4]
    segments = [segment.strip(b"\n").split(separator) for segment in answer.replace(b"\n", b"\r").split(b"\r")]
    msa = next((fields for fields in segments if fields[0] == b"MSA"), [])
    if len(msa) < 3 or msa[2].strip() != control or not control:
        return None
    code = msa[1].strip().decode("ascii", "replace").upper()
    if code in ("AA", "CA"):
        return Outcome("delivered")
    if code not in ("AE", "AR", "CE", "CR"):
        return None
    errors = _error_codes(segments, answer[4:5])
    blamed = [number for number in errors if number in _MESSAGE_IS_WRONG]
    if blamed or (code in ("AR", "CR") and not any(number in _PASSING for number in errors)):
        return Outcome("refused", f"It answers {code}{f' ({blamed[0]})' if blamed else ''}.")
    return Outcome("later", f"It answers {code}{f' ({errors[0]})' if errors else ''}.")


def _error_codes(segments: Sequence[Sequence[bytes]], component: bytes) -> list[int]:
    """ERR-3 (from 2.5 on), the fourth component of ERR-1 before, MSA-6: numbers of table 0357, and nothing else."""
    found = []
    for fields in segments:
        if fields[0] == b"ERR":
            places = [fields[3].split(component)[0] if len(fields) > 3 else b""]
            places += fields[1].split(component)[3:4] if len(fields) > 1 else []
        elif fields[0] == b"MSA":
            places = [fields[6].split(component)[0] if len(fields) > 6 else b""]
        else:
            continue
        found += [int(place) for place in places if place.isdigit() and len(place) == 3 and int(place) > 0]
    return found


def _oru(destination: Hl7Destination) -> Render:
    from edgemed.imaging.results.hl7 import oru

    def render(result: Any) -> bytes:
        message: bytes = oru(result, application=destination.application, receiving=destination.receiving)
        return message

    return render
