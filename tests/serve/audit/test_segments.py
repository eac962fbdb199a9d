"""Segments: the chain runs on across them, each one proves by itself what it holds, and a crash leaves no gap."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from edgemed.base.errors import InputError, IntegrityError, ResourceError
from edgemed.bundle.keys import generate, public_pem, read_public_key
from edgemed.cli import main as cli
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.chain import AuditLog
from edgemed.serve.audit.entry import Seal
from edgemed.serve.audit.segment import Said, Segment
from edgemed.serve.audit.segments import (
    HEAD,
    PUBLIC,
    TRAIL,
    closed_name,
    closed_segments,
    last_messages,
    messages_after,
)
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.audit.verify import Verified, verify_trail
from edgemed.serve.journal.database import Journal
from tests.serve import kit

KEY, _ = generate()


class Killed(BaseException):
    """What the daemon does not live to see."""


def introduce(seal: Seal) -> Said:
    return "2026-01-05T10:00:00Z", f"<AuditMessage>after {seal.last}</AuditMessage>"


def say(number: int) -> Said:
    return "2026-01-05T10:00:00Z", f"<AuditMessage>{number}</AuditMessage>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / PUBLIC).write_bytes(public_pem(KEY.public_key()))
    return tmp_path


def write(folder: Path, count: int, *, end: bool = False) -> None:
    """A daemon that runs, says something, and ends."""
    segment = Segment(folder, KEY, introduce)
    for number in range(count):
        segment.append([say(number)])
        segment.write_head()
    if end:
        segment.end()
        segment.write_head()
    segment.close()


@pytest.fixture
def trail(folder: Path) -> Path:
    """Entries 1 to 4, 5 to 9, 10 to 14 in closed segments, and 15 to 17."""
    for _ in range(3):
        write(folder, 4, end=True)
    write(folder, 2)
    return folder


def verify(*paths: Path, since: int | None = None) -> Verified:
    return verify_trail(paths, KEY.public_key(), since=since)


def test_without_its_head_a_trail_keeps_what_follows_a_changed_entry(trail: Path) -> None:
    """It was whole once: to cut it off as what a crash has left would hide what somebody did."""
    (trail / HEAD).unlink()
    first, second, *others = (trail / TRAIL).read_bytes().splitlines(keepends=True)
    changed = b"".join([first, second.replace(b">0<", b">7<"), *others])
    assert others
    (trail / TRAIL).write_bytes(changed)
    write(trail, 0)
    assert (trail / TRAIL).read_bytes() == changed
    with pytest.raises(IntegrityError):
        verify(trail)


def test_a_long_trail_is_cut_into_segments_that_are_one_chain(tmp_path: Path) -> None:
    config = kit.bedside(tmp_path, audit={"segment": "64KiB"})
    with Journal(tmp_path / "j.sqlite3") as journal:
        for _ in range(2):  # it goes on over a restart
            log = AuditLog(config, Alarms(journal))
            for number in range(200):
                log.record(AuditEvent("received", user="CT1", study=f"1.2.{number}", instances=("1.2.3.4",) * 10))
                while number % 50 == 49 and log.written < log.found + number:
                    time.sleep(0.001)
            log.close()
    names = [path for _, path in closed_segments(log.folder)]
    assert len(names) > 3
    assert all(path.stat().st_size > 64 << 10 and path.stat().st_mode & 0o777 == 0o600 for path in names)
    found = verify_trail([config.daemon.state], read_public_key(log.folder / PUBLIC))
    assert (found.begin, found.end, found.segments, found.behind) == (1, 404 + len(names), len(names) + 1, 0)
    assert sum("Entries 1 to" in text for text in last_messages(log.folder, 1000)) == 1


def test_the_first_entry_of_a_segment_names_the_last_of_the_one_before(trail: Path) -> None:
    assert [first for first, _ in closed_segments(trail)] == [1, 5, 10]
    pieces = [verify(path) for _, path in closed_segments(trail)]
    assert [(piece.begin, piece.end, piece.open) for piece in pieces] == [(1, 4, False), (5, 9, False), (10, 14, False)]
    assert [piece.follows for piece in pieces[1:]] == [piece.digest for piece in pieces[:-1]]
    assert json.loads((trail / TRAIL).read_bytes().splitlines()[0])["previous"] == pieces[-1].digest
    assert verify(trail).entries == 17


def test_archived_segments_hold_alone_and_together(trail: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    archive = tmp_path_factory.mktemp("archive")
    for name in (closed_name(1), closed_name(5)):
        shutil.move(trail / name, archive / name)
    assert (verify(archive).begin, verify(archive).end, verify(archive).open) == (1, 9, False)
    assert verify(trail, archive).entries == 17
    assert verify(trail / closed_name(10), archive / closed_name(5)).begin == 5
    with pytest.raises(IntegrityError, match=r"Entries 1 to 9 are not there\."):
        verify(trail)
    assert (verify(trail, since=10).begin, verify(trail, since=12).end) == (10, 17)
    with pytest.raises(IntegrityError, match=r"Entries 9 to 9 are not there\."):
        verify(trail, since=9)
    write(trail, 3, end=True)  # the daemon asks nobody for them
    assert verify(trail, archive).end == 21


Change = Callable[[Path], object]


def edit(name: str, change: Callable[[list[bytes]], list[bytes]]) -> Change:
    def work(trail: Path) -> None:
        lines = (trail / name).read_bytes().splitlines(keepends=True)
        (trail / name).write_bytes(b"".join(change(lines)))

    return work


def swap(trail: Path) -> None:
    (trail / closed_name(1)).rename(trail / "aside")
    (trail / closed_name(5)).rename(trail / closed_name(1))
    (trail / "aside").rename(trail / closed_name(5))


def unseal_the_last(trail: Path) -> None:
    """The newest closed segment is made the open one again, as if no later one had been."""
    edit(closed_name(10), lambda lines: lines[:-1])(trail)
    (trail / closed_name(10)).replace(trail / TRAIL)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (edit(closed_name(5), lambda lines: [lines[0].replace(b"after", b"After"), *lines[1:]]), "Line 1 of .*000005"),
        (edit(closed_name(5), lambda lines: [*lines[:1], *lines[2:]]), "entries were taken out"),
        (edit(closed_name(5), lambda lines: [lines[0], lines[2], lines[1], *lines[3:]]), "put in or moved"),
        (edit(closed_name(5), lambda lines: lines[:-1]), "has no seal"),
        (edit(closed_name(5), lambda lines: [*lines[:-2], lines[-1]]), "seal of something else"),
        (edit(closed_name(5), lambda lines: [*lines, lines[-1]]), "behind the seal"),
        (edit(closed_name(5), lambda lines: [*lines[:-1], lines[-1][:-9]]), "it has no end"),
        (edit(closed_name(5), lambda lines: [*lines[:-1], lines[-1].replace(b'"last":9', b'"last":8')]), "its seal"),
        (edit(closed_name(5), lambda lines: []), "begins with entry None"),
        (lambda trail: (trail / closed_name(5)).unlink(), r"Entries 5 to 9 are not there"),
        (lambda trail: (trail / closed_name(1)).unlink(), r"Entries 1 to 4 are not there"),
        (lambda trail: (trail / closed_name(10)).unlink(), r"Entries 10 to 14 are not there"),
        (lambda trail: shutil.copy(trail / closed_name(5), trail / closed_name(6)), "it was renamed"),
        (swap, "it was renamed"),
        (edit(TRAIL, lambda lines: lines[:-1]), "ends with entry 16; it had 17"),
        (lambda trail: (trail / TRAIL).unlink(), "is missing"),
        (unseal_the_last, "ends with entry 14; it had 17"),
    ],
)
def test_what_is_done_to_segments_is_found(trail: Path, change: Change, what: str) -> None:
    change(trail)
    with pytest.raises(IntegrityError, match=what):
        verify(trail)


def test_every_byte_of_a_seal_counts(trail: Path) -> None:
    path = trail / closed_name(5)
    whole = path.read_bytes()
    for place in range(whole.rindex(b"\n", 0, -1) + 1, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(IntegrityError):
            verify(path)


def test_two_trails_do_not_mix(trail: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write(other, 5, end=True)
    with pytest.raises(IntegrityError, match="holds entries that another segment holds"):
        verify(trail, other / closed_name(1))
    shutil.copy(other / closed_name(1), trail / closed_name(1))
    with pytest.raises(IntegrityError, match=r"holds entries that another segment holds|does not follow"):
        verify(trail)
    with pytest.raises(InputError, match="holds no audit trail"):
        verify(tmp_path_factory.mktemp("empty"))


CALLS = ("open", "write", "fsync", "link", "replace", "ftruncate", "close", "unlink")


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> bool:
    """Do something, and die before that call to the system; whether it came so far."""
    count = 0

    def watched(call: Callable[..., object]) -> Callable[..., object]:
        def then(*args: object, **more: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                raise Killed
            return call(*args, **more)

        return then

    with monkeypatch.context() as patched:
        for name in CALLS:
            patched.setattr(os, name, watched(getattr(os, name)))
        try:
            work()
        except Killed:
            return True
    return False


def test_killed_at_each_step_of_closing_nothing_is_missing_and_nothing_twice(
    trail: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = set()
    for step in range(1, 100):
        folder = tmp_path_factory.mktemp("killed") / "audit"
        shutil.copytree(trail, folder)
        if not killed_at(step, monkeypatch, partial(write, folder, 1, end=True)):
            break
        before = verify(folder).end  # as it lies there
        write(folder, 2)
        after = verify(folder)
        assert (trail / TRAIL).exists()
        assert after.end in (before + 2, before + 3)  # 3: closing was finished, and the next segment says so
        assert after.segments == len(closed_segments(folder)) + 1
        assert not (folder / "trail.next").exists()
        texts = last_messages(folder, 100)
        assert len(texts) == after.end == len({(n, text) for n, text in enumerate(texts)})
        ends.add((before, after.end))
    assert step > 15
    assert {(17, 19), (18, 21), (19, 21)} <= ends  # before, within and after


def test_cut_at_each_byte_of_a_seal_it_goes_on(trail: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cut") / "audit"
    shutil.copytree(trail, folder)
    write(folder, 0, end=True)
    entries = (trail / TRAIL).read_bytes()
    sealed = (folder / closed_name(15)).read_bytes()
    assert sealed.startswith(entries)
    following = (folder / TRAIL).read_bytes()
    for place in range(len(entries), len(sealed) + 1):
        for begun in (0, len(following) // 2, len(following)):
            shutil.rmtree(folder)
            shutil.copytree(trail, folder)
            (folder / TRAIL).write_bytes(sealed[:place])
            (folder / "trail.next").write_bytes(following[:begun])
            write(folder, 1)
            found = verify(folder)
            assert (found.end, found.segments) == ((19, 5) if place == len(sealed) else (18, 4))


def test_a_disk_that_takes_no_second_name_goes_on_with_one_long_segment(
    trail: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Segment(trail, KEY, introduce)

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refuse)
        with pytest.raises(ResourceError, match="Not permitted"):
            segment.end()
    segment.append([say(1)])
    segment.write_head()
    assert (verify(trail).end, verify(trail).segments) == (18, 4)
    segment.end()
    segment.write_head()
    segment.close()
    assert (verify(trail).end, verify(trail).segments) == (19, 5)


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_disk_that_fails_in_between_is_tried_again(trail: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    segment = Segment(trail, KEY, introduce)
    really = getattr(os, call)
    with monkeypatch.context() as patched:

        def refuse(*args: object) -> object:
            if (trail / closed_name(15)).exists():
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return really(*args)

        patched.setattr(os, call, refuse)
        with pytest.raises(ResourceError):
            segment.end()
        with pytest.raises(ResourceError):
            segment.append([say(1)])
    segment.append([say(1)])
    segment.write_head()
    segment.close()
    assert (verify(trail).end, verify(trail).segments) == (19, 5)


def test_a_disk_that_fails_when_the_next_segment_is_in_its_place_spoils_neither(
    trail: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Segment(trail, KEY, introduce)
    fsync = os.fsync
    with monkeypatch.context() as patched:

        def refuse(file: int) -> None:
            if (trail / closed_name(15)).exists() and not (trail / "trail.next").exists():
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            fsync(file)

        patched.setattr(os, "fsync", refuse)
        with pytest.raises(ResourceError):
            segment.end()
    segment.append([say(1)])
    segment.write_head()
    segment.close()
    assert (verify(trail).end, verify(trail).segments) == (19, 5)
    write(trail, 1)  # and a start finds its end
    assert verify(trail).end == 20


def test_a_daemon_alarms_while_it_cannot_close_a_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = kit.bedside(tmp_path, audit={"segment": "64KiB"})
    with Journal(tmp_path / "j.sqlite3") as journal:
        alarms = Alarms(journal)
        log = AuditLog(config, alarms)

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        with monkeypatch.context() as patched:
            patched.setattr(os, "link", refuse)
            raised, cleared = _told(alarms, raised=True), _told(alarms, raised=False)
            _fill(log)
            assert raised.wait(10)
            assert not alarms.stands("audit-failed")
        _fill(log)
        assert cleared.wait(10)
        log.close()
        assert not alarms.stands("audit-failed", "segment")
    assert closed_segments(log.folder)
    verify_trail([log.folder], read_public_key(log.folder / PUBLIC))


def _fill(log: AuditLog) -> None:
    """With more than goes into a segment."""
    for _ in range(200):
        log.record(AuditEvent("received", user="CT1", instances=("1.2.3.4",) * 10))


def _told(alarms: Alarms, *, raised: bool) -> threading.Event:
    """Set when it is told that a segment cannot be closed, or can again."""
    told = threading.Event()
    wanted = ("audit-failed", "segment", raised)
    alarms.listeners.append(lambda alarm, now: told.set() if (alarm.code, alarm.subject, now) == wanted else None)
    return told


def test_the_last_entries_are_found_across_segments(trail: Path) -> None:
    assert last_messages(trail, 4) == [f"<AuditMessage>{text}</AuditMessage>" for text in ("1", "0", "after 14", "3")]
    assert len(last_messages(trail, 1000)) == 17


def test_a_line_that_is_ruined_hides_no_other(trail: Path) -> None:
    edit(TRAIL, lambda lines: [lines[0], b"\xff" + lines[1][1:], *lines[2:]])(trail)
    wanted = [f"<AuditMessage>{text}</AuditMessage>" for text in ("1", "after 14", "3", "2")]
    assert last_messages(trail, 4) == wanted
    assert list(messages_after(trail, 12)) == wanted[::-1]


@pytest.mark.parametrize("gone", [(TRAIL,), (TRAIL, HEAD), (HEAD, TRAIL, closed_name(10))])
def test_a_daemon_does_not_begin_anew_where_segments_or_a_head_are(trail: Path, gone: tuple[str, ...]) -> None:
    for name in gone:
        (trail / name).unlink()
    with pytest.raises(IntegrityError, match="cut off or changed"):
        Segment(trail, KEY, introduce)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def command(*arguments: object) -> tuple[int, str]:
        code = cli._run(["audit", "verify", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


def test_the_command_says_from_where_to_where_it_holds(trail: Path, run: Callable[..., tuple[int, str]]) -> None:
    code, said = run(trail)
    assert code == 0
    assert "17 entries" in said
    assert "entries 1 to 17, in 4 segment(s)" in said
    code, said = run(trail / closed_name(5), "--key", trail / PUBLIC)
    assert code == 0
    assert "entries 5 to 9, in 1 segment(s)" in said
    assert f"digest {verify(trail / closed_name(1)).digest}: the segment before must end" in said
    assert "what came later is not here" in said
    (trail / closed_name(1)).unlink()
    code, said = run(trail)
    assert code == 5
    assert "--from 5" in said
    code, said = run(trail, "--from", "5", "--json")
    found = json.loads(said)
    assert (code, found["begin"], found["end"], found["open"], found["own_key"]) == (0, 5, 17, True, False)
