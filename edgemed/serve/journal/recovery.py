"""Opens the journal, whatever became of it: one that is damaged is moved aside, kept, and made anew."""

from __future__ import annotations

import errno
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

from edgemed.base.errors import EdgemedError, IntegrityError, ResourceError, from_os_error
from edgemed.base.store import fsync_path, write_atomic
from edgemed.serve.clock import stamp
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.facts import forget_numbers
from edgemed.serve.journal.file import OtherVersion, connect, log_of
from edgemed.serve.spool import Spool

log = logging.getLogger(__name__)

JOURNAL: Final = "journal.sqlite3"
_ANEW: Final = "journal.anew.sqlite3"
_MARK: Final = "journal.damaged"
_RESULTS: Final = "results"
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
        ResourceError: the disk is full, or may not be written; what the old journal promises is not lost by it.
    """
    path = spool.root / JOURNAL
    damage = _mend(spool, _marked(spool) or _lost(spool))
    try:
        journal = Journal(path).__enter__()
    except OtherVersion:
        raise
    except IntegrityError as error:
        damage = _mend(spool, _Mark(error.what))
        journal = Journal(path).__enter__()
    journal.on_damage = lambda error: mark(spool, error)
    with closing(journal):
        yield journal, damage


def mark(spool: Spool, error: IntegrityError) -> None:
    """Remember beyond the end of this process that the journal is damaged."""
    with suppress(EdgemedError, OSError):  # where that cannot be written, the next start finds the damage by itself
        if not _mark_path(spool).exists():
            _set_mark(spool, _Mark(error.what))


@dataclass(frozen=True)
class _Mark:
    """What stands in the mark: why, and where the journal is being moved to; '' before that."""

    reason: str
    folder: str = ""


def _mark_path(spool: Spool) -> Path:
    return spool.root / _MARK


def _set_mark(spool: Spool, noted: _Mark) -> None:
    write_atomic(_mark_path(spool), json.dumps({"at": stamp(), **vars(noted)}).encode())


def _marked(spool: Spool) -> _Mark | None:
    try:
        kept = json.loads(_mark_path(spool).read_bytes())
        return _Mark(str(kept["reason"]), str(kept.get("folder", "")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _Mark("The journal was found to be damaged.")


def _lost(spool: Spool) -> _Mark | None:
    """A journal is made before the first object is kept: objects without one have lost theirs."""
    path = spool.root / JOURNAL
    empty = not path.exists() or (path.stat().st_size == 0 and not log_of(path).exists())
    if empty and next(spool.kept(), None) is not None:
        return _Mark("The journal was lost: its file is gone or empty.")
    return None


def _mend(spool: Spool, noted: _Mark | None) -> Damage | None:
    """Move the journal aside, and make another one, whole before it has its name. A start goes on where one was killed.

    1. The mark says where the damaged one goes to.
    2. It goes there; then the results, so that results which are there say that it is.
    3. The new one gets what can be read of the old one, and then its name.
    4. The mark goes.
    """
    if noted is None:
        return None
    log.error("%s It is moved aside, and made anew from the spool.", noted.reason)
    try:
        folder = _folder(spool, noted)
        if not (folder / _RESULTS).exists():
            _move_aside(spool, folder)
            _make_anew(spool, folder)
        elif not (spool.root / JOURNAL).exists():
            _make_anew(spool, folder)
        _mark_path(spool).unlink(missing_ok=True)
        fsync_path(spool.root)
    except OSError as error:
        raise from_os_error(error, spool.damaged) from error
    spool.prepare()
    return Damage(noted.reason, folder)


def _folder(spool: Spool, noted: _Mark) -> Path:
    if noted.folder and (spool.damaged / noted.folder).is_dir():
        return spool.damaged / noted.folder
    folder = Path(tempfile.mkdtemp(prefix=f"{stamp().replace(':', '')}-", dir=spool.damaged))
    fsync_path(spool.damaged)
    try:
        _set_mark(spool, _Mark(noted.reason, folder.name))
    except EdgemedError:  # a full disk: each start would leave another one
        folder.rmdir()
        raise
    return folder


def _move_aside(spool: Spool, folder: Path) -> None:
    """Keep the journal, and the results that only it knew; all of them are made again, with the same UIDs."""
    # the log goes last: without its file it is nothing, the file without it would be an older journal
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            os.replace(spool.root / f"{JOURNAL}{suffix}", folder / f"{JOURNAL}{suffix}")  # noqa: PTH105
    for each in (folder, spool.root):
        fsync_path(each)
    os.replace(spool.results, folder / _RESULTS)  # noqa: PTH105
    for each in (folder, spool.root):
        fsync_path(each)


def _make_anew(spool: Spool, folder: Path) -> None:
    """Raises `ResourceError` where the disk does not take it: nothing that can be read is left out for that."""
    anew = spool.root / _ANEW
    _forget_files(anew)
    rows = _readable(folder / JOURNAL)
    with Journal(anew) as journal:
        journal.write(lambda connection: _take_over(connection, rows))
    fsync_path(anew)
    if log_of(anew).exists():  # what the file lacks would stay behind under this name
        raise ResourceError("The journal cannot be made anew: its log is not in it.", "Check the disk.")
    os.replace(anew, spool.root / JOURNAL)  # noqa: PTH105
    fsync_path(spool.root)


Rows = dict[str, list[sqlite3.Row]]
"""By their table."""


def _readable(damaged: Path) -> Rows:
    """What can still be read of small tables; a copy is read, the damaged file stays as it was."""
    copy = damaged.with_name("copy.sqlite3")
    found: Rows = {table: [] for table in _SALVAGED}
    try:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(damaged.with_name(f"{damaged.name}{suffix}"), copy.with_name(f"{copy.name}{suffix}"))
        with closing(connect(copy)) as old:
            old.execute("PRAGMA locking_mode=EXCLUSIVE")  # the index of its log stays in memory: it needs no space
            for table, rows in found.items():
                with suppress(sqlite3.Error):  # what stands before the damage is kept
                    for row in old.execute(f"SELECT * FROM {table}"):  # noqa: S608 - ours
                        rows.append(row)
    except OSError as error:
        if error.errno != errno.EIO:  # a full disk, say: it can be read as soon as there is space
            raise
        log.warning("nothing could be read of the damaged journal")
    finally:
        _forget_files(copy)
    return found


def _take_over(connection: sqlite3.Connection, found: Rows) -> None:
    for table, rows in found.items():
        columns = [each["name"] for each in connection.execute(f"PRAGMA table_info({table})")]
        sql = f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - ours
        for row in rows:
            if row.keys() == columns:  # else it was no journal of ours
                with suppress(sqlite3.IntegrityError):  # damaged, or of a row that is gone
                    connection.execute(sql, tuple(row))
    forget_numbers(connection)


def _forget_files(journal: Path) -> None:
    for suffix in _SUFFIXES:
        journal.with_name(f"{journal.name}{suffix}").unlink(missing_ok=True)
