"""A state without models: what stands between the network and the disk, for tests of both."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgemed.base.hashing import sha256_bytes
from edgemed.serve.adoption import Found, take_in, tell
from edgemed.serve.alarms import Alarms
from edgemed.serve.config.daemon import SpoolSection
from edgemed.serve.intake import Arrival, Intake
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.records import NewResult, add_results, finish_if_delivered, move_object, move_task, open_task
from edgemed.serve.journal.recovery import Damage, opened_journal
from edgemed.serve.metrics import Metrics
from edgemed.serve.spool import Spool
from edgemed.serve.states import Event
from tests.waiting import wait_for


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of folders are made and synced for each fresh state.

    For tests that start often and never lose power.
    """
    base = Path("/dev/shm")
    with TemporaryDirectory(prefix="edgemed.", dir=base if os.access(base, os.W_OK) else None) as folder:
        yield Path(folder).resolve()


def fails_in(folder: str) -> Callable[[int, Any], int]:
    """`os.write` of a disk that fails below a folder of that name."""
    write = os.write

    def fail(fd: int, data: Any) -> int:
        if folder in Path(f"/proc/self/fd/{fd}").readlink().parts:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(fd, data)

    return fail


class Disk:
    """Spool, journal and intake, opened as the daemon does."""

    def __init__(self, spool: Spool, journal: Journal, found: Found, damage: Damage | None) -> None:
        self.spool, self.journal, self.found, self.damage = spool, journal, found, damage
        self.alarms = Alarms(journal)
        self.alarms.load()
        tell(found, damage, spool, self.alarms)
        section = SpoolSection.model_validate({"reserve": "1MiB", "warn": "2MiB"})
        self.intake = Intake(section, spool, journal, self.alarms, Metrics())

    def send(self, data: bytes, *, peer: str = "CT1") -> Any:
        """As an inlet does: the data set after the meta header is hashed."""
        file = self.intake.new_file()
        file.write_bytes(data)
        return self.intake.accept(arrival(file, data, peer))

    def routed(self, number: int, model: str = "chest") -> int:
        """A task for an object, queued."""

        def work(connection: Any) -> int:
            task = open_task(connection, model, "instance", f"object {number}", [number])
            move_task(connection, task, Event.COMPLETE)
            move_object(connection, number, Event.ROUTE)
            return task

        return self.journal.write(work)

    def answered(self, task: int, destinations: tuple[str, ...] = ("pacs",), name: str = "sr.dcm") -> None:
        """The task has a result, which is to be delivered."""
        data = b"a result"
        path = self.spool.write_result(task, name, data)
        new = NewResult("sr", path, sha256_bytes(data), len(data))

        def work(connection: Any) -> None:
            move_task(connection, task, Event.START)
            add_results(connection, task, [new], dict.fromkeys(destinations, ("sr",)))
            move_task(connection, task, Event.ANSWER)
            finish_if_delivered(connection, task)

        self.journal.write(work)

    def rows(self, sql: str = "SELECT * FROM object ORDER BY id") -> list[dict[str, Any]]:
        self.journal.settle()
        return [dict(row) for row in rows(self.journal, sql)]


def rows(journal: Journal, sql: str = "SELECT * FROM object ORDER BY id", *values: Any) -> list[sqlite3.Row]:
    """What the journal says."""
    with journal.read() as connection:
        return connection.execute(sql, values).fetchall()


def wait_routed(journal: Journal) -> None:
    """Until all that was accepted has been routed."""
    wait_for(lambda: not rows(journal, "SELECT 1 FROM object WHERE state IN ('arriving', 'received')"), "routing")


def arrival(
    file: Path,
    data: bytes,
    peer: str = "CT1",
    *,
    inlet: str = "dicom",
    called: str = "EDGEMED",
    association: str = "",
) -> Arrival:
    """A file as an inlet hands it over."""
    from edgemed.imaging.dicom.part10 import hash_dataset, read_meta

    with file.open("rb") as opened:
        meta = read_meta(opened)
        sha = hash_dataset(opened, meta.offset)
    uids, size = (meta.sop_class, meta.sop_instance), len(data)
    return Arrival(file, inlet, peer, *uids, sha, size, syntax=meta.syntax, called=called, association=association)


@contextmanager
def disk(root: Path) -> Iterator[Disk]:
    """Start on a state, and end."""
    spool = Spool(root)
    spool.make_root()
    spool.prepare()
    with opened_journal(spool) as (journal, damage):
        yield Disk(spool, journal, take_in(spool, journal), damage)
