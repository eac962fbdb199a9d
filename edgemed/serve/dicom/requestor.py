"""A-ASSOCIATE from the other side (PS3.8 section 9.3): what we ask a peer for, and what it grants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, MaximumLengthNotification
from pynetdicom.presentation import PresentationContext, build_context

from edgemed.imaging.dicom.syntaxes import SYNTAXES, Syntax
from edgemed.serve.dicom.negotiation import APPLICATION_CONTEXT, Accepted, told_of_us
from edgemed.serve.dicom.wire import Malformed

MOST_CONTEXTS: Final = 128
_LEAST_BYTES: Final = 74  # of an answer: all that stands before its items
_REJECTED: Final = {
    (1, 2): "it does not know the application context",
    (1, 3): "it does not know our AE title",
    (1, 7): "it does not have the AE title that we call",
    (3, 1): "it is congested",
    (3, 2): "it takes no more associations now",
}


@dataclass(frozen=True)
class Wanted:
    """A SOP class, and the transfer syntaxes of which the peer may choose one."""

    sop_class: str
    syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class Granted:
    """What a peer has answered.

    Attributes:
        contexts: that it has accepted.
        refused: result of each that it has not (PS3.8 table 9-18).
        max_length: of the PDUs that it takes; 0 where it sets no limit.
    """

    contexts: Mapping[Wanted, Accepted]
    refused: Mapping[Wanted, int]
    max_length: int


def request(calling: str, called: str, wanted: Sequence[Wanted], max_length: int) -> bytes:
    """An A-ASSOCIATE-RQ PDU; contexts are numbered 1, 3, 5, … in the order of `wanted`."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title = calling
    primitive.called_ae_title = called
    primitive.presentation_context_definition_list = [
        _context(number, each) for number, each in enumerate(wanted[:MOST_CONTEXTS])
    ]
    primitive.user_information = [*told_of_us(max_length)]
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def read_answer(data: bytes, wanted: Sequence[Wanted]) -> Granted:
    """Read an A-ASSOCIATE-AC PDU.

    Raises:
        Malformed: it is none, or grants what was not asked for.
    """
    try:
        if len(data) < _LEAST_BYTES:
            raise ValueError
        pdu = A_ASSOCIATE_AC()
        pdu.decode(data)
        primitive = pdu.to_primitive()
        results = {context.context_id: context for context in primitive.presentation_context_definition_results_list}
        lengths = [
            item.maximum_length_received
            for item in primitive.user_information
            if isinstance(item, MaximumLengthNotification)
        ]
        contexts: dict[Wanted, Accepted] = {}
        refused: dict[Wanted, int] = {}
        for number, each in enumerate(wanted):
            result = results.get(2 * number + 1)
            if result is None or result.result != 0:
                refused[each] = 2 if result is None else int(result.result or 0)
                continue
            syntax = str(result.transfer_syntax[0])
            if syntax not in each.syntaxes:
                raise ValueError
            contexts[each] = Accepted(
                2 * number + 1, each.sop_class, SYNTAXES.get(syntax, Syntax(syntax, "")), as_scp=False, as_scu=True
            )
    except Exception as error:  # whatever the decoder stumbles over is not ours to tell apart
        raise Malformed("Its answer to the request for an association is damaged.") from error
    return Granted(contexts, refused, int(lengths[0] or 0) if lengths else 0)


def why_rejected(body: bytes) -> str:
    """What an A-ASSOCIATE-RJ says, as a clause."""
    if len(body) < 4:
        return "no reason is given"
    return _REJECTED.get((body[2], body[3]), f"no reason is given (source {body[2]}, reason {body[3]})")


def _context(number: int, wanted: Wanted) -> PresentationContext:
    context = build_context(wanted.sop_class, list(wanted.syntaxes))
    context.context_id = 2 * number + 1
    return context
