"""PACS of several makes: one on pynetdicom that does whatever a test wants, DCMTK's storescp, Debian's Orthanc."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

EXPLICIT = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.50"


def keep(pacs: ToyPacs, event: Any) -> int:
    """Store it as it is."""
    pacs.stored.append((str(event.request.AffectedSOPInstanceUID), bytes(event.encoded_dataset(False))))
    return 0x0000


@dataclass
class ToyPacs:
    """A PACS whose manners are functions.

    Attributes:
        on_store: answers a C-STORE.
        report: how a commitment is reported: 'same' association, 'new' association to `report_to`, or 'never'.
        refuses: SOP Instance UIDs that it does not commit itself to.
    """

    on_store: Callable[[ToyPacs, Any], int] = keep
    report: str = "same"
    report_to: tuple[str, int] | None = None
    refuses: set[str] = field(default_factory=set)
    commits: bool = True
    syntaxes: tuple[str, ...] = (EXPLICIT, JPEG)
    stored: list[tuple[str, bytes]] = field(default_factory=list)
    associations: int = 0
    requests: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    port: int = 0

    def _accepted(self, event: Any) -> None:
        self.associations += 1

    def _action(self, event: Any) -> tuple[int, None]:
        self.requests.append(str(event.action_information.TransactionUID))
        return 0x0000, None

    def _sent(self, event: Any) -> None:
        """Once the answer to N-ACTION is on its way, the report may follow it."""
        if type(event.message).__name__ != "N_ACTION_RSP" or self.report == "never":
            return
        import threading

        request = self._pending.pop()
        threading.Thread(target=self._report, args=(event.assoc, request), daemon=True).start()

    def _report(self, assoc: Any, request: Dataset) -> None:
        time.sleep(0.05)
        if self.report == "same":
            kind, information = self._information(request)
            status, _ = assoc.send_n_event_report(
                information, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            self.answers.append(status.get("Status", -1))
            return
        assert self.report_to is not None
        ae = AE("PACS")
        ae.add_requested_context(StorageCommitmentPushModel, EXPLICIT)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        new = ae.associate(*self.report_to, ae_title="EDGEMED", ext_neg=[role])
        if new.is_established:
            kind, information = self._information(request)
            status, _ = new.send_n_event_report(
                information, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            self.answers.append(status.get("Status", -1))
            new.release()
        else:
            self.answers.append(-2)

    def _information(self, request: Dataset) -> tuple[int, Dataset]:
        information = Dataset()
        information.TransactionUID = request.TransactionUID
        kept, failed = [], []
        for item in request.ReferencedSOPSequence:
            copy = Dataset()
            copy.ReferencedSOPClassUID = item.ReferencedSOPClassUID
            copy.ReferencedSOPInstanceUID = item.ReferencedSOPInstanceUID
            has = str(item.ReferencedSOPInstanceUID) in {uid for uid, _ in self.stored}
            if has and str(item.ReferencedSOPInstanceUID) not in self.refuses:
                kept.append(copy)
            else:
                copy.FailureReason = 0x0112
                failed.append(copy)
        information.ReferencedSOPSequence = kept
        if failed:
            information.FailedSOPSequence = failed
        return (2 if failed else 1), information

    _pending: list[Dataset] = field(default_factory=list)


@contextmanager
def toy(pacs: ToyPacs, *, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[ToyPacs]:
    """Run one on loopback."""
    ae = AE("PACS")
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, list(pacs.syntaxes))
    if pacs.commits:
        ae.add_supported_context(StorageCommitmentPushModel, EXPLICIT)
    ae.require_called_aet = True
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60

    def action(event: Any) -> tuple[int, None]:
        pacs._pending.append(event.action_information)
        return pacs._action(event)

    handlers = [
        (evt.EVT_C_STORE, lambda event: pacs.on_store(pacs, event)),
        (evt.EVT_ACCEPTED, pacs._accepted),
        (evt.EVT_N_ACTION, action),
        (evt.EVT_DIMSE_SENT, pacs._sent),
    ]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=tls)
    assert server is not None
    pacs.port = server.socket.getsockname()[1]
    try:
        yield pacs
    finally:
        with contextlib.suppress(Exception):
            server.shutdown()
