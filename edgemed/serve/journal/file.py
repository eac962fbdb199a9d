"""The file of the journal: opened, made and known for ours, and what SQLite's errors about it mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, cast

from edgemed.base.errors import IntegrityError, ResourceError
from edgemed.base.store import fsync_path
from edgemed.serve.journal.schema import SCHEMA, VERSION

BUSY_MS: Final = 10_000
_APPLICATION_ID: Final = 0x65646D64  # 'edmd'


class OtherVersion(IntegrityError):
    """A journal of another version of edgemed: whole, and not to be moved aside."""


def log_of(path: Path) -> Path:
    """The WAL of a journal."""
    return path.with_name(f"{path.name}-wal")


def sync_log(path: Path) -> None:
    """What a daemon that was killed had written, but not yet synced, is about to be believed: sync it.

    Raises:
        ResourceError: the disk does not do it.
    """
    with suppress(FileNotFoundError):
        try:
            fsync_path(log_of(path))
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ResourceError(f"The journal cannot be read: {error.strerror}.", "Check the disk.") from error


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with rows by name and no transactions but those that are asked for."""
    mode = "ro" if read_only else "rwc"
    try:
        connection = sqlite3.connect(
            f"file:{_quoted(path)}?mode={mode}",
            uri=True,
            timeout=BUSY_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise translate(error) from error
    connection.row_factory = sqlite3.Row
    return connection


@contextmanager
def beside(path: Path, *, read_only: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection to a journal of this edgemed, for this block, beside a daemon that may run.

    Raises:
        IntegrityError: it is damaged, or not a journal of this version.
        ResourceError: it cannot be used.
    """
    try:
        with closing(connect(path, read_only=read_only)) as connection:
            check_make(connection, path)
            yield connection
    except sqlite3.Error as error:
        raise translate(error) from error


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables where there are none; refuse what is damaged or of another make.

    Raises:
        IntegrityError: damaged, or not a journal of this version.
    """
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not tables:
            connection.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id={_APPLICATION_ID};"
                f"PRAGMA user_version={VERSION}; COMMIT;"
            )
        check_make(connection, path)
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    except sqlite3.Error as error:
        raise translate(error) from error
    if problems != ["ok"]:
        raise IntegrityError(f"{path} is damaged: {problems[0]}.", "The daemon makes it anew from the spool.")


def check_make(connection: sqlite3.Connection, path: Path) -> None:
    """See that a journal is of this edgemed.

    Raises:
        IntegrityError: no journal, or one of another version.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID:
        raise IntegrityError(f"{path} is not a journal of edgemed.", "The daemon makes it anew from the spool.")
    if version != VERSION:
        raise OtherVersion(
            f"{path} is a journal of version {version}; this edgemed has {VERSION}.",
            "Serve it with the edgemed that made it, or move it away: a new one is made from the spool.",
        )


def translate(error: sqlite3.Error) -> Exception:
    """An error of SQLite as one of ours."""
    code = cast(str, getattr(error, "sqlite_errorname", "")) or ""  # Python 3.10 does not tell
    text = str(error)
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "malformed" in text or "not a database" in text:
        return IntegrityError(f"The journal is damaged: {text}.", "The daemon makes it anew from the spool.")
    if code.startswith("SQLITE_FULL") or "is full" in text:
        return ResourceError("The disk is full: the journal cannot grow.", "Free some space.")
    if code.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_BUSY")) or isinstance(
        error, sqlite3.OperationalError
    ):
        return ResourceError(f"The journal cannot be used: {text}.", "Check the disk and its permissions.")
    return error


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))
