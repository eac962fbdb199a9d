"""Data sets of storage commitment (PS3.3 section C.14), and the association on which a report is brought to a peer."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from pynetdicom import AE, build_role
from pynetdicom.dsutils import decode, encode

from edgemed.imaging.dicom.identity import IMPLEMENTATION, VERSION_NAME
from edgemed.imaging.dicom.syntaxes import IMPLICIT_LITTLE, Syntax
from edgemed.serve.config.inlets import DicomSection, Peer
from edgemed.serve.dicom.contexts import COMMITMENT, COMMITMENT_INSTANCE, PLAIN
from edgemed.serve.dicom.negotiation import Accepted
from edgemed.serve.journal.requests import Instance
from edgemed.serve.tls import client_context

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Failed = Sequence[tuple[Instance, int]]
"""What is not committed, and why not."""

MOST_INSTANCES: Final = 100_000
PATIENCE_S: Final = 30


def parse_data_set(data: bytes, syntax: Syntax) -> Dataset:
    """A data set that came with a message.

    Raises:
        ValueError: it is none.
    """
    try:
        return decode(io.BytesIO(data), syntax.implicit, syntax.little, syntax.deflated)
    except Exception as error:  # whatever the decoder stumbles over
        raise ValueError("The data set cannot be read.") from error


def parse_request(data: bytes, syntax: Syntax) -> tuple[str, list[Instance]]:
    """Transaction UID and instances of a request for commitment.

    Raises:
        ValueError: it is none.
    """
    request = parse_data_set(data, syntax)
    try:
        transaction = str(request.TransactionUID)
        items = list(request.ReferencedSOPSequence)
        instances = [(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)) for item in items]
    except Exception as error:
        raise ValueError("It does not say what is to be committed.") from error
    if not transaction or not instances or len(instances) > MOST_INSTANCES:
        raise ValueError("It names no transaction, no instances, or too many.")
    return transaction, instances


def encode_report(transaction: str, instances: Sequence[Instance], failed: Failed, context: Accepted) -> bytes:
    """The data set of a report, in the transfer syntax of a presentation context."""
    return encode_data_set(report(transaction, instances, failed), context.syntax)


def encode_data_set(data_set: Dataset, syntax: Syntax) -> bytes:
    """In a transfer syntax that is not compressed."""
    return encode(data_set, syntax.implicit, syntax.little) or b""


def report(transaction: str, instances: Sequence[Instance], failed: Failed) -> Dataset:
    """Event information: what is committed, and what is not."""
    from pydicom.dataset import Dataset

    lost = {instance for instance, _ in failed}
    information = Dataset()
    information.TransactionUID = transaction
    kept = [_item(instance) for instance in instances if instance not in lost]
    if kept:
        information.ReferencedSOPSequence = kept
    if failed:
        information.FailedSOPSequence = [_item(instance, reason) for instance, reason in failed]
    return information


def _item(instance: Instance, reason: int | None = None) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance
    if reason is not None:
        item.FailureReason = reason
    return item


def _listens(address: str, port: int) -> bool:
    """Asked before pynetdicom is: it leaves the socket of a refused connection to the garbage collector."""
    try:
        socket.create_connection((address, port), timeout=PATIENCE_S).close()
    except OSError:
        return False
    return True


def send_report(
    section: DicomSection, peer: Peer, address: str, event_type: int, information: Callable[[Accepted], bytes]
) -> int | None:
    """Bring a report to a peer on a new association, in which we have the role of the SCP.

    Returns:
        The status that the peer answers; `None` where it was not reached, or does not answer.
    """
    from pydicom.uid import UID

    if not _listens(address, peer.port or 0):
        return None
    plain = Accepted(1, COMMITMENT, IMPLICIT_LITTLE, as_scp=True, as_scu=False)
    data_set = parse_data_set(information(plain), IMPLICIT_LITTLE)
    ae = AE(section.ae_title)
    ae.implementation_class_uid, ae.implementation_version_name = UID(IMPLEMENTATION), VERSION_NAME
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = PATIENCE_S
    ae.add_requested_context(COMMITMENT, list(PLAIN))
    tls = None if section.tls is None else (client_context(section.tls), address)
    association = ae.associate(
        address,
        peer.port or 0,
        ae_title=peer.ae_title,
        ext_neg=[build_role(COMMITMENT, scp_role=True)],
        tls_args=tls,
    )
    if not association.is_established:
        return None
    try:
        answer, _ = association.send_n_event_report(data_set, event_type, COMMITMENT, COMMITMENT_INSTANCE)
    except ValueError:  # it takes the association, and not the role
        return None
    finally:
        association.release()
    return int(answer.Status) if "Status" in answer else None
