"""What the daemon finds in its spool when it starts, held against the journal: nothing that is there is passed over."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from edgemed.base.errors import EdgemedError
from edgemed.base.hashing import sha256_file
from edgemed.base.store import fsync_path
from edgemed.serve.alarms import Alarms
from edgemed.serve.deletion import finish_deletions
from edgemed.serve.digest import digest_of
from edgemed.serve.intake import CONFLICT, name_of, read_note
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.records import NewObject, add_object, move_object, move_task, vanish
from edgemed.serve.journal.recovery import Damage
from edgemed.serve.spool import Spool
from edgemed.serve.states import Event, State

log = logging.getLogger(__name__)

_CHANGED: Final = "Its bytes are not those that came."
_UIDS: Final = {
    "sop_class": "SOPClassUID",
    "sop_instance": "SOPInstanceUID",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
}
_TOGETHER: Final = 256
_INTERRUPTED: Final = "The daemon ended under way."


@dataclass
class Found:
    """At a start.

    Attributes:
        adopted: files without a row, entered as received.
        changed: files whose bytes are not what their names say; entered as failed.
        conflicts: files with a UID of another content, brought to quarantine.
        swept: files that nobody needs: of results without a row, of objects whose time was over.
        interrupted: tasks that were being analysed.
        missing: objects that are open, and have no file.
        arrived: objects whose rows did not say yet that their files are there; they are.
        vanished: objects whose files did not come to the disk; nobody was told that they were taken.
    """

    adopted: int = 0
    changed: int = 0
    conflicts: int = 0
    swept: int = 0
    interrupted: int = 0
    missing: list[int] = field(default_factory=list)
    arrived: int = 0
    vanished: int = 0


def take_in(spool: Spool, journal: Journal, progress: Callable[[], object] = lambda: None) -> Found:
    """Make spool and journal agree. Nothing else may run yet.

    Args:
        spool: what is there.
        journal: what is known.
        progress: called for each file: a full spool takes minutes.

    Raises:
        EdgemedError: the disk or the journal does not take it.
    """
    found = Found()
    found.swept += finish_deletions(spool, journal)
    with journal.read() as connection:
        sql = "SELECT id, path, state, sha256, sop_class, sop_instance FROM object WHERE path <> ''"
        rows = connection.execute(sql).fetchall()
        results = {row[0] for row in connection.execute("SELECT path FROM result WHERE path <> ''")}
        going = {row[0] for row in connection.execute("SELECT path FROM deletion")}
        analysing = connection.execute("SELECT id FROM task WHERE state = ?", (State.ANALYSING.value,)).fetchall()
    known = {row["path"] for row in rows}
    there = {*spool.kept(), *spool.kept_aside()}
    adopter = _Adopter(spool, journal, found)
    for row in rows:
        if row["state"] == State.ARRIVING.value:
            adopter.decide(row)
    adopter.finish()
    for relative in sorted(there - known - going):
        adopter.adopt(relative)
        progress()
    adopter.finish()
    found.missing = [row["id"] for row in rows if row["state"] in ("received", "routed") and row["path"] not in there]
    for relative in set(spool.answered()) - results - going:
        spool.path(relative).unlink(missing_ok=True)
        found.swept += 1
    for row in analysing:
        journal.write(lambda c, task=row["id"]: move_task(c, task, Event.INTERRUPT, _INTERRUPTED))  # type: ignore[misc]
        found.interrupted += 1
    return found


def tell(found: Found, damage: Damage | None, spool: Spool, alarms: Alarms) -> None:
    """Log what was found, and raise the alarms that it takes."""
    log.info(
        "the spool was held against the journal: %d adopted, %d arrived, %d vanished, %d changed, %d conflicts,"
        " %d swept, %d interrupted",
        *(found.adopted, found.arrived, found.vanished, found.changed, found.conflicts, found.swept, found.interrupted),
    )
    if damage is not None:
        where = damage.folder.relative_to(spool.root)
        alarms.raise_("journal-damaged", f"{damage.reason} It was made anew from the spool; the old one is in {where}.")
    elif not any(spool.damaged.iterdir()):
        if alarms.stands("journal-damaged"):
            alarms.clear("journal-damaged")  # somebody has looked at it, and taken it away
    elif not alarms.stands("journal-damaged"):  # who made it anew was killed before he could say so
        alarms.raise_("journal-damaged", "A journal was damaged, and made anew from the spool; it is in damaged.")
    if found.changed:
        alarms.raise_("input-failed", f"{found.changed} files of the spool have other bytes than came.", "spool")
    if found.missing:
        alarms.raise_("input-failed", f"{len(found.missing)} objects that are open have no file.", "spool")
    if found.conflicts:
        alarms.raise_("input-conflict", CONFLICT, "spool")


class _Adopter:
    """Enters files without a row: their senders were told nothing, or the rows were lost with the journal.

    And decides on rows that were arriving: whether a sender was told that they are kept is not known, so what is there
    is kept.
    """

    def __init__(self, spool: Spool, journal: Journal, found: Found) -> None:
        self._spool, self._journal, self._found = spool, journal, found
        self._entering: dict[str, Future[Any]] = {}  # by SOP Instance UID; many share one commit

    def decide(self, row: sqlite3.Row) -> None:
        """One row that was arriving. A file comes to its place whole and synced: without one, nobody was told of it."""
        number, path = row["id"], self._spool.path(row["path"])
        if not path.exists():
            self._later(row["sop_instance"], lambda c: vanish(c, number))
            self._found.vanished += 1
            return
        _sync(path)
        if _is_whole(path, row):
            self._later(row["sop_instance"], lambda c: move_object(c, number, Event.KEEP))
            self._found.arrived += 1
            return
        self._later(row["sop_instance"], lambda c: _keep_failed(c, number))
        self._found.changed += 1

    def adopt(self, relative: str) -> None:
        """One file."""
        path = self._spool.path(relative)
        new, sound = _examine(self._spool, relative)
        row = self._known(new.sop_instance)
        if relative.startswith("quarantine/"):
            _sync(path)
            self._later(new.sop_instance, lambda c: add_object(c, new, State.REFUSED, CONFLICT))
            self._found.conflicts += 1
        elif row is not None and sound and self._is_the_same(row, new.sha256, path):
            path.unlink()  # housekeeping was about to: the row has no file any more, or another one that says the same
            self._found.swept += 1
        elif row is not None:
            aside = self._spool.put_aside(path, name_of(new.sop_instance, new.sha256))
            refused = replace(new, path=aside)
            self._later(new.sop_instance, lambda c: add_object(c, refused, State.REFUSED, CONFLICT))
            self._found.conflicts += 1
        elif sound:
            _sync(path)
            self._later(new.sop_instance, lambda c: add_object(c, new))
            self._found.adopted += 1
        else:
            _sync(path)
            self._later(new.sop_instance, lambda c: _enter_failed(c, new))
            self._found.changed += 1

    def finish(self) -> None:
        """Wait until all are on the disk."""
        for future in self._entering.values():
            future.result()
        self._entering.clear()

    def _later(self, sop_instance: str, work: Callable[[sqlite3.Connection], object]) -> None:
        if sop_instance in self._entering or len(self._entering) == _TOGETHER:
            self.finish()
        self._entering[sop_instance] = self._journal.submit(work)

    def _known(self, sop_instance: str) -> sqlite3.Row | None:
        if sop_instance in self._entering:
            self.finish()
        with self._journal.read() as connection:
            row: sqlite3.Row | None = connection.execute(
                "SELECT sha256, path FROM object WHERE sop_instance = ? AND state <> 'refused'", (sop_instance,)
            ).fetchone()
        return row

    def _is_the_same(self, row: sqlite3.Row, sha256: str, path: Path) -> bool:
        from edgemed.imaging.dicom.same import same_object

        return row["sha256"] == sha256 or (bool(row["path"]) and same_object(self._spool.path(row["path"]), path))


def _is_whole(path: Path, row: sqlite3.Row) -> bool:
    try:
        return bool(digest_of(path, dicom=bool(row["sop_class"])) == row["sha256"])
    except OSError:
        return False


def _sync(path: Path) -> None:
    """What a daemon that was killed had brought to its place, but not yet synced."""
    fsync_path(path)
    fsync_path(path.parent)


def _keep_failed(connection: sqlite3.Connection, number: int) -> None:
    move_object(connection, number, Event.KEEP)
    move_object(connection, number, Event.UNREADABLE, _CHANGED)


def _enter_failed(connection: sqlite3.Connection, new: NewObject) -> None:
    number = add_object(connection, new)
    move_object(connection, number, Event.UNREADABLE, _CHANGED)


def _examine(spool: Spool, relative: str) -> tuple[NewObject, bool]:
    """What a file is, and whether its bytes are those that its name was made of."""
    path = spool.path(relative)
    whole = sha256_file(path)
    candidates = [*_as_dicom(path), {"sop_class": "", "sop_instance": f"file:{whole}", "sha256": whole}]
    named = [one for one in candidates if Spool.place_of(name_of(one["sop_instance"], one["sha256"])) == relative]
    fields = (named or candidates)[0]
    note = {"inlet": "", "peer": ""} | read_note(Spool.note_of(path))
    new = NewObject(**(note | fields), size=path.stat().st_size, path=relative)
    return new, bool(named) or relative.startswith("quarantine/")


def _as_dicom(path: Path) -> list[dict[str, str]]:
    """Who the file says that it is, by its data set and by the header of the file."""
    from edgemed.imaging.dicom.header import read_header
    from edgemed.imaging.dicom.part10 import hash_dataset, read_meta
    from edgemed.imaging.dicom.values import text

    said: list[dict[str, str]] = []
    with suppress(EdgemedError):
        with path.open("rb") as file:
            meta = read_meta(file)
            common = {"sha256": hash_dataset(file, meta.offset), "syntax": meta.syntax}
        if meta.sop_instance:
            said.append({"sop_class": meta.sop_class, "sop_instance": meta.sop_instance, **common})
        dataset = read_header(path).dataset
        uids = {name: text(dataset, keyword) or "" for name, keyword in _UIDS.items()}
        if uids["sop_instance"]:
            said.insert(0, {**uids, **common})
    return said
