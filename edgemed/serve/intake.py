"""The one door for what is kept: an inlet writes a file into `incoming`, and `accept` says what to tell the sender."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from edgemed.base.errors import EdgemedError, ResourceError
from edgemed.serve.alarms import Alarms
from edgemed.serve.config import SpoolSection
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.records import NewObject, add_object
from edgemed.serve.metrics import Metrics
from edgemed.serve.spool import Spool
from edgemed.serve.states import State

log = logging.getLogger(__name__)

Verdict = Literal["accepted", "repeated", "conflict", "full", "failed"]


@dataclass(frozen=True)
class Arrival:
    """A file in `incoming` that an inlet has written and closed.

    Attributes:
        file: of which nothing needs to be synced yet.
        inlet: 'dicom', 'stow', or the name of a folder.
        peer: calling AE title, or name of the token.
        sop_class: SOP Class UID; '' where it is no DICOM.
        sop_instance: SOP Instance UID; of other files, a name made of their content.
        sha256: of the data set as it was sent; of other files, of all bytes.
        size: of the file.
        syntax: Transfer Syntax UID.
        called: AE title that was called.
        association: of a name that no other connection has.
        first_ns: `time.monotonic_ns` of its first byte.
    """

    file: Path
    inlet: str
    peer: str
    sop_class: str
    sop_instance: str
    sha256: str
    size: int
    syntax: str = ""
    called: str = ""
    association: str = ""
    study: str = ""
    series: str = ""
    first_ns: int = field(default_factory=time.monotonic_ns)


@dataclass(frozen=True)
class Outcome:
    """What to tell the sender: `accepted` and `repeated` are Success, and the image is on the disk."""

    verdict: Verdict
    reason: str = ""
    number: int | None = None

    @property
    def success(self) -> bool:
        return self.verdict in ("accepted", "repeated")


class Intake:
    """Accepts files, durably."""

    def __init__(self, config: SpoolSection, spool: Spool, journal: Journal, alarms: Alarms, metrics: Metrics) -> None:
        self._config = config
        self._spool = spool
        self._journal = journal
        self._alarms = alarms
        self._metrics = metrics
        self.on_accepted: list[Callable[[int, Arrival], None]] = []
        self.on_association_ended: list[Callable[[str, bool], None]] = []

    def new_file(self) -> Path:
        """Where to write what comes.

        Raises:
            ResourceError: the disk is below its reserve: refuse before reading.
        """
        if self._spool.free_bytes < self._config.reserve_bytes:
            self._alarms.raise_("disk-full", "The disk is nearly full: inputs are refused.")
            raise ResourceError("The disk is nearly full.", "Free some space.")
        return self._spool.new()

    def accept(self, arrival: Arrival) -> Outcome:
        """Take a file. When it says success, bytes, name and journal row are on the disk."""
        outcome = self._accept(arrival)
        self._metrics.objects.labels(arrival.inlet, outcome.verdict).inc()
        if outcome.verdict == "accepted" and outcome.number is not None:
            for listener in self.on_accepted:
                listener(outcome.number, arrival)
        return outcome

    def _accept(self, arrival: Arrival) -> Outcome:
        try:
            known = self._known(arrival)
            if known is not None:
                return self._again(arrival, known)
            # the content is part of the name: of two senders of one UID, neither writes over the other's file
            relative = self._spool.keep(arrival.file, f"{arrival.sop_instance} {arrival.sha256}")
            try:
                number = self._journal.write(lambda connection: add_object(connection, _new(arrival, relative)))
            except sqlite3.IntegrityError:  # another association was quicker
                known = self._known(arrival)
                if known is None:
                    raise
                if known["path"] == relative:
                    return Outcome("repeated", number=known["id"])
                return self._again(replace(arrival, file=self._spool.path(relative)), known)
            except EdgemedError:
                self._spool.path(relative).unlink(missing_ok=True)
                raise
        except ResourceError as error:
            arrival.file.unlink(missing_ok=True)
            self._alarms.raise_("disk-full", f"An input could not be kept: {error.what}")
            return Outcome("full", error.what)
        except EdgemedError as error:
            arrival.file.unlink(missing_ok=True)
            return Outcome("failed", error.what)
        return Outcome("accepted", number=number)

    def _known(self, arrival: Arrival) -> sqlite3.Row | None:
        """The object with that UID that was taken before."""
        with self._journal.read() as connection:
            row: sqlite3.Row | None = connection.execute(
                "SELECT id, sha256, path FROM object WHERE sop_instance = ? AND state <> 'refused'",
                (arrival.sop_instance,),
            ).fetchone()
        return row

    def _again(self, arrival: Arrival, known: sqlite3.Row) -> Outcome:
        """The UID is known: the very same image, or another one under its name."""
        number: int = known["id"]
        if known["sha256"] == arrival.sha256:
            arrival.file.unlink(missing_ok=True)
            self._journal.write(
                lambda connection: connection.execute("UPDATE object SET repeats = repeats + 1 WHERE id = ?", (number,))
            )
            return Outcome("repeated", number=number)
        reason = "The same SOP Instance UID came before with other content."
        relative = self._spool.put_aside(arrival.file)
        self._journal.write(lambda connection: add_object(connection, _new(arrival, relative), State.REFUSED, reason))
        self._alarms.raise_("input-conflict", reason, arrival.peer or arrival.inlet)
        return Outcome("conflict", reason, number)

    def association_ended(self, association: str, *, released: bool) -> None:
        """A connection of a peer is over: what it brought may be complete.

        Args:
            association: as in the arrivals that came over it; all of them have been accepted.
            released: the peer said that it was done; else it was aborted, or the connection was lost.
        """
        for listener in self.on_association_ended:
            listener(association, released)

    def refuse(self, inlet: str, peer: str, sop_class: str, sop_instance: str, reason: str) -> None:
        """Enter what was not taken, and why; the sender is told by the inlet."""
        new = NewObject(inlet, peer, sop_class, sop_instance, sha256="", size=0, path="")

        def work(connection: sqlite3.Connection) -> int:
            return add_object(connection, new, State.REFUSED, reason)

        self._journal.write(work)


def _new(arrival: Arrival, path: str) -> NewObject:
    names = (name for name in NewObject.__dataclass_fields__ if name != "path")
    return NewObject(**{name: getattr(arrival, name) for name in names}, path=path)
