"""Brings results to their destinations, until they have them: one lane each, and one that looks after all.

Whoever has written results calls `services.loops.wake("outlets")`. The lane of a destination is the loop `outlet NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from edgemed.base.quantity import SECOND
from edgemed.serve.config.destinations import Destination, Retry
from edgemed.serve.loops import Beat
from edgemed.serve.outlets.courier import Courier, Done, Parcel, Pulse, Unavailable
from edgemed.serve.outlets.lane import Lane
from edgemed.serve.outlets.report import ended
from edgemed.serve.outlets.rows import counts, settle, waiting
from edgemed.serve.services import Services

LOOP: Final = "outlets"
_LOOK_S: Final = 5.0
_MARGIN_NS: Final = 30 * SECOND

Counts = Mapping[tuple[str, str], int]
"""Deliveries by destination and state."""


class Outlets:
    """See above."""

    name = "outlets"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._names = [destination.name for destination in services.config.destinations]

    def start(self) -> None:
        """Begin: what waits from before is tried at once."""
        for destination in self._services.config.destinations:
            lane = make_lane(self._services, destination)
            if destination.kind == "dicom" and not destination.commitment:
                self._no_commitment(destination.name)
            # between two beats: name, connection, TLS, request, answer and its body, each with its own time
            self._services.loops.start(
                f"outlet {destination.name}", lane.run, limit_ns=6 * destination.retry.timeout_ns + _MARGIN_NS
            )
        self._services.loops.start(LOOP, self._look_after)

    def _no_commitment(self, name: str) -> None:
        """What was sent while commitment was still asked for there: that it was stored is enough now."""
        with self._services.journal.read() as connection:
            parcels = list(waiting(connection, self._services.spool, name, "sent"))
        for parcel in parcels:
            reason = "It was stored; commitment is not asked for any more."
            written = self._services.journal.write(partial(settle, parcel=parcel, state="delivered", reason=reason))
            if written[1] is not None:
                ended(self._services, parcel.task, parcel.model, written[1])

    def drain(self) -> None:
        """Nothing to do: lanes end with their loops, after what is under way."""

    def stop(self) -> None:
        """Nothing to do."""

    def _look_after(self, beat: Beat) -> None:
        while True:
            with self._services.journal.read() as connection:
                found = counts(connection)
            self._adopt(found)
            self._measure(found)
            if not beat.wait(_LOOK_S):
                return
            for name in self._names:
                self._services.loops.wake(f"outlet {name}")

    def _adopt(self, found: Counts) -> None:
        """Destinations that results wait for, but that the configuration no longer has; a retry may bring one back."""
        for name in sorted({name for name, state in found if state in ("pending", "sent")} - set(self._names)):
            if f"outlet {name}" not in self._services.loops.beats:
                lane = Lane(self._services, name, Retry(), _Nowhere())
                self._services.loops.start(f"outlet {name}", lane.run)

    def _measure(self, found: Counts) -> None:
        for name in self._names:
            waiting = found.get((name, "pending"), 0) + found.get((name, "sent"), 0)
            self._services.metrics.waiting_deliveries.labels(name).set(waiting)
        for alarm in self._services.alarms.standing:
            late = alarm.code == "delivery-late" and f"outlet {alarm.subject}" not in self._services.loops.beats
            if late or (alarm.code == "delivery-failed" and not found.get((alarm.subject, "failed"))):
                self._services.alarms.clear(alarm.code, alarm.subject)


class _Nowhere:
    """Of a destination that was taken out of the configuration: its results wait, and somebody hears of it."""

    most = 1
    address = ""

    def carry(self, parcels: Sequence[Parcel], done: Done, pulse: Pulse) -> None:  # noqa: ARG002
        raise Unavailable("The configuration has no destination of this name any more.")

    def close(self) -> None: ...


def make_lane(services: Services, destination: Destination) -> Lane:
    """The lane of a destination, with who carries things there."""
    courier: Courier
    if destination.kind == "dicom":
        from edgemed.serve.dicom.sender import DicomCourier

        sender = DicomCourier(services, destination)
        confirming = sender if destination.commitment else None
        return Lane(services, destination.name, destination.retry, sender, confirming=confirming)
    if destination.kind == "dicomweb":
        from edgemed.serve.outlets.dicomweb import StowCourier

        courier = StowCourier(destination)
    elif destination.kind == "webhook":
        from edgemed.serve.outlets.webhook import WebhookCourier

        courier = WebhookCourier(destination)
    elif destination.kind == "hl7":
        from edgemed.serve.outlets.mllp import Hl7Courier

        courier = Hl7Courier(destination)
    else:
        from edgemed.serve.outlets.folder import FolderCourier

        courier = FolderCourier(destination)
    return Lane(services, destination.name, destination.retry, courier)


def check_destination(destination: Destination) -> None:
    """What can be known of a destination before anything is sent there; `make_lane` refuses the same.

    Raises:
        EdgemedError: a file that it names cannot be used: a token, a secret, a certificate.
    """
    from edgemed.serve.tls import client_context, outgoing_context

    if destination.kind in ("dicom", "hl7") and destination.tls is not None:
        client_context(destination.tls)
    if destination.kind in ("dicomweb", "webhook"):
        outgoing_context(destination.tls, destination.ca)
    if destination.kind in ("dicomweb", "webhook"):
        from edgemed.serve.outlets.http import check_secret

        check_secret(destination.token if destination.kind == "dicomweb" else destination.secret, destination.name)
