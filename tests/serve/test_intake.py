"""The one door: accepted, repeated, conflict."""

from __future__ import annotations

from pathlib import Path

from edgemed.base.hashing import sha256_bytes
from edgemed.serve.intake import Arrival, Intake
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.recovery import JOURNAL
from tests.serve import kit
from tests.waiting import wait_for


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
        with daemon.services.journal.read() as connection:
            path = connection.execute("SELECT path FROM object WHERE id = ?", (first.number,)).fetchone()["path"]
        assert spool.path(path).read_bytes() == b"one"
        assert "input-conflict" in [alarm.code for alarm in daemon.services.alarms.standing]
        wait_for(lambda: not any(spool.incoming.iterdir()))  # the rehearsal of results writes there, too
    with Journal(tmp_path / "state" / JOURNAL) as journal, journal.read() as connection:  # it is counted by and by
        assert connection.execute("SELECT repeats FROM object WHERE id = ?", (first.number,)).fetchone()[0] == 1
