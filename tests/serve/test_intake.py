"""The one door: accepted, repeated, conflict."""

from __future__ import annotations

from pathlib import Path

from edgemed.base.hashing import sha256_bytes
from edgemed.serve.intake import Arrival, Intake
from tests.serve import kit


def arrive(intake: Intake, uid: str, data: bytes) -> Arrival:
    file = intake.new_file()
    file.write_bytes(data)
    return Arrival(file, "dicom", "CT1", kit.CT, uid, sha256_bytes(data), len(data))


def test_accepted_repeated_conflict(tmp_path: Path) -> None:
    with kit.running(kit.bedside(tmp_path)) as daemon:
        intake, spool = daemon.services.intake, daemon.services.spool
        first = intake.accept(arrive(intake, "1.2.3", b"one"))
        assert (first.verdict, first.success) == ("accepted", True)
        assert intake.accept(arrive(intake, "1.2.3", b"one")).verdict == "repeated"
        other = intake.accept(arrive(intake, "1.2.3", b"two"))
        assert (other.verdict, other.success) == ("conflict", False)
        assert [file.read_bytes() for file in spool.quarantine.iterdir()] == [b"two"]
        query = "SELECT path, repeats FROM object WHERE id = ?"  # asked of the writer: a repeat is counted afterwards
        row = daemon.services.journal.write(lambda c: c.execute(query, (first.number,)).fetchone())
        assert spool.path(row["path"]).read_bytes() == b"one"
        assert row["repeats"] == 1
        assert "input-conflict" in [alarm.code for alarm in daemon.services.alarms.standing]
        assert list(spool.incoming.iterdir()) == []
