"""What we answer: C-STORE, storage commitment, reports on it, procedure steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edgemed.serve.dicom import commitment, commitments, steps, store
from scripts.conformance.tables import described, status, table

_STORE: Final = {
    store.SUCCESS: (
        "success",
        "the data set is on the disk, synced, under its name, with its row in the journal; or the very same came "
        "before and is still kept, or was delivered",
    ),
    store.PROCESSING_FAILURE: ("processing failure", "a fault of ours while it is kept; the sender should keep it"),
    store.INVALID_INSTANCE: ("invalid SOP instance", "the request names no SOP class or no instance"),
    store.CLASS_NOT_SUPPORTED: (
        "SOP class not supported",
        "the SOP class of the request is not that of its presentation context; a C-ECHO in another one's context",
    ),
    store.NOT_AUTHORIZED: ("not authorised", "N-ACTION of a peer whose `may` has no `commit`"),
    store.UNRECOGNIZED_OPERATION: ("unrecognised operation", "a DIMSE service that is not offered in that context"),
    store.OUT_OF_RESOURCES: (
        "refused: out of resources",
        "the disk is below its reserve, full, or fails; the object is larger than `max_object`; the peer sends more "
        "than `per_minute`; an earlier file of the image is being deleted at this moment",
    ),
    store.DATA_SET_MISMATCH: (
        "error: data set does not match SOP class",
        "SOP class or SOP Instance UID of the data set are not those of the request",
    ),
    store.CANNOT_UNDERSTAND: (
        "error: cannot understand",
        "it does not begin like a data set of its transfer syntax, says twice who it is, or there is none",
    ),
    store.OTHER_CONTENT: (
        "error: cannot understand",
        "the SOP Instance UID came before with other content: this one is kept in quarantine, an alarm stands",
    ),
}
_ACTION: Final = {
    store.SUCCESS: ("success", "the request is in the journal"),
    store.NOT_AUTHORIZED: ("not authorised", "the peer's `may` has no `commit`"),
    commitment.NO_SUCH_ACTION: ("no such action", "the action type is not 1"),
    commitment.NO_SUCH_INSTANCE: ("no such SOP instance", "it is not the well-known instance"),
    commitment.INVALID_ARGUMENT: ("invalid argument", "no transaction, no instances, too many, or no data set"),
    commitment.PROCESSING_FAILURE: ("processing failure", "the journal does not take it"),
    commitment.RESOURCE_LIMITATION: (
        "resource limitation",
        "too many requests of the peer are not reported on yet; it may ask again later",
    ),
}
_FAILED: Final = {
    commitment.NO_SUCH_INSTANCE: "it never came, was refused, or is not kept any more and was not sent on",
    commitment.CLASS_INSTANCE_CONFLICT: "it is of another SOP class than the request says",
    commitment.PROCESSING_FAILURE: "its bytes on the disk are not those that came",
}
_REPORT: Final = {
    commitments.SUCCESS: ("success", "its effect is in the journal"),
    commitments.PROCESSING_FAILURE: ("processing failure", "the journal does not take it"),
    commitments.NO_SUCH_ARGUMENT: ("no such argument", "it names no transaction"),
    commitments.INVALID_ARGUMENT: (
        "invalid argument",
        "it answers no request of ours to that application entity, or is no data set",
    ),
}
_STEP: Final = {
    store.SUCCESS: ("success", "both", "the step, or its change, is in the journal, synced"),
    steps.INVALID_VALUE: (
        "invalid attribute value",
        "both",
        "N-CREATE with another status than IN PROGRESS, N-SET with one that there is not; a UID is none; an element is "
        "of the wrong kind",
    ),
    steps.PROCESSING_FAILURE: (
        "processing failure",
        "both",
        f"N-SET of a step that has ended (Error ID {status(steps.MAY_NO_LONGER_BE_UPDATED)}); the data set cannot be "
        "read; the journal does not take it",
    ),
    steps.DUPLICATE_INSTANCE: ("duplicate SOP instance", "N-CREATE", "there is a step of that UID"),
    steps.NO_SUCH_INSTANCE: ("no such SOP instance", "N-SET", "there is no step of that UID, or it was forgotten"),
    store.INVALID_INSTANCE: ("invalid SOP instance", "both", "the request names no instance"),
    steps.MISSING_ATTRIBUTE: ("missing attribute", "both", "an attribute that must be there is not"),
    steps.MISSING_VALUE: (
        "missing attribute value",
        "both",
        "it is there without a value; N-SET to COMPLETED of a step that names no series",
    ),
    store.NOT_AUTHORIZED: ("not authorised", "N-SET", "another application entity has created the step"),
    steps.RESOURCE_LIMITATION: ("resource limitation", "both", "the peer has too many steps, or images of them"),
}


def stored() -> str:
    """C-STORE-RSP."""
    return table(("status", "meaning", "when"), described(store, _STORE))


def action() -> str:
    """N-ACTION-RSP."""
    return table(("status", "meaning", "when"), [(status(code), *words) for code, words in sorted(_ACTION.items())])


def failures() -> str:
    """Failure Reason of what is not committed."""
    return table(("failure reason", "when"), [(status(code), when) for code, when in sorted(_FAILED.items())])


def reported() -> str:
    """N-EVENT-REPORT-RSP."""
    return table(("status", "meaning", "when"), described(commitments, _REPORT))


def told_of_steps() -> str:
    """N-CREATE-RSP and N-SET-RSP."""
    rows = [(status(code), *words) for code, words in sorted(_STEP.items())]
    return table(("status", "meaning", "of", "when"), rows)


def needed_of_steps() -> str:
    """Attributes without which a step is not created."""
    from pydicom.datadict import dictionary_description

    return ", ".join(map(dictionary_description, steps.AT_CREATION))


FILLS: Final[dict[str, Callable[[], str]]] = {
    "store_statuses": stored,
    "action_statuses": action,
    "commitment_failures": failures,
    "report_statuses": reported,
    "step_statuses": told_of_steps,
    "step_attributes": needed_of_steps,
}
