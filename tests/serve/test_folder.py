"""Watched folders: what is taken, what is left, and what never may happen to a file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_file
from edgemed.serve import dropped, folder
from edgemed.serve.folder import REJECTED, FolderInlets, WatchedFolder
from edgemed.serve.loops import Beat
from edgemed.serve.routing import Router
from edgemed.serve.services import Services
from tests.serve import kit
from tests.serve.store import rows
from tests.waiting import wait_for

SETTLE_NS = 1_000_000


class Inlet:
    """A folder that is looked at by hand."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.folder = WatchedFolder(services, services.config.folders[0])
        self.path = services.config.folders[0].path
        self.beat = Beat("folder", 10**15, threading.Event())

    def look(self, times: int = 2) -> None:
        """So often that what has settled was taken; a file that is no image is only believed to be none in the end."""
        for _ in range(times):
            self.folder.look(self.beat)
            time.sleep(2 * dropped_doubt() / 1e9)

    def rows(self) -> list[Any]:
        self.services.journal.settle()
        return rows(self.services.journal)

    def alarms(self) -> list[tuple[str, str]]:
        return [(alarm.code, alarm.subject) for alarm in self.services.alarms.standing]


def dropped_doubt() -> int:
    return folder._DOUBT * SETTLE_NS


@contextmanager
def watching(root: Path, monkeypatch: pytest.MonkeyPatch, **lines: Any) -> Iterator[Inlet]:
    monkeypatch.setattr(folder, "_AGAIN_NS", SETTLE_NS)
    drop = root / "drop"
    drop.mkdir(exist_ok=True)
    config = kit.bedside(root, folders=[{"name": "drop", "path": drop, "settle_ns": SETTLE_NS, **lines}])
    with kit.resting(config) as services:
        yield Inlet(services)


tmp_path = kit.folder_in_memory


@pytest.fixture
def inlet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inlet]:
    with watching(tmp_path, monkeypatch) as made:
        yield made


def test_a_dicom_file_is_told_by_its_content_and_hashed_as_the_network_would(inlet: Inlet) -> None:
    ds = kit.image()
    (inlet.path / "sub").mkdir()
    kit.write(ds, inlet.path / "sub" / "scan.txt")
    inlet.look()
    (row,) = inlet.rows()
    assert (row["inlet"], row["peer"], row["state"]) == ("drop", "", "received")
    assert (row["sop_class"], row["sop_instance"]) == (kit.CT, ds.SOPInstanceUID)
    assert (row["study"], row["series"]) == (ds.StudyInstanceUID, ds.SeriesInstanceUID)
    assert inlet.services.spool.path(row["path"]).read_bytes() == kit.encode(ds)
    assert not (inlet.path / "sub" / "scan.txt").exists()
    assert kit.arrive(inlet.services, ds).verdict == "repeated"  # the same over the network


@pytest.mark.parametrize("form", ["png", "jpeg", "tiff"])
def test_a_picture_is_named_by_its_content(inlet: Inlet, form: str) -> None:
    path = inlet.path / "picture"
    Image.new("L", (8, 8), 99).save(path, form)
    digest = sha256_file(path)
    inlet.look()
    (row,) = inlet.rows()
    assert (row["sop_class"], row["sop_instance"], row["sha256"]) == ("", f"file:{digest}", digest)
    assert not path.exists()


def test_a_file_is_taken_when_it_has_not_changed_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(folder.time, "monotonic_ns", lambda: now[0])
    with watching(tmp_path, monkeypatch, settle_ns=100) as inlet:
        path = kit.write(kit.image(), inlet.path / "a.dcm")
        for moment in (0, 60, 99):
            now[0] = moment
            inlet.folder.look(inlet.beat)
        os.utime(path, ns=(1, 1))  # it was written again
        for moment in (100, 160, 199):
            now[0] = moment
            inlet.folder.look(inlet.beat)
        assert inlet.rows() == []
        now[0] = 200
        inlet.folder.look(inlet.beat)
        assert len(inlet.rows()) == 1


def test_a_file_that_changes_while_it_is_copied_is_not_taken(inlet: Inlet, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kit.write(kit.image(), inlet.path / "a.dcm")
    copy = dropped.copy_dropped

    def slow(*values: Any) -> bool:
        with path.open("ab") as file:
            file.write(b"more")
        return copy(*values)

    monkeypatch.setattr(folder, "copy_dropped", slow)
    inlet.look()
    assert inlet.rows() == []
    assert list(inlet.services.spool.incoming.iterdir()) == []
    assert path.exists()


def test_half_a_file_waits_and_is_taken_when_it_is_whole(inlet: Inlet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_DOUBT", 10**9)
    whole = kit.encode(kit.image())
    path = inlet.path / "a.dcm"
    path.write_bytes(whole[:-100])  # its header is whole, its pixels are not
    inlet.folder.look(inlet.beat)
    time.sleep(0.01)
    inlet.folder.look(inlet.beat)
    assert inlet.rows() == []
    assert path.exists()
    path.write_bytes(whole)
    inlet.folder.look(inlet.beat)
    time.sleep(0.01)
    inlet.folder.look(inlet.beat)
    assert [row["state"] for row in inlet.rows()] == ["received"]


@pytest.mark.parametrize("content", [b"", b"notes of a meeting", b"\0" * 128 + b"DICM" + b"\x08\x00" * 9])
def test_what_is_nothing_for_us_goes_aside_with_an_alarm(inlet: Inlet, content: bytes) -> None:
    (inlet.path / "Doe^Jane.txt").write_bytes(content)
    inlet.look(4)
    assert (inlet.path / REJECTED / "Doe^Jane.txt").read_bytes() == content
    (row,) = inlet.rows()
    assert (row["state"], row["path"]) == ("refused", "")
    assert row["reason"].startswith("It is not taken: ")
    assert "Doe" not in row["reason"]
    assert inlet.alarms() == [("input-failed", "folder drop")]
    (inlet.path / "Doe^Jane.txt").write_bytes(b"another one of that name")
    inlet.look(4)
    assert len(list((inlet.path / REJECTED).iterdir())) == 2
    for file in (inlet.path / REJECTED).iterdir():
        file.unlink()
    inlet.look(1)
    assert inlet.alarms() == []


def test_links_pipes_and_transfers_under_way_are_left_alone(inlet: Inlet, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = kit.write(kit.image(), outside / "secret.dcm")
    (inlet.path / "link.dcm").symlink_to(secret)
    (inlet.path / "folder").symlink_to(outside)
    os.mkfifo(inlet.path / "pipe.dcm")
    for name in (".hidden.dcm", "a.dcm.part", "b.PARTIAL", "c.tmp"):
        kit.write(kit.image(), inlet.path / name)
    before = sorted(inlet.path.iterdir())
    inlet.look(4)
    assert inlet.rows() == []
    assert sorted(inlet.path.iterdir()) == before
    assert secret.exists()
    assert inlet.alarms() == []


def test_a_file_that_becomes_a_link_between_two_looks_is_not_followed(inlet: Inlet, tmp_path: Path) -> None:
    secret = kit.write(kit.image(), tmp_path / "secret.dcm")
    (inlet.path / "a").symlink_to(secret)
    with folder._opened(inlet.path) as opened, pytest.raises(OSError, match="symbolic link"):
        dropped.open_dropped("a", opened)


def test_any_name_will_do(inlet: Inlet) -> None:
    names = [b"new\nline.dcm", b"not utf-8 \xff\xfe", "Мария".encode(), b"x" * 255, b"-rf *"]
    for name in names:
        (inlet.path / os.fsdecode(name)).write_bytes(kit.encode(kit.image()))
    inlet.look()
    assert len(inlet.rows()) == len(names)
    assert list(inlet.path.iterdir()) == []


def test_a_file_beyond_the_limit_goes_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watching(tmp_path, monkeypatch, max_file="1KiB") as inlet:
        kit.write(kit.image(), inlet.path / "a.dcm")
        inlet.look(4)
        (row,) = inlet.rows()
        assert row["reason"] == "It is not taken: it is larger than 1,024 bytes."
        assert list(inlet.services.spool.incoming.iterdir()) == []


def test_other_content_under_a_known_uid_leaves_the_folder_and_is_kept(inlet: Inlet) -> None:
    kit.write(kit.image(instance="1.2.3", level=100), inlet.path / "a.dcm")
    inlet.look()
    kit.write(kit.image(instance="1.2.3", level=150), inlet.path / "b.dcm")
    inlet.look()
    assert list(inlet.path.iterdir()) == []
    assert [row["state"] for row in inlet.rows()] == ["received", "refused"]
    assert len(list(inlet.services.spool.quarantine.iterdir())) == 1


def test_killed_between_journal_and_removal_it_is_found_again_and_removed(inlet: Inlet) -> None:
    path = kit.write(kit.image(), inlet.path / "a.dcm")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    inlet.folder._remove = killed  # type: ignore[method-assign]
    inlet.folder.look(inlet.beat)
    time.sleep(0.01)
    with pytest.raises(KeyboardInterrupt):
        inlet.folder.look(inlet.beat)
    assert path.exists()
    assert len(inlet.rows()) == 1
    inlet.folder = WatchedFolder(inlet.services, inlet.services.config.folders[0])
    inlet.look()
    (row,) = inlet.rows()
    assert not path.exists()
    assert row["repeats"] == 1


def test_a_new_file_that_comes_under_the_name_meanwhile_is_not_lost(inlet: Inlet) -> None:
    path = kit.write(kit.image(instance="1.2.3"), inlet.path / "a.dcm")
    remove = inlet.folder._remove

    def late(*values: Any) -> None:
        kit.write(kit.image(instance="1.2.4"), inlet.path / "new")
        (inlet.path / "new").replace(path)
        remove(*values)
        inlet.folder._remove = remove  # type: ignore[method-assign]

    inlet.folder._remove = late  # type: ignore[method-assign]
    inlet.look(4)
    assert sorted(row["sop_instance"] for row in inlet.rows()) == ["1.2.3", "1.2.4"]
    assert list(inlet.path.iterdir()) == []


def test_another_file_in_the_same_inode_is_another_file(inlet: Inlet) -> None:
    path = inlet.path / "a.dcm"
    for number in range(2, 5):
        kit.write(kit.image(instance=f"1.2.{number}"), path)  # of the same size
        os.utime(path, ns=(1, 1))  # rsync and cp -p bring the time with them
        inlet.look()
        assert not path.exists()
        assert inlet.folder._seen == {}  # not every file system gives a number again at once
    assert [row["sop_instance"] for row in inlet.rows()] == ["1.2.2", "1.2.3", "1.2.4"]


def test_a_folder_that_goes_and_comes_back(inlet: Inlet) -> None:
    aside = inlet.path.with_name("aside")
    inlet.path.rename(aside)
    inlet.look()
    assert inlet.alarms() == [("folder-failed", "folder drop")]
    aside.rename(inlet.path)
    kit.write(kit.image(), inlet.path / "a.dcm")
    inlet.look()
    assert inlet.alarms() == []
    assert len(inlet.rows()) == 1


def test_while_the_disk_is_full_files_wait(inlet: Inlet, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kit.write(kit.image(), inlet.path / "a.dcm")
    with monkeypatch.context() as full:
        full.setattr(type(inlet.services.spool), "free_bytes", property(lambda _: 0))
        inlet.look(3)
        assert path.exists()
        assert inlet.rows() == []
    inlet.look(3)
    assert not path.exists()
    assert len(inlet.rows()) == 1


def test_what_cannot_be_removed_is_taken_once_and_told(inlet: Inlet, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.write(kit.image(), inlet.path / "a.dcm")
    with monkeypatch.context() as denied:

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        denied.setattr(folder.os, "rename", refuse)
        inlet.look(4)
    (row,) = inlet.rows()
    assert row["repeats"] == 0
    assert inlet.alarms() == [("folder-failed", "folder drop")]
    inlet.look(2)
    assert list(inlet.path.iterdir()) == []
    assert inlet.alarms() == []


def test_an_error_of_ours_is_alarmed_and_tried_less_and_less_often(
    inlet: Inlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.write(kit.image(), inlet.path / "a.dcm")
    tries: list[int] = []

    def stumble(*_: object) -> None:
        tries.append(time.monotonic_ns())
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(type(inlet.services.intake), "_accept", stumble)
        broken.setattr(folder, "_AGAIN_NS", 60 * folder.SECOND)
        inlet.look(2)
        (seen,) = inlet.folder._seen.values()
        assert len(tries) == 1
        for _ in range(9):
            seen.next_ns = 0
            inlet.look(1)
        assert seen.next_ns - tries[-1] >= 60 * 2**7 * folder.SECOND
        assert len(tries) == 10
        assert sorted(inlet.alarms()) == [("folder-failed", "folder drop"), ("input-failed", "drop")]
    seen.next_ns = 0
    inlet.look(2)
    assert inlet.alarms() == [("input-failed", "drop")]
    Router(inlet.services).start()
    wait_for(lambda: not inlet.alarms())


@pytest.mark.parametrize("where", ["state/drop", ".", "out/in"])
def test_folders_that_overlap_stop_the_start(tmp_path: Path, where: str) -> None:
    out = {"name": "out", "kind": "folder", "path": tmp_path / "out"}
    config = kit.bedside(tmp_path, folders=[{"name": "drop", "path": tmp_path / where}], destinations=[out])
    with kit.resting(config) as services, pytest.raises(InputError, match="overlaps"):
        FolderInlets(services).start()


def test_the_part_takes_files_by_itself_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watching(tmp_path, monkeypatch) as inlet:
        part = FolderInlets(inlet.services)
        part.start()
        taken = threading.Event()
        inlet.services.intake.on_accepted.append(lambda *_: taken.set())
        kit.write(kit.image(), inlet.path / "a.dcm")
        assert taken.wait(60)
        part.drain()
        assert inlet.services.loops.stop(60_000_000_000) == []
