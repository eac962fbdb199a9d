"""Files of the spool go: those that stand in the journal's table `deletion`, and no others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from edgemed.base.store import fsync_path
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.retention import deleted, to_delete
from edgemed.serve.spool import Spool

log = logging.getLogger(__name__)


def finish_deletions(spool: Spool, journal: Journal, step: Callable[[], None] = lambda: None) -> int:
    """Delete what rows have let go, durably. What cannot be deleted stays in the table, and is tried the next time.

    Args:
        spool: where the files are.
        journal: where the table is.
        step: called between files.

    Returns:
        How many files are gone.

    Raises:
        EdgemedError: the journal does not take it.
    """
    with journal.read() as connection:
        paths = to_delete(connection)
    gone: list[str] = []
    folders: set[Path] = set()
    for relative in paths:
        step()
        path = spool.path(relative)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("a file of the spool could not be deleted: %s", error.strerror)
            continue
        gone.append(relative)
        folders.add(_emptied(path.parent, spool))
    for folder in folders:  # before the table forgets them: after a power cut they must not come back
        step()
        with suppress(FileNotFoundError):
            fsync_path(folder)
    if gone:
        journal.write(partial(deleted, paths=gone))
    return len(gone)


def _emptied(folder: Path, spool: Spool) -> Path:
    """Remove the folder of a task whose results are gone; the folder in which something has changed."""
    if spool.results in folder.parents and folder.parent != spool.results:
        with suppress(OSError):  # others are in it
            folder.rmdir()
            return folder.parent
    return folder
