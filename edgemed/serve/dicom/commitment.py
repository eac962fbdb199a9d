"""Storage commitment, as the one who is asked (PS3.4 annex J): a promise is made for what was verified byte by byte.

It stands in the journal before the peer is told; from there on the image is kept until a destination has it.
A request is in the journal before it is answered; its report is tried until the peer has taken it, over restarts. It
goes to the peer's port where one is named, else on any open association of the peer.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from edgemed.base.errors import EdgemedError
from edgemed.base.quantity import SECOND
from edgemed.imaging.dicom.part10 import hash_dataset, read_meta
from edgemed.serve.ages import Ages
from edgemed.serve.clock import stamp
from edgemed.serve.config.inlets import DicomSection
from edgemed.serve.dicom.association import Asked, Association, Report
from edgemed.serve.dicom.contexts import COMMITMENT_INSTANCE
from edgemed.serve.dicom.reports import encode_report, parse_request, send_report
from edgemed.serve.dicom.store import NOT_AUTHORIZED, SUCCESS, Status
from edgemed.serve.journal.requests import WAITING, Instance, end_request, enter_request, requested
from edgemed.serve.journal.retention import promise, was_sent_on
from edgemed.serve.loops import Beat
from edgemed.serve.services import Services

log = logging.getLogger(__name__)

LOOP: Final = "dicom commitment"
NO_SUCH_ACTION: Final = 0x0123
NO_SUCH_INSTANCE: Final = 0x0112
INVALID_ARGUMENT: Final = 0x0115
PROCESSING_FAILURE: Final = 0x0110
CLASS_INSTANCE_CONFLICT: Final = 0x0119
RESOURCE_LIMITATION: Final = 0x0213

_REQUEST: Final = 1  # action type: request storage commitment
FIRST_NS, CAP_NS = 2 * SECOND, 600 * SECOND
GIVE_UP_NS: Final = 72 * 3600 * SECOND  # that the daemon ran; the peer has asked again long before
_EVERY_S: Final = 30.0
_LIMIT_NS: Final = 120 * SECOND  # of a step: an association with a peer that hangs

Key = tuple[str, str]  # transaction UID, peer


@dataclass
class _Try:
    """When a report is to be tried again."""

    due_ns: int = 0
    pause_ns: int = FIRST_NS


class Commitments:
    """Takes requests, and reports.

    Args:
        services: of the daemon.
        section: its inlet.
    """

    def __init__(self, services: Services, section: DicomSection) -> None:
        self._services = services
        self._section = section
        self._peers = {peer.ae_title: peer for peer in section.peers}
        self._lock = threading.Lock()
        self._open: dict[str, list[Association]] = defaultdict(list)
        self._tries: dict[Key, _Try] = defaultdict(_Try)
        self._away_ns: dict[str, int] = {}  # by peer: until when none of its reports is tried, for one was in vain
        self._ages = Ages(services.journal, "commitment", GIVE_UP_NS)

    def start(self) -> None:
        self._services.loops.start(LOOP, self._run, limit_ns=_LIMIT_NS)

    def opened(self, peer: str, association: Association) -> None:
        """A peer has an association on which reports may go."""
        with self._lock:
            self._open[peer] = [other for other in self._open[peer] if other.is_open] + [association]
        for (_, of), attempt in list(self._tries.items()):
            if of == peer and peer in self._peers and self._peers[peer].port is None:
                attempt.due_ns = 0
        self._services.loops.wake(LOOP)

    def take(self, asked: Asked) -> Status:
        """Answer an N-ACTION: success means that the request is in the journal."""
        command = asked.command
        if not asked.guest.may_commit:
            return Status(NOT_AUTHORIZED, "It may not ask for storage commitment.")
        if command.kind != _REQUEST:
            return Status(NO_SUCH_ACTION)
        if command.sop_instance != COMMITMENT_INSTANCE:
            return Status(NO_SUCH_INSTANCE)
        try:
            transaction, instances = parse_request(asked.data, asked.context.syntax)
        except ValueError as error:
            return Status(INVALID_ARGUMENT, str(error))
        peer = asked.guest.ae_title
        address, at = asked.association.address, stamp()
        try:
            taken = self._services.journal.write(
                lambda connection: enter_request(connection, transaction, peer, address, instances, at)
            )
        except EdgemedError as error:
            return Status(PROCESSING_FAILURE, error.what)
        if not taken:
            self._services.alarms.raise_(
                "commitment-failed", f"{peer} does not take reports of storage commitment: too many wait for it.", peer
            )
            return Status(RESOURCE_LIMITATION, "Too many of its requests are not reported on.")
        self._tries[transaction, peer] = _Try()
        self._services.loops.wake(LOOP)
        return Status(SUCCESS)

    def _run(self, beat: Beat) -> None:
        pause = 0.0
        while beat.wait(pause):
            self._give_up(self._ages.count())
            due_ns = [self._look(row, beat) for row in self._waiting()]
            pause = min([_EVERY_S, *((each - time.monotonic_ns()) / SECOND for each in due_ns)])

    def _waiting(self) -> list[sqlite3.Row]:
        """Requests that are not reported on."""
        with self._services.journal.read() as connection:
            return connection.execute(WAITING).fetchall()

    def _give_up(self, before: int) -> None:
        """Requests that are older than an event, and that nobody wants to hear of; somebody has to look."""
        if not before:  # nothing is that old; those of a journal that was made anew have no event
            return
        for row in self._waiting():
            if row["event"] > before:
                break
            self._services.alarms.raise_(
                "commitment-failed", f"{row['peer']} does not take the report of a storage commitment.", row["peer"]
            )
            self._enter_report(row, "")

    def _look(self, row: sqlite3.Row, beat: Beat) -> int:
        """Report on one where its time has come; when to look again."""
        key = row["transaction_uid"], row["peer"]
        attempt = self._tries[key]
        if time.monotonic_ns() < attempt.due_ns:
            return attempt.due_ns
        with self._services.journal.read() as connection:
            instances = requested(connection, row)
        if instances is None:  # nobody can report on it, and those behind it wait
            text = f"A storage commitment that {row['peer']} asks for cannot be read in the journal, and is given up."
            self._services.alarms.raise_("commitment-failed", text, f"request of {row['peer']}")
            self._enter_report(row, "")
        if not instances:
            return time.monotonic_ns() + FIRST_NS
        is_new, away = attempt.pause_ns == FIRST_NS, time.monotonic_ns() < self._away_ns.get(row["peer"], 0)
        try:
            if self._reaches(row["peer"]) and (is_new or not away):  # what is new is promised, whoever is away
                failed = self._judge(instances, beat)  # anew each time: a report is about now
                if not away:
                    self._report(row, instances, failed)
        except EdgemedError as error:
            log.error("a storage commitment cannot be promised: %s", error.what)
        attempt.due_ns = time.monotonic_ns() + attempt.pause_ns
        attempt.pause_ns = min(2 * attempt.pause_ns, CAP_NS)
        beat()
        return attempt.due_ns

    def _reaches(self, name: str) -> bool:
        """Whether there is a way to bring a report now; a peer may have been taken out of the configuration."""
        peer = self._peers.get(name)
        return peer is not None and (peer.port is not None or any(each.is_open for each in self._open[name]))

    def _report(self, row: sqlite3.Row, instances: list[Instance], failed: list[tuple[Instance, int]]) -> None:
        transaction, name = row["transaction_uid"], row["peer"]
        peer = self._peers[name]
        event_type = 2 if failed else 1
        encode = partial(encode_report, transaction, instances, failed)
        answered = partial(self._answered, row)
        if peer.port is None:
            self._report_here(name, Report(COMMITMENT_INSTANCE, event_type, encode, answered))
            return
        try:
            status = send_report(self._section, peer, row["address"], event_type, encode)
        except EdgemedError as error:
            log.error("a report of a storage commitment could not be sent: %s", error.what)
            return
        if status is None:
            log.warning("%s does not take the report of a storage commitment; it is tried again", name)
            # its others would wait as long in vain, and those of other peers behind them
            self._away_ns[name] = time.monotonic_ns() + self._tries[transaction, name].pause_ns
        else:
            self._away_ns.pop(name, None)
            answered(status)

    def _report_here(self, peer: str, report: Report) -> None:
        """On the newest open association of the peer."""
        for association in reversed(self._open[peer]):
            if association.report(report):
                return

    def _answered(self, row: sqlite3.Row, status: int) -> None:
        """The peer has taken a report; else it is tried again, as long as one is."""
        if status != SUCCESS:
            log.warning("%s answers the report of a storage commitment with status 0x%04X", row["peer"], status)
            return

        self._enter_report(row, stamp())
        self._services.alarms.clear("commitment-failed", row["peer"])

    def _enter_report(self, row: sqlite3.Row, at: str) -> None:
        with suppress(EdgemedError):  # then it is reported twice
            self._services.journal.write(partial(end_request, row=row, at=at))
        self._tries.pop((row["transaction_uid"], row["peer"]), None)

    def _judge(self, instances: list[Instance], step: Callable[[], None]) -> list[tuple[Instance, int]]:
        """What is not committed, and the failure reason (PS3.3 section C.14.1.1). The rest is promised from here on."""
        failed, good = [], []
        self._services.journal.settle()  # what was accepted does not stand as arriving any more
        for instance in instances:
            reason = self._why_not(instance, step)
            if reason is not None:
                failed.append((instance, reason))
            else:
                good.append(instance)
            step()
        gone = set(self._services.journal.write(partial(promise, instances=[uid for _, uid in good])))
        return failed + [(instance, NO_SUCH_INSTANCE) for instance in good if instance[1] in gone]

    def _why_not(self, instance: Instance, step: Callable[[], None]) -> int | None:
        sop_class, uid = instance
        with self._services.journal.read() as connection:
            row = connection.execute(
                "SELECT sop_class, sha256, path FROM object WHERE sop_instance = ?"
                " AND state NOT IN ('refused', 'arriving')",
                (uid,),
            ).fetchone()
            sent_on = was_sent_on(connection, uid)
        if row is None:
            return NO_SUCH_INSTANCE
        if row["sop_class"] != sop_class:
            return CLASS_INSTANCE_CONFLICT
        if sent_on:
            return None
        if not row["path"]:
            return NO_SUCH_INSTANCE
        try:
            with self._services.spool.path(row["path"]).open("rb") as file:
                intact = hash_dataset(file, read_meta(file).offset, step) == row["sha256"]
        except (OSError, EdgemedError):
            intact = False
        return None if intact else PROCESSING_FAILURE
