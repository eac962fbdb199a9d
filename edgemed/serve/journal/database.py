"""The file of the journal: one writer, whose commits are shared by those who wait, and readers beside it.

`write` returns when its change is on the disk (WAL, `synchronous=FULL`: the log is synced at each commit). Changes that
are asked for while a commit is under way go into the next one together, so that many senders share one sync.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from edgemed.base.errors import IntegrityError, ResourceError
from edgemed.serve.journal.schema import SCHEMA, VERSION

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_MOST_TOGETHER: Final = 256
_BUSY_S: Final = 10.0
_APPLICATION_ID: Final = 0x65646D64  # 'edmd'


class Journal:
    """The database. Entered, it has a thread that writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._queue: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self.commits = 0

    def __enter__(self) -> Journal:
        """Open it, or make it.

        Raises:
            IntegrityError: it is damaged, or not ours.
            ResourceError: the disk is full, or may not be written.
        """
        connection = connect(self.path)
        try:
            prepare(connection, self.path)
        except BaseException:
            connection.close()
            raise
        self._writer = threading.Thread(target=self._write, args=(connection,), name="journal", daemon=True)
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what was asked for, and close."""
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join()
            self._writer = None
        with self._lock:
            for reader in self._readers:
                reader.close()
            self._readers.clear()

    def write(self, work: Work[T]) -> T:
        """Make a change; when this returns, it is on the disk.

        Args:
            work: called with the connection, inside a transaction, in the writer's thread. What it raises undoes it
                alone and is raised here. It must not wait for anything.

        Raises:
            ResourceError: the disk did not take it.
            IntegrityError: the file is damaged.
        """
        return self.submit(work).result()

    def submit(self, work: Work[T]) -> Future[T]:
        """The same without waiting."""
        future: Future[T] = Future()
        if self._writer is None:
            raise ResourceError("The journal is closed.", "Start the daemon again.")
        self._queue.put((work, future))
        return future

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection of this thread's own that sees what was committed; rows by name.

        Raises:
            ResourceError: it cannot be read.
            IntegrityError: the file is damaged.
        """
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        try:
            if connection is None:
                connection = connect(self.path, read_only=True)
                self._local.connection = connection
                with self._lock:
                    self._readers.append(connection)
            yield connection
        except sqlite3.Error as error:
            raise translate(error) from error

    def _write(self, connection: sqlite3.Connection) -> None:
        with closing(connection):
            while (first := self._queue.get()) is not None:
                together, last = [first], False
                with suppress(queue.Empty):
                    while len(together) < _MOST_TOGETHER:
                        more = self._queue.get_nowait()
                        if more is None:
                            last = True
                            break
                        together.append(more)
                self._commit(connection, together)
                if last:
                    return

    def _commit(self, connection: sqlite3.Connection, together: list[tuple[Work[Any], Future[Any]]]) -> None:
        done: list[tuple[Future[Any], Any]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for work, future in together:
                connection.execute("SAVEPOINT one")
                try:
                    value = work(connection)
                except Exception as error:
                    connection.execute("ROLLBACK TO one")
                    future.set_exception(translate(error) if isinstance(error, sqlite3.Error) else error)
                else:
                    done.append((future, value))
                connection.execute("RELEASE one")
            connection.execute("COMMIT")
            self.commits += 1
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            for _, future in together:
                if not future.done():
                    future.set_exception(translate(error))
            return
        for future, value in done:
            future.set_result(value)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with rows by name and no transactions but those that are asked for."""
    mode = "ro" if read_only else "rwc"
    try:
        connection = sqlite3.connect(
            f"file:{_quoted(path)}?mode={mode}",
            uri=True,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise translate(error) from error
    connection.row_factory = sqlite3.Row
    return connection


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables where there are none; refuse what is damaged or of another make.

    Raises:
        IntegrityError: damaged, or not a journal of this version.
    """
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not tables:
            connection.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id={_APPLICATION_ID};"
                f"PRAGMA user_version={VERSION}; COMMIT;"
            )
        elif (application, version) != (_APPLICATION_ID, VERSION):
            raise IntegrityError(f"{path} is not a journal of this version of edgemed.", "Move it away, or update.")
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    except sqlite3.Error as error:
        raise translate(error) from error
    if problems != ["ok"]:
        raise IntegrityError(f"{path} is damaged: {problems[0]}.", "The daemon makes it anew from the spool.")


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
