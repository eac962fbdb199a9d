"""What the daemon finds in its spool when it starts, held against the journal: nothing that is there is passed over."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgemed.base.errors import EdgemedError
from edgemed.base.hashing import sha256_file
from edgemed.base.store import fsync_path
from edgemed.serve.alarms import Alarms
from edgemed.serve.deletion import finish_deletions
from edgemed.serve.intake import CONFLICT, name_of, read_note
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.records import NewObject, add_object, move_object, move_task
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
    """

    adopted: int = 0
    changed: int = 0
    conflicts: int = 0
    swept: int = 0
    interrupted: int = 0
    missing: list[int] = field(default_factory=list)


def take_in(spool: Spool, journal: Journal) -> Found:
    """Make spool and journal agree. Nothing else may run yet.

    Raises:
        EdgemedError: the disk or the journal does not take it.
    """
    found = Found()
    found.swept += finish_deletions(spool, journal)
    with journal.read() as connection:
        rows = connection.execute("SELECT id, path, state FROM object WHERE path <> ''").fetchall()
        results = {row[0] for row in connection.execute("SELECT path FROM result")}
        going = {row[0] for row in connection.execute("SELECT path FROM deletion")}
        analysing = connection.execute("SELECT id FROM task WHERE state = ?", (State.ANALYSING.value,)).fetchall()
    known = {row["path"] for row in rows}
    there = {*spool.kept(), *spool.kept_aside()}
    for relative in sorted(there - known - going):
        _adopt(spool, journal, relative, found)
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
        "the spool was held against the journal: %d adopted, %d changed, %d conflicts, %d swept, %d interrupted",
        *(found.adopted, found.changed, found.conflicts, found.swept, found.interrupted),
    )
    if damage is not None:
        where = damage.folder.relative_to(spool.root)
        alarms.raise_("journal-damaged", f"{damage.reason} It was made anew from the spool; the old one is in {where}.")
    elif alarms.stands("journal-damaged") and not any(spool.damaged.iterdir()):
        alarms.clear("journal-damaged")  # somebody has looked at it, and taken it away
    if found.changed:
        alarms.raise_("input-failed", f"{found.changed} files of the spool have other bytes than came.", "spool")
    if found.missing:
        alarms.raise_("input-failed", f"{len(found.missing)} objects that are open have no file.", "spool")
    if found.conflicts:
        alarms.raise_("input-conflict", CONFLICT, "spool")


def _adopt(spool: Spool, journal: Journal, relative: str, found: Found) -> None:
    """A file without a row: its sender was told nothing, or the row was lost with the journal."""
    path = spool.path(relative)
    new, sound = _examine(spool, relative)
    with journal.read() as connection:
        row = connection.execute(
            "SELECT sha256, path FROM object WHERE sop_instance = ? AND state <> 'refused'", (new.sop_instance,)
        ).fetchone()
    if relative.startswith("quarantine/"):
        journal.write(lambda c: add_object(c, new, State.REFUSED, CONFLICT))
        found.conflicts += 1
    elif row is not None and sound and row["sha256"] == new.sha256:
        path.unlink()  # housekeeping was about to: the row has no file any more, or another one of the same bytes
        found.swept += 1
    elif row is not None:
        aside = spool.put_aside(path, name_of(new.sop_instance, new.sha256))
        refused = NewObject(**{**new.__dict__, "path": aside})
        journal.write(lambda c: add_object(c, refused, State.REFUSED, CONFLICT))
        found.conflicts += 1
    elif sound:
        fsync_path(path)
        fsync_path(path.parent)
        journal.write(lambda c: add_object(c, new))
        found.adopted += 1
    else:
        journal.write(lambda c: _enter_failed(c, new))
        found.changed += 1


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
    note = {"inlet": "", "peer": "", "called": ""} | read_note(Spool.note_of(path))
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
