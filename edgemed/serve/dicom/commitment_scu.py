"""Storage commitment asked of a peer (PS3.4 annex J): N-ACTION, and its report where it comes on the same association.

Most peers report on an association of their own, to the inlet; both ways end in `commitments.take_report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Final

from edgemed.base.quantity import SECOND
from edgemed.serve.dicom.commitments import PROCESSING_FAILURE, take_report
from edgemed.serve.dicom.contexts import COMMITMENT, COMMITMENT_INSTANCE
from edgemed.serve.dicom.inbox import Message
from edgemed.serve.dicom.requestor import Wanted
from edgemed.serve.dicom.scu import Broken, Link, Target
from edgemed.serve.outlets.courier import Parcel, Pulse
from edgemed.serve.services import Services

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from edgemed.serve.dicom.negotiation import Accepted

_WANTED: Final = Wanted(COMMITMENT, ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"))
_REQUEST: Final = 1  # action type
LINGER_NS: Final = 2 * SECOND  # peers that report on the same association do so at once


def ask(services: Services, target: Target, parcels: Sequence[Parcel], transaction: str, pulse: Pulse) -> None:
    """Ask a peer to keep what it was sent, and take its report if it comes at once.

    Raises:
        Broken: the request was not taken.
    """
    with Link(target, [_WANTED], pulse) as link:
        context = link.granted.contexts.get(_WANTED)
        if context is None:
            raise Broken("It does not do storage commitment; `commitment = false` does without.")
        data = _encode(_request(parcels, transaction), context)
        status = link.act(context, COMMITMENT, COMMITMENT_INSTANCE, _REQUEST, data)
        if status != 0 and status >> 12 != 0xB:
            raise Broken(f"It does not take the request for storage commitment (0x{status:04X}).")
        if (event := link.event(LINGER_NS)) is not None:
            link.answer(event, _taken(services, target.called, event))


def _request(parcels: Sequence[Parcel], transaction: str) -> Dataset:
    from pydicom.dataset import Dataset

    request = Dataset()
    request.TransactionUID = transaction
    items = []
    for parcel in parcels:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = parcel.sop_class, parcel.sop_instance
        items.append(item)
    request.ReferencedSOPSequence = items
    return request


def _encode(request: Dataset, context: Accepted) -> bytes:
    from pynetdicom.dsutils import encode

    data = encode(request, context.syntax.implicit, context.syntax.little)
    assert data is not None
    return data


def _taken(services: Services, peer: str, event: Message) -> int:
    from pynetdicom.dsutils import decode

    try:
        syntax = event.context.syntax
        information = decode(BytesIO(bytes(event.data)), syntax.implicit, syntax.little)
        return take_report(services, peer, information)
    except Exception:  # whatever the decoder stumbles over is not ours to tell apart
        return PROCESSING_FAILURE
