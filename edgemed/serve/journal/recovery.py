"""Opens the journal, whatever became of it: one that is damaged is moved aside, kept, and made anew."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgemed.base.errors import EdgemedError, IntegrityError, from_os_error
from edgemed.base.store import fsync_path, write_atomic
from edgemed.serve.clock import stamp
from edgemed.serve.journal.database import Journal, OtherVersion, connect, log_of
from edgemed.serve.journal.facts import forget_numbers
from edgemed.serve.spool import Spool

log = logging.getLogger(__name__)

JOURNAL: Final = "journal.sqlite3"
_MARK: Final = "journal.damaged"
_SUFFIXES: Final = ("", "-wal", "-shm")
# what the spool cannot tell: promises to peers, which version answers, what somebody is still to see
_SALVAGED: Final = ("commitment", "promise", "step", "step_series", "step_image", "release", "fact", "alarm")


@dataclass(frozen=True)
class Damage:
    """Of a journal that was moved aside.

    Attributes:
        reason: as a sentence.
        folder: where it lies now.
    """

    reason: str
    folder: Path


@contextmanager
def opened_journal(spool: Spool) -> Iterator[tuple[Journal, Damage | None]]:
    """The journal of a state, entered; and what was wrong with the one that was there.

    While it runs, the first damage that SQLite finds is marked on the disk, so that the next start acts on it.

    Raises:
        OtherVersion: another edgemed made it.
        ResourceError: the disk is full, or may not be written.
    """
    path = spool.root / JOURNAL
    damage = None
    reason = _marked(spool) or _lost(spool)
    if reason is None:
        try:
            journal = Journal(path).__enter__()
        except OtherVersion:
            raise
        except IntegrityError as error:
            reason = error.what
    if reason is not None:
        damage = _move_aside(spool, reason)
        journal = Journal(path).__enter__()
        _salvage(journal, damage.folder / JOURNAL)
        _mark_path(spool).unlink(missing_ok=True)
    journal.on_damage = lambda error: mark(spool, error)
    with closing(journal):
        yield journal, damage


def mark(spool: Spool, error: IntegrityError) -> None:
    """Remember beyond the end of this process that the journal is damaged."""
    with suppress(EdgemedError, OSError):  # where that cannot be written, the next start finds the damage by itself
        if not _mark_path(spool).exists():
            write_atomic(_mark_path(spool), json.dumps({"at": stamp(), "reason": error.what}).encode())


def _mark_path(spool: Spool) -> Path:
    return spool.root / _MARK


def _marked(spool: Spool) -> str | None:
    try:
        return str(json.loads(_mark_path(spool).read_bytes())["reason"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "The journal was found to be damaged."


def _lost(spool: Spool) -> str | None:
    """A journal is made before the first object is kept: objects without one have lost theirs."""
    path = spool.root / JOURNAL
    empty = not path.exists() or (path.stat().st_size == 0 and not log_of(path).exists())
    if empty and next(spool.kept(), None) is not None:
        return "The journal was lost: its file is gone or empty."
    return None


def _move_aside(spool: Spool, reason: str) -> Damage:
    """Keep the journal, and the results that only it knew; all of them are made again, with the same UIDs."""
    log.error("%s It is moved aside, and made anew from the spool.", reason)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{stamp().replace(':', '')}-", dir=spool.damaged))
        fsync_path(spool.damaged)
        # the log goes last: without its file it is nothing, the file without it would be an older journal
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError):
                os.replace(spool.root / f"{JOURNAL}{suffix}", folder / f"{JOURNAL}{suffix}")  # noqa: PTH105
        os.replace(spool.results, folder / "results")  # noqa: PTH105
        fsync_path(folder)
        fsync_path(spool.root)
    except OSError as error:
        raise from_os_error(error, spool.damaged) from error
    spool.prepare()
    return Damage(reason, folder)


def _salvage(journal: Journal, damaged: Path) -> None:
    """Take over what can still be read of small tables; a copy is read, the damaged file stays as it was."""
    copy = damaged.with_name("copy.sqlite3")
    try:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(damaged.with_name(f"{damaged.name}{suffix}"), copy.with_name(f"{copy.name}{suffix}"))
        with closing(connect(copy)) as old:
            for table in _SALVAGED:
                with suppress(sqlite3.Error, EdgemedError):
                    rows = [tuple(row) for row in old.execute(f"SELECT * FROM {table}")]  # noqa: S608 - ours
                    journal.write(lambda new, table=table, rows=rows: _insert(new, table, rows))  # type: ignore[misc]
        journal.write(forget_numbers)
    except (OSError, sqlite3.Error, EdgemedError):
        log.warning("nothing could be read of the damaged journal")
    finally:
        for suffix in _SUFFIXES:
            copy.with_name(f"{copy.name}{suffix}").unlink(missing_ok=True)


def _insert(connection: sqlite3.Connection, table: str, rows: list[tuple[object, ...]]) -> None:
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)  # noqa: S608 - a table of ours
