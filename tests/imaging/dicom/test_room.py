"""Deflated files of several frames, read by several threads, take no more memory than there is for them."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgemed.base.errors import ResourceError
from edgemed.imaging.dicom import open_dicom, room
from tests.imaging.dicom.writing import DEFLATED, dataset, save
from tests.waiting import wait_for

FRAMES, SIZE = 4, 4 * 4 * 6


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> room.Room:
    """Room for two files and a half."""
    made = room.Room(SIZE * 5 // 2)
    monkeypatch.setattr(room, "_ROOM", made)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = dataset(NumberOfFrames=FRAMES, PixelData=bytes(range(SIZE)))
    return save(made, tmp_path / "cine.dcm", DEFLATED)


def test_threads_share_the_room_and_each_is_answered(path: Path, small: room.Room) -> None:
    held: list[int] = []

    def read(_: int) -> int:
        file = open_dicom(path)
        held.append(small.held)
        return sum(int(file.samples(index).pixels.sum()) for index in range(file.frames))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(64))) == {sum(range(SIZE))}
    assert 0 < max(held) <= 2 * SIZE
    assert small.held == 0


def test_one_that_finds_no_room_waits_for_the_others(path: Path, small: room.Room) -> None:
    files = [open_dicom(path), open_dicom(path), open_dicom(path)]  # a thread that holds some is not held up
    read = threading.Event()
    waiting = threading.Thread(target=lambda: (open_dicom(path), read.set()), daemon=True)
    waiting.start()
    files.pop()
    assert not read.wait(0.2)  # two of ours are left
    files.pop()
    wait_for(read.is_set)
    waiting.join()
    assert small.held == SIZE


def test_what_finds_no_room_in_time_is_refused_as_what_may_be_tried_again(
    path: Path, small: room.Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_PATIENCE_S", 0.0)
    files = [open_dicom(path) for _ in range(2)]
    with ThreadPoolExecutor(1) as pool, pytest.raises(ResourceError, match="Other deflated files are being read"):
        pool.submit(open_dicom, path).result()
    assert small.held == SIZE * len(files)


def test_one_that_is_larger_than_the_room_is_read_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_ROOM", room.Room(1))
    assert open_dicom(path).frames == FRAMES


def test_what_could_not_be_read_holds_nothing(path: Path, small: room.Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr(room, "read_spans", gone)
    with pytest.raises(ResourceError):
        open_dicom(path)
    assert small.held == 0
