"""Limits and times of associations: those that a site sets, with their defaults, and those that are fixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edgemed.base.quantity import SECOND
from edgemed.serve.config.destinations import DicomDestination, Retry
from edgemed.serve.config.inlets import DicomSection, Peer
from edgemed.serve.dicom import admission, commitment, commitment_scu, inbox, negotiation, reports, requestor, scu, wire
from edgemed.serve.housekeeping import STEPS_NS
from edgemed.serve.journal import requests, steps
from edgemed.serve.outlets import lane
from scripts.conformance.tables import duration, size, table


def _default(section: Any, field: str) -> Any:
    return section.model_fields[field].default


def acceptor() -> str:
    """Of associations that peers ask for."""
    own = _default
    return table(
        ("what", "limit", "set by"),
        (
            ("PDU that we receive (Maximum Length)", size(own(DicomSection, "max_pdu_bytes")), "`[dicom] max_pdu`"),
            ("PDU that we send", "as the peer's Maximum Length says", "the peer"),
            ("object (C-STORE)", size(own(DicomSection, "max_object_bytes")), "`[dicom] max_object`"),
            ("A-ASSOCIATE-RQ", size(negotiation.MOST_REQUEST_BYTES), "fixed"),
            ("command set", size(inbox.MOST_COMMAND_BYTES), "fixed"),
            ("data set of what is no C-STORE", size(inbox.MOST_DATA_BYTES), "fixed"),
            ("instances of a request for storage commitment", f"{reports.MOST_INSTANCES:,}", "fixed"),
            (
                "requests for storage commitment that are not reported on, of one peer",
                f"{requests.MOST_OPEN:,}, {size(requests.MOST_OPEN_BYTES)} of UIDs together",
                "fixed",
            ),
            ("procedure steps that are kept, of one peer", f"{steps.MOST_STEPS:,}", "fixed"),
            ("images that they name", f"{steps.MOST_IMAGES:,}", "fixed"),
            ("associations at a time, of all peers", own(DicomSection, "associations"), "`[dicom] associations`"),
            ("associations at a time, of one peer", own(Peer, "associations"), "`[[dicom.peers]] associations`"),
            ("the same of a destination that is no peer", admission.Guest.limit, "fixed"),
            ("objects in a minute, of one peer", "any number", "`[[dicom.peers]] per_minute`"),
            (
                "connections that have not asked yet",
                f"{admission.WAITING}, {admission.WAITING_EACH} of one address",
                "fixed",
            ),
            (
                "time to ask for an association, TLS included",
                duration(own(DicomSection, "association_ns")),
                "`[dicom] association`",
            ),
            ("time without a byte", duration(own(DicomSection, "idle_ns")), "`[dicom] idle`"),
            ("least speed of a message, beyond that time", f"{size(wire.SLOWEST_BYTES_PER_S)} a second", "fixed"),
            ("operations under way in one association", 1, "fixed: no asynchronous window"),
        ),
    )


def requesting() -> str:
    """Of associations that we ask for."""
    own = _default
    return table(
        ("what", "limit", "set by"),
        (
            ("PDU that we receive (Maximum Length)", size(scu.MOST_PDU_BYTES), "fixed"),
            ("PDU that we send", f"the peer's Maximum Length, {size(scu.MOST_PDU_BYTES)} at most", "the peer"),
            ("presentation contexts", requestor.MOST_CONTEXTS, "fixed"),
            ("associations at a time, to one destination", 1, "fixed"),
            ("wait for a connection, an association, a response", duration(own(Retry, "timeout_ns")),
             "`retry.timeout`"),
            ("first pause after a failure; it doubles, with jitter", duration(own(Retry, "first_ns")), "`retry.first`"),
            ("longest pause", duration(own(Retry, "cap_ns")), "`retry.cap`"),
            ("given up after", duration(own(Retry, "give_up_ns")), "`retry.give_up`"),
            ("wait for a report of storage commitment; then the object is sent again",
             duration(own(DicomDestination, "commitment_within_ns")), "`commitment_within`"),
            ("the same on the association of the request", duration(commitment_scu.LINGER_NS), "fixed"),
            ("instances in a request for storage commitment", lane.ASK_TOGETHER, "fixed"),
            ("operations under way in one association", 1, "fixed: no asynchronous window"),
        ),
    )  # fmt: skip


FILLS: Final[dict[str, Callable[[], str]]] = {
    "acceptor_limits": acceptor,
    "requestor_limits": requesting,
    "report_first": lambda: duration(commitment.FIRST_NS),
    "report_cap": lambda: duration(commitment.CAP_NS),
    "report_give_up": lambda: duration(commitment.GIVE_UP_NS),
    "report_patience": lambda: duration(reports.PATIENCE_S * SECOND),
    "step_kept": lambda: duration(STEPS_NS),
    "most_matches": lambda: str(scu.MOST_MATCHES),
}
