"""Watched folders: files become objects of the journal, then leave the folder.

A file is taken when it has not changed for a while. It is copied, for who wrote it may still have it open; what is not
the same afterwards waits on. It leaves when the journal has it: who is killed in between finds it again, and the intake
knows that it has it. What is neither DICOM nor a picture goes to `rejected/` inside the folder, and an alarm stands
while something lies there. Hidden files, and names of transfers under way, are left alone, as are links, pipes and
devices: another program may have put them there, and nothing outside the folder is ever opened or moved.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edgemed.base.errors import InputError, ResourceError, from_os_error
from edgemed.base.quantity import SECOND
from edgemed.serve.config import Config
from edgemed.serve.config.destinations import FolderDestination
from edgemed.serve.config.inlets import FolderSection
from edgemed.serve.dropped import Mark, arrival_of, copy_dropped, identify_dropped, mark_of, open_dropped
from edgemed.serve.loops import Beat
from edgemed.serve.services import Services

log = logging.getLogger(__name__)

REJECTED: Final = "rejected"

_TAKEN: Final = ".edgemed-taken-"
_UNDER_WAY: Final = (".part", ".partial", ".tmp", ".filepart", ".crdownload")
_DEEPEST: Final = 16
_LIMIT_NS: Final = 60 * SECOND
_AGAIN_NS: Final = 5 * SECOND  # between tries of what did not work
_MOST_DOUBLED: Final = 7  # ten minutes, between tries of what stumbles over an error of ours
_DOUBT: Final = 5  # settle times until what is not whole is believed to stay so


@dataclass
class _Seen:
    """A file of the folder, as it was looked at.

    Attributes:
        mark: it is another file when this changes.
        since_ns: when it was first seen so.
        next_ns: when to try next.
        done: it was taken, or entered as refused: all that is left is to remove it.
        stuck: something stands in the way.
        failures: how often an error of ours did.
    """

    mark: Mark
    since_ns: int
    next_ns: int
    done: Literal["", "taken", "refused"] = ""
    stuck: bool = False
    failures: int = 0


class WatchedFolder:
    """One folder."""

    def __init__(self, services: Services, section: FolderSection) -> None:
        self._services = services
        self._section = section
        self.subject = f"folder {section.name}"
        self._seen: dict[str, _Seen] = {}
        self.draining = False

    def run(self, beat: Beat) -> None:
        """Look again and again."""
        pause_s = min(1.0, self._section.settle_ns / 4e9)
        while not self.draining:
            self.look(beat)
            if not beat.wait(pause_s):
                return
        while beat.wait(60.0):
            pass

    def look(self, beat: Beat) -> None:
        """Take what has settled, once."""
        try:
            with _opened(self._section.path) as top:
                closed = self._look(top, beat)
                self._tell_rejected(top)
        except OSError as error:
            self._raise_once(f"The folder {self._section.name} cannot be watched: {_why(error)}")
            return
        except ResourceError as error:  # the spool is full: the files wait where they are
            log.info("folder %s waits: %s", self._section.name, error.what)
            beat.wait(_AGAIN_NS / 1e9)
            return
        if not closed and not any(seen.stuck for seen in self._seen.values()):
            self._services.alarms.clear("folder-failed", self.subject)

    def _look(self, top: int, beat: Beat) -> bool:
        """Go through all files; whether a folder inside could not be read."""
        there: set[str] = set()
        closed: list[OSError] = []
        for path, names, folder in _walk(top, closed):
            for name in names:
                beat()
                if beat.stopping.is_set() or self.draining:
                    return False
                key = f"{path}/{name}"
                status = _status(name, folder)
                if status is None or not stat.S_ISREG(status.st_mode):
                    continue
                if self._has_settled(key, mark_of(status)) and self._take(top, folder, name, self._seen[key], beat):
                    del self._seen[key]  # what comes under its name, be it in its inode, is another file
                else:
                    there.add(key)
        self._seen = {key: seen for key, seen in self._seen.items() if key in there}
        if closed:
            self._raise_once(f"A folder inside {self._section.name} cannot be read: {_why(closed[0])}")
        return bool(closed)

    def _has_settled(self, key: str, mark: Mark) -> bool:
        now_ns = time.monotonic_ns()
        seen = self._seen.get(key)
        if seen is None or seen.mark != mark:
            self._seen[key] = _Seen(mark, now_ns, now_ns + self._section.settle_ns)
            return False
        return now_ns >= seen.next_ns

    def _take(self, top: int, folder: int, name: str, seen: _Seen, beat: Beat) -> bool:
        """Take a file, or go on with one; whether it is gone."""
        seen.next_ns, seen.stuck = time.monotonic_ns() + _AGAIN_NS, False
        try:
            if not seen.done:
                self._bring(folder, name, seen, beat)
            if seen.done == "taken":
                self._remove(folder, name, seen)
            if seen.done == "refused":
                self._put_aside(top, folder, name)
        except InputError as error:
            self._refuse(name, seen, error)
        except FileNotFoundError:  # somebody else has taken it away
            return True
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise from_os_error(error, "the spool") from error
            seen.stuck = True
            self._raise_once(f"A file in {self._section.name} cannot be taken or removed: {_why(error)}")
        else:
            return bool(seen.done)
        return False

    def _refuse(self, name: str, seen: _Seen, error: InputError) -> None:
        """Enter what is nothing for us; not at once, for its writer may only be slow."""
        now_ns, certain_ns = time.monotonic_ns(), seen.since_ns + _DOUBT * self._section.settle_ns
        if now_ns < certain_ns:
            seen.next_ns = certain_ns
            return
        log.warning("folder %s: %s is not taken", self._section.name, self._services.pseudonyms.of(name))
        self._services.intake.refuse(self._section.name, "", "", "", f"It is not taken: {error.what}")
        seen.done, seen.next_ns = "refused", now_ns

    def _bring(self, folder: int, name: str, seen: _Seen, beat: Beat) -> None:
        """Copy a file into the spool and the journal, where it is what it was when it settled."""
        first_ns = time.monotonic_ns()
        source = open_dropped(name, folder)
        if source is None:
            return
        with source:
            if mark_of(os.fstat(source.fileno())) != seen.mark:
                return
            target = self._services.intake.new_file()
            try:
                if not copy_dropped(source, seen.mark, target, self._section.max_file_bytes, beat):
                    return
                identity = identify_dropped(target, beat)
                arrival = arrival_of(target, self._section.name, identity, first_ns)
                outcome = self._services.intake.accept(arrival)
            finally:
                target.unlink(missing_ok=True)
        if outcome.success or outcome.verdict == "conflict":  # of a conflict, the copy is in quarantine
            seen.done = "taken"
        elif outcome.verdict == "failed":
            seen.failures, seen.stuck = seen.failures + 1, True
            seen.next_ns = time.monotonic_ns() + (_AGAIN_NS << min(seen.failures, _MOST_DOUBLED))
            self._raise_once(f"A file in {self._section.name} cannot be taken: {outcome.reason}")

    def _remove(self, folder: int, name: str, seen: _Seen) -> None:
        """Delete a file that was taken; another one that has come under its name stays."""
        aside = _TAKEN + secrets.token_hex(8)
        os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=folder)
        status = _status(aside, folder)
        if status is not None and mark_of(status)[:-1] == seen.mark[:-1]:  # its entry has just been changed
            os.unlink(aside, dir_fd=folder)

    def _put_aside(self, top: int, folder: int, name: str) -> None:
        """Bring what is nothing for us out of the way."""
        with suppress(FileExistsError):
            os.mkdir(REJECTED, 0o700, dir_fd=top)
        with _opened(Path(REJECTED), top) as rejected:
            target = name if _status(name, rejected) is None else secrets.token_hex(8)
            os.rename(name, target, src_dir_fd=folder, dst_dir_fd=rejected)

    def _tell_rejected(self, top: int) -> None:
        try:
            with _opened(Path(REJECTED), top) as rejected, os.scandir(rejected) as entries:
                count = sum(not entry.name.startswith(".") for entry in entries)
        except OSError:
            count = 0
        if count:
            text = f"What was dropped into {self._section.name} and is not taken lies in its folder {REJECTED}."
            self._raise_once(text, "input-failed")
        else:
            self._services.alarms.clear("input-failed", self.subject)

    def _raise_once(self, text: str, code: str = "folder-failed") -> None:
        if not self._services.alarms.stands(code, self.subject):
            self._services.alarms.raise_(code, text, self.subject)


class FolderInlets:
    """All watched folders."""

    name = "folders"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._folders = [WatchedFolder(services, section) for section in services.config.folders]

    def start(self) -> None:
        """Begin; a folder that is not there yet is waited for.

        Raises:
            InputError: a folder overlaps with another one, a destination, or the state.
        """
        check_folders(self._services.config)
        self._services.alarms.keep(("folder-failed",), [folder.subject for folder in self._folders])
        for section, folder in zip(self._services.config.folders, self._folders, strict=True):
            self._services.loops.start(f"folder {section.name}", folder.run, limit_ns=_LIMIT_NS)

    def drain(self) -> None:
        """Take no more files; the one under way is taken."""
        for folder in self._folders:
            folder.draining = True

    def stop(self) -> None:
        """The loops have ended with the others."""


def check_folders(config: Config) -> None:
    """See that nothing that edgemed writes is taken for an input.

    Raises:
        InputError: a watched folder overlaps with another one, a destination, or the state.
    """
    places = [("the state", config.daemon.state)]
    places += [(f"destination {to.name}", to.path) for to in config.destinations if isinstance(to, FolderDestination)]
    for section in config.folders:
        path = section.path.resolve()
        for what, other in places:
            there = other.resolve()
            if path == there or path in there.parents or there in path.parents:
                raise InputError(f"The watched folder {section.name} overlaps with {what}.", "Choose another folder.")
        places.append((f"the folder {section.name}", section.path))


@contextmanager
def _opened(path: Path, parent: int | None = None) -> Iterator[int]:
    """A folder, by the number of its open file; one inside another is never a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if parent is None else os.O_NOFOLLOW)
    folder = os.open(path, flags, dir_fd=parent)
    try:
        yield folder
    finally:
        os.close(folder)


def _walk(top: int, closed: list[OSError]) -> Iterator[tuple[str, list[str], int]]:
    """Folders below an open one: path, files, number of the open folder. Links are not followed."""
    for path, folders, files, folder in os.fwalk(".", dir_fd=top, onerror=closed.append):
        depth = path.count("/")
        here = [name for name in folders if not name.startswith(".") and not (depth == 0 and name == REJECTED)]
        folders[:] = sorted(here) if depth < _DEEPEST else []
        yield path, sorted(filter(_is_wanted, files)), folder


def _is_wanted(name: str) -> bool:
    if name.startswith(_TAKEN):
        return True
    return not name.startswith(".") and not name.lower().endswith(_UNDER_WAY)


def _status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _why(error: OSError) -> str:
    """Without the name, which may be that of a patient."""
    return from_os_error(OSError(error.errno, error.strerror)).what
