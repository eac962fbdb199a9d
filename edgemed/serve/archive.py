"""What left the journal, for as long as the site keeps it: `archive/<year>-<month>.jsonl.gz` in the daemon's state.

Lines are on the disk before their rows go. How long the file is then stands in the journal, in the transaction in which
the rows go: what is longer was written for rows that are still there, and is cut off before the next lines.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from edgemed.base.errors import from_os_error
from edgemed.base.store import fsync_path
from edgemed.serve.clock import stamp
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.facts import ARCHIVE, fact, keep_fact
from edgemed.serve.journal.leaving import forget_over, leave, leaving, over

log = logging.getLogger(__name__)

FOLDER: Final = "archive"

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class Place(NamedTuple):
    """Where the archive ends: the file, and how many bytes of it count."""

    name: str
    size: int


class Archive:
    """Lets rows leave a journal into files that anybody can read.

    Args:
        state: of the daemon.
        journal: of the same.
    """

    def __init__(self, state: Path, journal: Journal) -> None:
        self._folder, self._journal = state / FOLDER, journal
        self._swept: tuple[int, int] | None = None

    def sweep(self, before: int, alarms_before: int, goes_on: Callable[[], bool]) -> int:
        """Let go what is old. What has become ready to go since then goes when there is more that is old.

        Args:
            before: number of an event: rows go to which all that happened is older; 0: none.
            alarms_before: number of an alarm; the same.
            goes_on: called between batches; whether there is time.

        Returns:
            How many lines were written.

        Raises:
            EdgemedError: the disk or the journal does not take it; the rows stay.
        """
        if self._swept == (before, alarms_before) or not (before or alarms_before):
            return 0
        count = 0
        after: int | None = 0 if before else None
        while after is not None:
            with self._journal.read() as connection:
                batches, after = leaving(connection, after, before)
            for units in batches:
                if not goes_on():
                    return count
                lines = [line for unit in units for line in unit.lines]
                moved = self._move(lines, partial(leave, units=units, before=before))
                if not moved:  # something has changed: what follows may be of the same study
                    break
                count += moved
        while True:
            with self._journal.read() as connection:
                lines = over(connection, before, alarms_before)
            if not lines:
                break
            if not goes_on():
                return count
            count += self._move(lines, partial(forget_over, before=before, alarms_before=alarms_before, told=lines))
        self._swept = before, alarms_before
        return count

    def _move(self, lines: Sequence[str], go: Callable[[sqlite3.Connection], bool]) -> int:
        """Write lines, then let their rows go; nothing counts as written where those have changed meanwhile."""
        if not lines:
            return 0
        place = self._append(lines)

        def work(connection: sqlite3.Connection) -> bool:
            gone = go(connection)
            if gone:
                _keep(connection, place)
            return gone

        return len(lines) if self._journal.write(work) else 0

    def _append(self, lines: Sequence[str]) -> Place:
        place = self._open()
        path = self._folder / place.name
        data = gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)
        try:
            file = os.open(path, _FLAGS, 0o600)
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(file, left) :]
                os.fsync(file)
            finally:
                os.close(file)
            if not place.size:
                fsync_path(self._folder)
        except OSError as error:
            raise from_os_error(error, path) from error
        return Place(place.name, place.size + len(data))

    def _open(self) -> Place:
        """Where to go on: what does not count is cut off; each month has a file of its own."""
        with self._journal.read() as connection:
            kept = fact(connection, ARCHIVE)
        place = Place(**json.loads(kept)) if kept is not None else None
        try:
            if place is not None and self._cut(place) and place.name.startswith(_month()):
                return place
            self._folder.mkdir(mode=0o700, exist_ok=True)
            fsync_path(self._folder.parent)
        except OSError as error:
            raise from_os_error(error, self._folder) from error
        new = Place(next(name for name in _names() if not (self._folder / name).exists()), 0)
        self._journal.write(partial(_keep, place=new))  # first, so that what is cut short is cut off
        return new

    def _cut(self, place: Place) -> bool:
        """Whether the file is there as far as it counts."""
        path = self._folder / place.name
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return False
        if size > place.size:
            os.truncate(path, place.size)
            fsync_path(path)
        elif size < place.size:
            log.error("the archive %s is shorter than it was; another file is begun", place.name)
        return size >= place.size


def _keep(connection: sqlite3.Connection, place: Place) -> None:
    keep_fact(connection, ARCHIVE, json.dumps(place._asdict()))


def _month() -> str:
    return stamp()[:7]


def _names() -> Iterator[str]:
    month = _month()
    yield f"{month}.jsonl.gz"
    number = 2
    while True:
        yield f"{month}-{number}.jsonl.gz"
        number += 1
