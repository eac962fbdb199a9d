"""Power cuts lose nothing that was promised; and the disk that says so catches those who promise too early."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.serve.powercut.campaign import run
from tests.serve.powercut.disk import Disk, Record


def test_what_was_promised_outlives_power_cuts() -> None:
    outcome = run(1, 10, seed=7)
    assert outcome.promised > 100
    assert (outcome.lost, outcome.changed, outcome.remade) == (0, 0, 0)
    assert outcome.unaccounted == 0
    assert outcome.rowless == 0  # the journal kept its rows by itself
    assert (outcome.told > 100, outcome.untold) == (True, 0), outcome.notes
    assert outcome.arrived > 0  # power went before rows could say that their files are there


def test_the_disk_catches_a_trail_that_is_not_synced() -> None:
    assert run(1, 2, seed=7, mutation="no-file-sync", lives=1).untold > 0


@pytest.mark.parametrize("mutation", ["no-file-sync", "no-folder-sync", "ack-first", "row-alone"])
def test_the_disk_catches_a_cheater(mutation: str) -> None:
    outcome = run(1, 2, seed=7, mutation=mutation, lives=1)
    assert outcome.lost + outcome.changed > 0


def test_rows_that_were_never_synced_are_made_again_from_the_spool() -> None:
    outcome = run(1, 2, seed=7, mutation="no-journal-sync", lives=1)
    assert outcome.rowless > 0
    assert (outcome.lost, outcome.changed) == (0, 0)


def test_only_what_was_synced_survives_the_strictest_disk(tmp_path: Path) -> None:
    top, old, new = (tmp_path / name for name in ("top", "old", "new"))
    for folder in (top, old, new):
        folder.mkdir()
    disk = Disk(top)
    inode, records = 10**9, []
    for name, synced in (("safe", True), ("written", False)):
        inode += 1
        records += [Record("C", inode, 0, str(top / name), "", b""), Record("W", inode, 0, "", "", b"bytes")]
        records += [Record("S", inode, 0, "", "", b"")] if synced else []
    records.append(Record("S", top.stat().st_ino, 0, "", "", b""))
    records.append(Record("C", inode + 1, 0, str(top / "nameless"), "", b""))
    records.append(Record("R", 0, 0, str(top / "safe"), str(top / "renamed"), b""))
    for record in records:
        disk.replay(record)
    disk.rebuild(old, 0.0, random.Random(0))
    disk.rebuild(new, 1.0, random.Random(0))
    assert {file.name: file.read_bytes() for file in old.iterdir()} == {"safe": b"bytes", "written": b""}
    assert {file.name for file in new.iterdir()} == {"renamed", "written", "nameless"}
