"""What destinations say of the results that they were asked to keep: N-EVENT-REPORT of the commitment push model.

Whoever receives a report, on the association of the request or on a new one to the inlet, hands it to `take_report`. It
is stateless: which request a report answers stands in the journal, and the report is acknowledged when its effect does.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING, Final

from edgemed.base.errors import EdgemedError
from edgemed.serve.outlets.report import ended
from edgemed.serve.outlets.rows import move
from edgemed.serve.services import Services
from edgemed.serve.states import State

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

log = logging.getLogger(__name__)

SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_ARGUMENT: Final = 0x0114
INVALID_ARGUMENT: Final = 0x0115

_ASKED: Final = """
SELECT delivery.id, delivery.state, delivery.destination, result.task, result.sop_class, result.sop_instance, task.model
FROM asked JOIN delivery ON delivery.id = asked.delivery JOIN result ON result.id = delivery.result
JOIN task ON task.id = result.task
WHERE asked.transaction_uid = ?
"""


def take_report(services: Services, peer: str, information: Dataset) -> int:
    """Enter a report into the journal, and say with which status to answer it.

    What is named in neither of its lists is not committed: it waits on. What is named in both is not either.

    Args:
        services: of the daemon.
        peer: AE title of who reports: only the destination itself can commit itself.
        information: the data set of the report.

    Returns:
        0x0000, 0x0110 where the journal does not take it, 0x0114 or 0x0115 where it answers no request of ours.
    """
    transaction = str(information.get("TransactionUID", ""))
    if not transaction:
        return NO_SUCH_ARGUMENT
    names = {
        place.name
        for place in services.config.destinations
        if place.kind == "dicom" and place.ae_title.strip() == peer.strip()
    }
    kept = _named(information, "ReferencedSOPSequence")
    refused = _named(information, "FailedSOPSequence")

    def work(connection: sqlite3.Connection) -> list[tuple[str, int, str, str, State | None]] | None:
        rows = [row for row in connection.execute(_ASKED, (transaction,)) if row["destination"] in names]
        if not rows:
            return None
        moved = []
        for row in rows:
            verdict = _verdict(row, kept, refused)
            if verdict is not None and row["state"] in ("pending", "sent"):  # else the report is a repeated one
                end = move(connection, row["id"], row["task"], *verdict)
                moved.append((row["destination"], row["task"], row["model"], verdict[0], end))
        return moved

    try:
        moved = services.journal.write(work)
    except EdgemedError as error:
        log.error("a report of a storage commitment could not be entered: %s", error.what)
        return PROCESSING_FAILURE
    if moved is None:
        log.warning("%s reports a storage commitment that is not asked for", peer)
        return INVALID_ARGUMENT
    for name, task, model, state, end in moved:
        services.metrics.deliveries.labels(name, "committed" if state == "delivered" else "not-committed").inc()
        if end is not None:
            ended(services, task, model, end)
    for name in names:
        services.loops.wake(f"outlet {name}")
    return SUCCESS


def _verdict(
    row: sqlite3.Row, kept: dict[str, tuple[str, int]], refused: dict[str, tuple[str, int]]
) -> tuple[str, str] | None:
    """State and reason of a delivery by a report; `None` where it says nothing of it."""
    uid = row["sop_instance"]
    if uid in refused:
        return "pending", f"It does not keep it: failure reason 0x{refused[uid][1]:04X}."
    if uid in kept and kept[uid][0] == row["sop_class"]:
        return "delivered", "It has committed itself to keep it."
    return None


def _named(information: Dataset, sequence: str) -> dict[str, tuple[str, int]]:
    """SOP class and failure reason by SOP Instance UID."""
    found = {}
    for item in information.get(sequence) or ():
        uid = str(item.get("ReferencedSOPInstanceUID", ""))
        found[uid] = (str(item.get("ReferencedSOPClassUID", "")), int(item.get("FailureReason") or 0))
    return found
