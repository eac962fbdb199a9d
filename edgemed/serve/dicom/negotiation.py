"""A-ASSOCIATE (PS3.8 section 9.3): what a peer asks for, and what it gets. pynetdicom reads, negotiates and writes.

A scanner asks for the same each time, of 128 presentation contexts and more, and pynetdicom takes 10 ms for that: the
last requests and their answers are kept.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeVar

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from edgemed.imaging.dicom.identity import IMPLEMENTATION, VERSION_NAME
from edgemed.imaging.dicom.syntaxes import SYNTAXES, Syntax
from edgemed.serve.dicom.wire import Malformed

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
MOST_REQUEST_BYTES: Final = 1 << 20
RELEASE_ANSWER: Final = struct.pack(">BxL4x", RELEASE_RP, 4)
APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
_PROTOCOL_VERSION: Final = 1  # bit 0 (PS3.8 table 9-11)
_SHORTEST: Final = 74  # bytes before the variable items
_KEPT: Final = 16
_KEPT_BYTES: Final = 1 << 16  # of a request; longer ones are not kept

T = TypeVar("T")
Item = MaximumLengthNotification | ImplementationClassUIDNotification | ImplementationVersionNameNotification


class OtherVersion(Malformed):
    """A request in a version of the protocol that is not spoken here."""


@dataclass(frozen=True)
class Accepted:
    """A presentation context that was accepted."""

    number: int
    sop_class: str
    syntax: Syntax
    as_scp: bool
    as_scu: bool


@dataclass(frozen=True)
class Request:
    """Of an association; equal where the bytes are."""

    data: bytes
    calling: str = field(compare=False)
    called: str = field(compare=False)
    application_context: str = field(compare=False)
    max_length: int = field(compare=False)
    primitive: A_ASSOCIATE = field(compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class Offer:
    """What a peer may negotiate; equal to itself alone."""

    contexts: tuple[PresentationContext, ...]


def parse_request(data: bytes) -> Request:
    """Read an A-ASSOCIATE-RQ PDU.

    Raises:
        OtherVersion: it is not of version 1 of the protocol.
        Malformed: it is none.
    """
    return _parse_kept(data) if len(data) <= _KEPT_BYTES else _parse(data)


def accept(request: Request, offer: Offer, max_length: int) -> tuple[bytes, Mapping[int, Accepted]]:
    """Negotiate: the A-ASSOCIATE-AC PDU, and what was accepted by its number.

    Raises:
        Malformed: the request cannot be answered.
    """
    negotiate = _negotiate_kept if len(request.data) <= _KEPT_BYTES else _negotiate
    return negotiate(request, offer, max_length)


def _parse(data: bytes) -> Request:
    if len(data) < _SHORTEST:
        raise Malformed("A request for an association is cut short.", Malformed.PARAMETER)
    (version,) = struct.unpack_from(">H", data, 6)
    if not version & _PROTOCOL_VERSION:
        raise OtherVersion("It was asked for in an unknown version of the protocol.", Malformed.PARAMETER)
    try:
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(data)
        primitive = pdu.to_primitive()
        asked = primitive.presentation_context_definition_list
        if not asked or any(not context.transfer_syntax for context in asked):
            raise ValueError
        lengths = [i.maximum_length_received for i in _items(primitive, MaximumLengthNotification)]
        return Request(
            data,
            _title(primitive.calling_ae_title),
            _title(primitive.called_ae_title),
            str(primitive.application_context_name or ""),
            lengths[0] if lengths else 16384,
            primitive,
        )
    except Exception as error:  # whatever the decoder stumbles over is not ours to tell apart
        raise Malformed("A request for an association is damaged.", Malformed.PARAMETER) from error


def reject(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ PDU."""
    return struct.pack(">BxLxBBB", ASSOCIATE_RJ, 4, result, source, reason)


def abort(source: int, reason: int) -> bytes:
    """An A-ABORT PDU; source 0: the service user, 2: the service provider."""
    return struct.pack(">BxLxxBB", ABORT, 4, source, reason)


def _negotiate(request: Request, offer: Offer, max_length: int) -> tuple[bytes, Mapping[int, Accepted]]:
    asked = request.primitive
    roles = {
        uid: (item.scu_role, item.scp_role)
        for item in _items(asked, SCP_SCU_RoleSelectionNegotiation)
        if (uid := item.sop_class_uid) is not None
    }
    try:
        results, role_items = negotiate_as_acceptor(
            asked.presentation_context_definition_list, list(offer.contexts), roles
        )
        answer = _answer(asked, results, role_items, max_length)
        data = A_ASSOCIATE_AC(answer).encode()
    except Exception as error:
        raise Malformed("A request for an association cannot be answered.", Malformed.PARAMETER) from error
    accepted = {
        number: Accepted(
            number,
            str(context.abstract_syntax),
            SYNTAXES[str(context.transfer_syntax[0])],
            bool(context.as_scp),
            bool(context.as_scu),
        )
        for context in results
        if context.result == 0 and (number := context.context_id) is not None
    }
    return data, MappingProxyType(accepted)


_parse_kept = lru_cache(maxsize=_KEPT)(_parse)
_negotiate_kept = lru_cache(maxsize=_KEPT)(_negotiate)


def _answer(
    asked: A_ASSOCIATE,
    results: list[PresentationContext],
    roles: list[SCP_SCU_RoleSelectionNegotiation],
    max_length: int,
) -> A_ASSOCIATE:
    answer = A_ASSOCIATE()
    answer.application_context_name = APPLICATION_CONTEXT
    answer.calling_ae_title = asked.calling_ae_title
    answer.called_ae_title = asked.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = results
    answer.user_information = [*told_of_us(max_length), *roles]
    return answer


def told_of_us(max_length: int) -> list[Item]:
    """User information that every request and answer of ours has (PS3.8 annex D.1, PS3.7 D.3.3.2)."""
    length = MaximumLengthNotification()
    length.maximum_length_received = max_length
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = VERSION_NAME
    return [length, implementation, version]


def _title(text: object) -> str:
    """Fit for logs, whoever made it."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text)).strip()


def _items(primitive: A_ASSOCIATE, kind: type[T]) -> list[T]:
    return [item for item in primitive.user_information if isinstance(item, kind)]
