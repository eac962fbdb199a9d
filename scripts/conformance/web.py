"""DICOMweb: what the origin server answers, and what the answers of others mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi.routing import APIRoute

from edgemed.serve.http.stow import part, receive
from edgemed.serve.http.stow.store import ROOT, describe_store
from edgemed.serve.outlets.http import passing
from scripts.conformance.tables import described, ranges, table

_REASONS: Final = {
    part.PROCESSING_FAILURE: ("processing failure", "a fault of ours while it is kept"),
    part.CLASS_NOT_SUPPORTED: (
        "SOP class not supported",
        "none of `[http] sop_classes`, or, without, of the storage SOP classes above",
    ),
    part.OUT_OF_RESOURCES: (
        "out of resources",
        "the disk; it is larger than `[dicom] max_object`; the token sends more than `per_minute`",
    ),
    part.DATA_SET_MISMATCH: ("data set does not match", "its file meta information tells of another instance"),
    part.CANNOT_UNDERSTAND: (
        "cannot understand",
        "no DICOM file, no `application/dicom`, or it does not say what it is",
    ),
    part.OTHER_CONTENT: ("cannot understand", "the SOP Instance UID came before with other content: quarantine, alarm"),
    part.SYNTAX_NOT_SUPPORTED: ("transfer syntax not supported", "none of the transfer syntaxes above"),
    part.OTHER_STUDY: ("another study", "it is of another study than the path names"),
}


def statuses() -> str:
    """HTTP statuses of the Store transaction, as the server's own description has them."""
    route = next(route for route in describe_store().routes if isinstance(route, APIRoute))
    rows = sorted((int(code), str(answer.get("description", ""))) for code, answer in route.responses.items())
    return table(("status", "when"), rows)


def reasons() -> str:
    """Failure Reason of what is not kept."""
    return table(("failure reason", "meaning", "when"), described(part, _REASONS))


def answers() -> str:
    """What statuses of another origin server mean for an instance that was sent."""
    codes = range(300, 600)
    again = [code for code in codes if passing(code)]
    never = [code for code in codes if not passing(code)]
    rows = (
        ("200–299", "judged by the body, see above"),
        (ranges(again, str), "tried again, after a pause"),
        (ranges(never, str), "failed at once, where the body names no instance"),
    )
    return table(("status", "the instance is"), rows)


FILLS: Final[dict[str, Callable[[], str]]] = {
    "stow_path": lambda: ROOT,
    "stow_parts": lambda: f"{receive.MOST_PARTS:,}",
    "stow_statuses": statuses,
    "stow_reasons": reasons,
    "stow_answers": answers,
}
