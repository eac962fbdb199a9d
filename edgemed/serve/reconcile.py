"""The proof that nothing is lost: spool, journal and deliveries held against each other.

Every object is open or has exactly one end, every row has its file with its bytes, every file its row, every result its
deliveries. It only reads, and works beside a daemon that runs: what looks wrong then is looked at again a little later,
for something may be between its file and its row.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from edgemed.base.errors import InputError, IntegrityError
from edgemed.serve.digest import digest_of
from edgemed.serve.journal.database import check_make, connect, translate
from edgemed.serve.journal.history import untold
from edgemed.serve.journal.records import NoTransition, move_task, receive_again
from edgemed.serve.journal.recovery import JOURNAL
from edgemed.serve.journal.returns import is_whole
from edgemed.serve.journal.steps import Unfinished, unfinished
from edgemed.serve.journal.tally import miscounted
from edgemed.serve.lock import is_served
from edgemed.serve.spool import Spool
from edgemed.serve.states import ENDS, Event, State, worst

Code = Literal["lost", "changed", "no-row", "stuck", "history", "undelivered", "miscounted"]
Step = Callable[[], None]

_AGAIN_S: Final = 2.0
_TOGETHER: Final = 64  # tasks that are tried again in one transaction: the daemon's senders wait meanwhile
ASKED: Final = "An operator asked for it."


@dataclass(frozen=True, order=True)
class Trouble:
    """Something that is not accounted for.

    Attributes:
        code: `lost`: a row without its file. `changed`: other bytes than came or were answered. `no-row`: a file that
            no row names. `stuck`: a state that nothing leads out of, or that its tasks contradict. `history`: the
            events do not lead to the state. `undelivered`: a result without its deliveries.
            `miscounted`: the page shows another number of rows than there are.
        what: table and number of the row, or the path of a file.
        text: a sentence.
    """

    code: Code
    what: str
    text: str


@dataclass
class Account:
    """What was found.

    Attributes:
        served: a daemon has the state now.
        objects: how many are in each state; the same for tasks and deliveries.
        files: whose bytes were read.
        size: of these, bytes.
        troubles: what is not accounted for.
        unfinished: series of which procedure steps name images that have not come: nothing that we have lost.
    """

    served: bool = False
    objects: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    deliveries: dict[str, int] = field(default_factory=dict)
    files: int = 0
    size: int = 0
    troubles: list[Trouble] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """Objects that have their end."""
        ends = {state.value for state in ENDS}
        return sum(count for state, count in self.objects.items() if state in ends)

    @property
    def open(self) -> int:
        """Objects that are on their way."""
        return sum(self.objects.values()) - self.ended

    @property
    def bytes_differ(self) -> bool:
        return any(trouble.code == "changed" for trouble in self.troubles)


def reconcile(root: Path, step: Step = lambda: None) -> Account:
    """Hold everything against everything.

    Args:
        root: the daemon's state.
        step: called for each file that was read.

    Raises:
        InputError: there is no journal.
        IntegrityError: the journal is damaged, or of another version.
        ResourceError: something cannot be read.
    """
    if not (root / JOURNAL).is_file():
        raise InputError(f"There is no journal in {root}.", "Name a bedside.toml, or the state that it names.")
    account = _look(root, step)
    if account.served and account.troubles:
        time.sleep(_AGAIN_S)
        again = set(_look(root, lambda: None).troubles)
        account.troubles = [trouble for trouble in account.troubles if trouble in again]
    return account


def retry(root: Path, task: int | None) -> list[int]:
    """Let a task that has failed be tried again, or all of them (`None`); also beside a daemon that runs.

    Returns:
        Numbers of the tasks.

    Raises:
        InputError: there is no such task, or it has not failed.
        IntegrityError: the journal is of another version.
        ResourceError: the journal does not take it.
    """
    if not (root / JOURNAL).is_file():
        raise InputError(f"There is no journal in {root}.", "Name a bedside.toml, or the state that it names.")
    again: list[int] = []
    with _journal(root) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        numbers = [task] if task is not None else _failed(connection)
        for first in range(0, len(numbers), _TOGETHER):
            connection.execute("BEGIN IMMEDIATE")  # waits for the daemon's own commit, and it for this one
            some = numbers[first : first + _TOGETHER]
            if task is None:
                some = [number for number in some if _has_failed(connection, number)]
            for number in some:
                _retry(connection, number)
            connection.execute("COMMIT")
            again += some
    return again


def _retry(connection: sqlite3.Connection, number: int) -> None:
    if connection.execute("SELECT 1 FROM task WHERE id = ?", (number,)).fetchone() is None:
        raise InputError(f"There is no task {number}.", "`edgemed reconcile` lists what has failed.")
    if not is_whole(connection, number):
        raise InputError(f"The images of task {number} were deleted after their time.", "Send them again.")
    try:
        move_task(connection, number, Event.RETRY, ASKED)
    except NoTransition as error:
        raise InputError(f"{str(error).capitalize()}.", "Only what has failed is tried again.") from error


def failed(root: Path) -> list[tuple[int, str, str]]:
    """Tasks that have failed: number, model, reason."""
    with _journal(root, read_only=True) as connection:
        rows = connection.execute("SELECT id, model, reason FROM task WHERE state = 'failed' ORDER BY id").fetchall()
    return [(row["id"], row["model"], row["reason"]) for row in rows]


def _failed(connection: sqlite3.Connection) -> list[int]:
    tasks = [row[0] for row in connection.execute("SELECT id FROM task WHERE state = 'failed' ORDER BY id")]
    return [task for task in tasks if is_whole(connection, task)]


def _has_failed(connection: sqlite3.Connection, task: int) -> bool:
    """Whether it still has, and its images are there."""
    stands = connection.execute("SELECT 1 FROM task WHERE id = ? AND state = 'failed'", (task,)).fetchone()
    return stands is not None and is_whole(connection, task)


def route_again(root: Path) -> list[int]:
    """Let the router look again at objects that failed before they had a task: their headers could not be read.

    Those whose bytes are not the ones that came are left alone. Also beside a daemon that runs.

    Returns:
        Numbers of the objects.

    Raises:
        IntegrityError: the journal is of another version.
        ResourceError: the journal does not take it.
    """
    sql = (
        "SELECT id, path, sha256, sop_class FROM object WHERE state = 'failed' AND path <> ''"
        " AND NOT EXISTS (SELECT 1 FROM part WHERE part.object = object.id) ORDER BY id"
    )
    with _journal(root) as connection:
        rows = connection.execute(sql).fetchall()
        sound = [row["id"] for row in rows if _is_sound(root / row["path"], row)]
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")
        still = {row["id"] for row in connection.execute(sql)}
        again = [number for number in sound if number in still]
        for number in again:
            receive_again(connection, number, ASKED)
        connection.execute("COMMIT")
    return again


def _is_sound(path: Path, row: sqlite3.Row) -> bool:
    try:
        return bool(digest_of(path, dicom=bool(row["sop_class"])) == row["sha256"])
    except OSError:
        return False


def _look(root: Path, step: Step) -> Account:
    spool = Spool(root)
    account = Account(served=is_served(root))
    there = {*spool.kept(), *spool.kept_aside(), *spool.answered()}  # before the rows: each of these has one by then
    with _journal(root, read_only=True) as connection:
        connection.execute("BEGIN")  # one moment for all of it
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
        if problems != ["ok"]:
            raise IntegrityError(f"The journal is damaged: {problems[0]}.", "Start the daemon: it makes it anew.")
        account.objects = _counts(connection, "object")
        account.tasks = _counts(connection, "task")
        account.deliveries = _counts(connection, "delivery")
        account.troubles += _states(connection)
        account.troubles += [Trouble("history", what, text) for what, text in untold(connection)]
        account.troubles += _deliveries(connection)
        account.troubles += [
            Trouble("miscounted", what, f"The page says {said}; there are {found}.")
            for what, said, found in miscounted(connection)
        ]
        account.unfinished = list(unfinished(connection))
        rows = _files(connection)
        going = {row[0] for row in connection.execute("SELECT path FROM deletion")}
    for relative in sorted(there - rows.keys() - going):
        account.troubles.append(Trouble("no-row", relative, "No row names it; the daemon takes it in when it starts."))
    for relative, row in rows.items():
        account.troubles += _check(spool, relative, row, account)
        step()
    return account


def _counts(connection: sqlite3.Connection, table: str) -> dict[str, int]:
    rows = connection.execute(f"SELECT state, count(*) FROM {table} GROUP BY state ORDER BY state")  # noqa: S608 - ours
    return {row[0]: row[1] for row in rows}


def _states(connection: sqlite3.Connection) -> Iterator[Trouble]:
    """Every object is open, and something will end it; or it has the end that its tasks have."""
    known = {state.value for state in State}
    open_ = {State.ARRIVING, State.RECEIVED, State.ROUTED}
    rows = connection.execute(
        "SELECT object.id, object.state, object.path, group_concat(DISTINCT task.state) AS tasks FROM object"
        " LEFT JOIN part ON part.object = object.id LEFT JOIN task ON task.id = part.task GROUP BY object.id"
    )
    for row in rows:
        what = f"object {row['id']}"
        if not {row["state"], *(row["tasks"] or row["state"]).split(",")} <= known:
            yield Trouble("stuck", what, f"It is {row['state']}, or a task of it is in a state that there is not.")
            continue
        state, tasks = (
            State(row["state"]),
            frozenset(map(State, (row["tasks"] or "").split(",") if row["tasks"] else ())),
        )
        if state in open_ and not row["path"]:
            yield Trouble("lost", what, "It is open, and its file was deleted.")
        if state is State.ROUTED and tasks <= ENDS:
            yield Trouble("stuck", what, "It waits for tasks, and has none that is open.")
        if state is State.DELIVERED and not tasks:
            yield Trouble("stuck", what, "It is delivered, and no task has done that.")
        if state in ENDS and tasks and tasks <= ENDS and state is not worst(tasks):
            yield Trouble("stuck", what, f"It is {state.value}; the worst of its tasks is {worst(tasks).value}.")
    for row in connection.execute(
        "SELECT id FROM task WHERE NOT EXISTS (SELECT 1 FROM part WHERE part.task = task.id)"
    ).fetchall():
        yield Trouble("stuck", f"task {row['id']}", "It is about no object.")


def _deliveries(connection: sqlite3.Connection) -> Iterator[Trouble]:
    """A task that is delivered has results, all of them delivered; one that is delivering has some that are not."""
    rows = connection.execute(
        "SELECT task.id, task.state, count(DISTINCT result.id) AS results,"
        " sum(delivery.state IN ('pending', 'sent')) AS open, sum(delivery.state = 'failed') AS failed,"
        " sum(delivery.state NOT IN ('pending', 'sent', 'delivered', 'failed')) AS unknown FROM task"
        " LEFT JOIN result ON result.task = task.id LEFT JOIN delivery ON delivery.result = result.id GROUP BY task.id"
    )
    for row in rows:
        what, state = f"task {row['id']}", row["state"]
        waiting, refused = row["open"] or 0, row["failed"] or 0
        if row["unknown"]:
            yield Trouble("stuck", what, "A delivery of it is in a state that there is not.")
        if state in ("delivering", "notifying") and not waiting:
            yield Trouble("stuck", what, f"It is {state}, and no delivery is open.")
        if state == "delivered" and not row["results"]:
            yield Trouble("undelivered", what, "It is delivered, and has no result.")
        if state in ("delivered", "not-analysed") and waiting + refused:
            yield Trouble("undelivered", what, f"It is {state}; {waiting + refused} deliveries of it are not.")


def _files(connection: sqlite3.Connection) -> dict[str, sqlite3.Row]:
    """Every file that a row names."""
    rows = connection.execute(
        "SELECT 'result' AS what, id, path, sha256, size, sop_class, kind, '' AS state FROM result"
        " WHERE path <> '' AND kind <> 'image' UNION ALL"
        " SELECT 'object', id, path, sha256, size, sop_class, 'image', state FROM object"
        " WHERE path <> ''"
    ).fetchall()
    return {row["path"]: row for row in rows}


def _check(spool: Spool, relative: str, row: sqlite3.Row, account: Account) -> Iterator[Trouble]:
    what, path = f"{row['what']} {row['id']}", spool.path(relative)
    try:
        size = path.stat().st_size
        digest = digest_of(path, dicom=row["kind"] == "image" and bool(row["sop_class"]))
    except FileNotFoundError:
        if row["state"] != State.ARRIVING.value:  # its sender is told nothing before the file is there
            yield Trouble("lost", what, f"Its file is not there: {relative}.")
        return
    except OSError as error:
        yield Trouble("lost", what, f"Its file cannot be read ({error.strerror}): {relative}.")
        return
    account.files += 1
    account.size += size
    if (size, digest) != (row["size"], row["sha256"]):
        yield Trouble("changed", what, f"Its bytes are not those that were kept: {relative}.")


@contextmanager
def _journal(root: Path, *, read_only: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection to a journal of this edgemed."""
    path = root / JOURNAL
    try:
        with closing(connect(path, read_only=read_only)) as connection:
            check_make(connection, path)
            yield connection
    except sqlite3.Error as error:
        raise translate(error) from error
