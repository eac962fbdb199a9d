"""The journal: one writer at a time, whose commits are shared by those who wait, and readers beside it.

`write` returns when its change is on the disk (WAL, `synchronous=FULL`: the log is synced at each commit). Changes that
are asked for while a commit is under way go into the next one together, so that many senders share one sync. What may
wait for a commit that comes anyway goes `along` with it.
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
from typing import Any, Final, TypeVar

from edgemed.base.errors import EdgemedError, IntegrityError, ResourceError
from edgemed.base.store import fsync_path
from edgemed.serve.journal.file import BUSY_MS, connect, log_of, prepare, sync_log, translate

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Asked = tuple[Work[Any], "Future[Any]"]

_MOST_TOGETHER: Final = 256
_IDLE_READERS: Final = 8
_LOG_BYTES: Final = 16 << 20  # of the WAL, before readers are waited for so that it can begin anew
_LOOK_EVERY: Final = 32  # commits
_LOG_WAIT_MS: Final = 500


class Journal:
    """The database. Entered, it has a thread that writes.

    Attributes:
        path: of its file.
        commits: so far.
        on_damage: called, in any thread, when SQLite finds the file damaged; it must not wait.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits = 0
        self.on_damage: Callable[[IntegrityError], None] = _unheard
        self._queue: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._turn = threading.Lock()  # to write
        self._crowded = False
        self._along: list[Work[Any]] = []
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._open = False

    def __enter__(self) -> Journal:
        """Open it, or make it.

        Raises:
            IntegrityError: it is damaged, or not ours.
            ResourceError: the disk is full, or may not be written.
        """
        sync_log(self.path)
        connection = connect(self.path)
        try:
            prepare(connection, self.path)
            fsync_path(self.path.parent)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError):
                raise ResourceError(f"The journal cannot be made: {error.strerror}.", "Check the disk.") from error
            raise
        self._open, self._connection = True, connection
        self._writer = threading.Thread(target=self._write, args=(connection,), name="journal", daemon=True)
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what was asked for, and close."""
        with self._lock:
            was_open, self._open = self._open, False
            idle, self._idle = self._idle, []
        for reader in idle:  # before the writer, for the last one to close brings the log into the file
            reader.close()
        if was_open:
            self._queue.put(None)
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def write(self, work: Work[T]) -> T:
        """Make a change; when this returns, it is on the disk.

        Args:
            work: called with the connection, inside a transaction, in this thread or another. What it raises undoes
                it alone and is raised here. It must not wait for anything, least of all for another `write`.

        Raises:
            ResourceError: the disk did not take it. Whether it is there after a power cut is not known then.
            IntegrityError: the file is damaged.
        """
        if self._connection is None or self._crowded or not self._turn.acquire(blocking=False):
            return self.submit(work).result()
        try:  # nobody writes: to do it here saves two changes of threads, which take long on a busy machine
            return self._write_here(self._connection, work)
        finally:
            self._turn.release()

    def _write_here(self, connection: sqlite3.Connection, work: Work[T]) -> T:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        if not self._open:
            raise _closed()
        self._commit(connection, [(work, future)])
        self._bound_log(connection)
        return future.result()

    def submit(self, work: Work[T]) -> Future[T]:
        """The same without waiting."""
        future: Future[T] = Future()
        with self._lock:
            if not self._open:
                raise _closed()
            self._queue.put((work, future))
        return future

    def along(self, work: Work[Any]) -> None:
        """Make a change with the next commit, before the others of it. `settle` and `close` bring it at the latest.

        Args:
            work: as for `write`; what it raises is logged. It may be called again, where the commit failed.
        """
        with self._lock:
            self._along.append(work)

    def settle(self) -> None:
        """Bring what goes along to the disk.

        Raises:
            ResourceError: the disk did not take it; it goes along with the next commit.
            IntegrityError: the file is damaged.
        """
        if self._along:
            self.write(_nothing)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection, for this block alone, that sees what was committed; rows by name.

        Raises:
            ResourceError: it cannot be read.
            IntegrityError: the file is damaged.
        """
        connection = self._reader()
        try:
            yield connection
        except sqlite3.Error as error:
            connection.close()
            raise self._told(error) from error
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)

    def _reader(self) -> sqlite3.Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        try:
            return connect(self.path, read_only=True)
        except EdgemedError as error:
            raise self._noticed(error)  # noqa: B904 - the very same

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            with self._lock:
                if self._open and len(self._idle) < _IDLE_READERS:
                    self._idle.append(connection)
                    return
        connection.close()

    def _write(self, connection: sqlite3.Connection) -> None:
        last = False
        with closing(connection):
            while not last:
                one = self._queue.get()
                self._crowded = True  # nobody else begins, so that who waits has its turn
                with self._turn:
                    together, last = self._asked(one)
                    if together or (last and self._along):
                        self._commit(connection, together)
                        self._bound_log(connection)
                    self._crowded = False
            self._connection = None

    def _asked(self, one: Asked | None) -> tuple[list[Asked], bool]:
        """One change and all others that are asked for by now; and whether it is the end."""
        together: list[Asked] = []
        with suppress(queue.Empty):
            while one is not None:
                if one[1].set_running_or_notify_cancel():
                    together.append(one)
                if len(together) == _MOST_TOGETHER:
                    return together, False
                one = self._queue.get_nowait()
            return together, True
        return together, False

    def _commit(self, connection: sqlite3.Connection, together: list[Asked]) -> None:
        done: list[tuple[Future[Any], Any]] = []
        along = self._along[:]  # the list keeps them until they are on the disk
        try:
            connection.execute("BEGIN IMMEDIATE")
            for work in along:
                self._go_along(connection, work)
            for work, future in together:
                self._step(connection, work, future, done)
            connection.execute("COMMIT")
        except BaseException as error:  # the thread must live: others wait for it
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            told = self._told(error) if isinstance(error, sqlite3.Error) else error
            for _, future in together:
                if not future.done():
                    future.set_exception(told)
            return
        self.commits += 1
        with self._lock:
            del self._along[: len(along)]
        for future, value in done:
            future.set_result(value)

    def _go_along(self, connection: sqlite3.Connection, work: Work[Any]) -> None:
        """One change that nobody waits for; those who do must not suffer by it."""
        future: Future[Any] = Future()
        self._step(connection, work, future, [])
        error = future.exception() if future.done() else None
        if isinstance(error, EdgemedError):  # the disk: it goes along with the next commit
            raise error
        if error is not None:
            log.error("a change of the journal could not be made", exc_info=error)

    def _step(
        self, connection: sqlite3.Connection, work: Work[Any], future: Future[Any], done: list[tuple[Future[Any], Any]]
    ) -> None:
        """One change; what it raises undoes it alone, unless SQLite had to undo everything (a full disk)."""
        connection.execute("SAVEPOINT one")
        try:
            value = work(connection)
        except Exception as error:
            if not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
            future.set_exception(self._told(error) if isinstance(error, sqlite3.Error) else error)
            return
        connection.execute("RELEASE one")
        done.append((future, value))

    def _bound_log(self, connection: sqlite3.Connection) -> None:
        """Let the WAL begin anew where it is long: while somebody always reads, SQLite by itself would only append."""
        if self.commits % _LOOK_EVERY:
            return
        with suppress(OSError, sqlite3.Error):
            if log_of(self.path).stat().st_size > _LOG_BYTES:
                connection.execute(f"PRAGMA busy_timeout={_LOG_WAIT_MS}")
                try:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")

    def _told(self, error: sqlite3.Error) -> Exception:
        told = self._noticed(translate(error))
        if told is not error:
            told.__cause__ = error
        return told

    def _noticed(self, error: Exception) -> Exception:
        if isinstance(error, IntegrityError):
            try:
                self.on_damage(error)
            except Exception:  # in the thread that writes: others wait for it
                log.exception("that the journal is damaged could not be told")
        return error


def _closed() -> ResourceError:
    return ResourceError("The journal is closed.", "Start the daemon again.")


def _nothing(_: sqlite3.Connection) -> None:
    """The commit is what is wanted."""


def _unheard(_: IntegrityError) -> None:
    """Nobody asked to be told."""
