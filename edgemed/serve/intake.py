"""The one door for what is kept: an inlet writes a file into `incoming`, and `accept` says what to tell the sender."""

from __future__ import annotations

import errno
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from edgemed.base.errors import EdgemedError, ResourceError, from_os_error
from edgemed.serve.alarms import Alarms
from edgemed.serve.config.daemon import SpoolSection
from edgemed.serve.digest import digest_of
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.records import NewObject, add_object, move_object, vanish
from edgemed.serve.journal.returns import bring_back
from edgemed.serve.metrics import Metrics
from edgemed.serve.spool import Spool
from edgemed.serve.states import Event, State

if TYPE_CHECKING:
    from edgemed.imaging.dicom.describe import Described

log = logging.getLogger(__name__)

Verdict = Literal["accepted", "repeated", "conflict", "full", "failed"]

_TURNS: Final = 1024
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_NOTED: Final = ("inlet", "peer", "called", "address")
GOING: Final = "Its earlier file is being deleted at this moment."
CONFLICT: Final = "The same SOP Instance UID came before with other content."


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
        address: of the peer.
        first_ns: `time.monotonic_ns` of its first byte.
        described: what it says of itself, where that was seen on the way.
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
    address: str = ""
    study: str = ""
    series: str = ""
    first_ns: int = field(default_factory=time.monotonic_ns)
    described: Described | None = None


@dataclass(frozen=True)
class Outcome:
    """What to tell the sender.

    Attributes:
        verdict: `accepted` and `repeated` are Success: the image is on the disk, or was and is delivered.
            `conflict`: another image under a UID that is known; it is in quarantine. `full`: not now, for the disk
            is full or fails; the same may come again. `failed`: a bug of ours; an alarm stands until its inlet brings
            what can be routed.
        reason: of what is no success, as a sentence.
        number: of the object in the journal.
    """

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
        self._turns = [threading.Lock() for _ in range(_TURNS)]  # by UID: two of the same come one after the other
        self.on_accepted: list[Callable[[int, Arrival], None]] = []
        self.on_repeated: list[Callable[[Arrival], None]] = []
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

    def not_written(self, error: OSError) -> str:
        """The disk did not take a piece of what comes: raise the alarm. Returns a sentence for the sender."""
        full = error.errno in _FULL
        what = "The disk is full." if full else from_os_error(OSError(error.errno, error.strerror)).what
        self._alarms.raise_("disk-full" if full else "disk-failed", f"An input could not be kept: {what}")
        return what

    def accept(self, arrival: Arrival) -> Outcome:
        """Take a file. When it says success, bytes, name and journal row are on the disk. It never raises."""
        try:
            outcome = self._accept(arrival)
        except EdgemedError as error:
            outcome = self._not_taken(arrival, error)
        except Exception as error:  # the sender has to be told; it keeps the image
            log.exception("an input could not be taken")
            with suppress(OSError):
                arrival.file.unlink(missing_ok=True)
            what = f"{type(error).__name__} inside edgemed."
            self._alarms.raise_("input-failed", f"An input could not be taken: {what} See the log.", arrival.inlet)
            outcome = Outcome("failed", what)
        self._metrics.objects.labels(arrival.inlet, outcome.verdict).inc()
        if outcome.verdict == "accepted" and outcome.number is not None:
            self._tell(outcome.number, arrival)
        if outcome.verdict == "repeated":
            for listener in self.on_repeated:
                listener(arrival)
        return outcome

    def _accept(self, arrival: Arrival) -> Outcome:
        with self._turns[hash(arrival.sop_instance) % _TURNS]:
            known = self._known(arrival.sop_instance)
            if known is not None:
                return self._again(arrival, arrival.file, known)
            return self._keep(arrival)

    def _keep(self, arrival: Arrival) -> Outcome:
        """Bring file and row to the disk, at the same time: neither waits for the other's sync, the sender for both."""
        # the content is part of the name: of two senders of one UID, neither writes over the other's file. It stays
        # there whatever happens now: another sender's row may be about it, or a row that the journal could not sync
        # may come back after a restart. What has no row is taken in at the next start.
        name = name_of(arrival.sop_instance, arrival.sha256)
        new = _new(arrival, self._spool.place_of(name))
        entered = self._journal.submit(lambda connection: add_object(connection, new, State.ARRIVING))
        try:
            self._spool.keep(arrival.file, name, _note(arrival))
        except BaseException:
            self._vanish(entered)
            raise
        number = entered.result()
        self._journal.along(lambda connection: move_object(connection, number, Event.KEEP))
        self._clear()
        return Outcome("accepted", number=number)

    def _vanish(self, entered: Future[int]) -> None:
        """The file of a row is not on the disk, or not known to be; where that cannot be entered, a start finds it."""
        with suppress(Exception):  # the row is not there either
            number = entered.result()
            self._journal.along(lambda connection: vanish(connection, number))

    def _known(self, sop_instance: str) -> sqlite3.Row | None:
        """The object with that UID that was taken before. In its turn: none of that UID is arriving any more."""
        row = self._row(sop_instance)
        if row is not None and row["state"] == State.ARRIVING.value:
            self._journal.settle()  # it was kept, or was not: that may still be to be entered
            row = self._row(sop_instance)
        return row

    def _row(self, sop_instance: str) -> sqlite3.Row | None:
        with self._journal.read() as connection:
            row: sqlite3.Row | None = connection.execute(
                "SELECT id, sha256, path, state FROM object WHERE sop_instance = ? AND state <> 'refused'",
                (sop_instance,),
            ).fetchone()
        return row

    def _again(self, arrival: Arrival, file: Path, known: sqlite3.Row) -> Outcome:
        """The UID is known: the very same image, or another one under its name."""
        number: int = known["id"]
        ours = self._spool.path(known["path"]) if known["path"] else None  # None: it has had its end, and its time
        name = name_of(arrival.sop_instance, arrival.sha256)
        same = arrival.sha256 == known["sha256"] or known["path"] == self._spool.place_of(name)
        if same and (known["state"] != "delivered" if ours is None else not _is_whole(ours, arrival)):
            return self._bring_back(arrival, file, known)
        if same or _says_the_same(arrival, ours, file):
            if file != ours:
                file.unlink(missing_ok=True)
            with suppress(EdgemedError):  # that it came is worth a number, no more
                self._journal.submit(lambda connection: _repeat(connection, number))
            return Outcome("repeated", number=number)
        with suppress(FileNotFoundError):  # two of the same at once: the other one has brought it there
            relative = self._spool.put_aside(file, name)
            self._journal.write(lambda connection: _conflict(connection, _new(arrival, relative)))
        self._alarms.raise_("input-conflict", CONFLICT, arrival.peer or arrival.inlet)
        return Outcome("conflict", CONFLICT, number)

    def _bring_back(self, arrival: Arrival, file: Path, known: sqlite3.Row) -> Outcome:
        """The disk has lost or changed what was taken, or it has had its time; the sender has brought it again."""
        number, name = known["id"], name_of(arrival.sop_instance, arrival.sha256)
        if self._is_going(self._spool.place_of(name)):
            file.unlink(missing_ok=True)
            return Outcome("full", GOING)
        log.warning("the file of object %d was damaged or deleted; the same came again, and takes its place", number)
        new = _new(arrival, self._spool.keep(file, name, _note(arrival)))
        to_route = self._journal.write(lambda connection: bring_back(connection, number, known["path"], new))
        if to_route is None:
            return Outcome("full", GOING)
        if to_route:
            self._tell(number, arrival)
        return Outcome("repeated", number=number)

    def _is_going(self, relative: str) -> bool:
        """Whether a path is being deleted: what is brought there now would be, too."""
        with self._journal.read() as connection:
            return connection.execute("SELECT 1 FROM deletion WHERE path = ?", (relative,)).fetchone() is not None

    def _not_taken(self, arrival: Arrival, error: EdgemedError) -> Outcome:
        with suppress(OSError):
            arrival.file.unlink(missing_ok=True)
        code = "disk-full" if _is_full(error) else "disk-failed"
        self._alarms.raise_(code, f"An input could not be kept: {error.what}")
        return Outcome("full", error.what)

    def _clear(self) -> None:
        """An input was kept: what stood against it is over."""
        if self._alarms.stands("disk-failed"):
            self._alarms.clear("disk-failed")
        if self._alarms.stands("disk-full") and self._spool.free_bytes >= self._config.reserve_bytes:
            self._alarms.clear("disk-full")

    def _tell(self, number: int, arrival: Arrival) -> None:
        for listener in self.on_accepted:
            try:
                listener(number, arrival)
            except Exception:  # noqa: PERF203 - it is in the journal: whoever missed it finds it there
                log.exception("a part could not be told of an input")

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


def _is_whole(ours: Path, arrival: Arrival) -> bool:
    try:
        return digest_of(ours, dicom=bool(arrival.sop_class)) == arrival.sha256
    except OSError:
        return False


def _says_the_same(arrival: Arrival, ours: Path | None, file: Path) -> bool:
    """Whether it is the same image in another transfer syntax, or with other padding."""
    if ours is None or not arrival.sop_class:
        return False
    from edgemed.imaging.dicom.same import same_object

    return same_object(ours, file)


def name_of(sop_instance: str, sha256: str) -> str:
    """The name under which an object is kept: it says what the file must hold."""
    return f"{sop_instance} {sha256}"


def read_note(text: str) -> dict[str, str]:
    """Who sent a file, as it was noted beside its bytes; empty where there is no such note."""
    try:
        values = map(str, json.loads(text))
        return dict(zip(_NOTED, values, strict=True))
    except (ValueError, TypeError):
        return {}


def _note(arrival: Arrival) -> str:
    return json.dumps([getattr(arrival, name) for name in _NOTED], separators=(",", ":"))


def _new(arrival: Arrival, path: str) -> NewObject:
    names = (name for name in NewObject.__dataclass_fields__ if name != "path")
    return NewObject(**{name: getattr(arrival, name) for name in names}, path=path)


def _repeat(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("UPDATE object SET repeats = repeats + 1 WHERE id = ?", (number,))


def _conflict(connection: sqlite3.Connection, new: NewObject) -> None:
    """Enter what is in quarantine; the same again is counted."""
    known = "SELECT id FROM object WHERE path = ? AND path <> '' AND state = 'refused'"  # as an index says it
    row = connection.execute(known, (new.path,)).fetchone()
    if row is None:
        add_object(connection, new, State.REFUSED, CONFLICT)
    else:
        _repeat(connection, row[0])


def _is_full(error: EdgemedError) -> bool:
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in _FULL
    return isinstance(cause, sqlite3.Error) and "is full" in str(cause)
