"""The daemon as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgemed.base.child import package_environment
from edgemed.base.errors import DeviceStateError
from edgemed.serve.audit.segments import closed_name
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.http.page import facts
from edgemed.serve.lock import is_served, state_lock
from tests.serve import kit


def test_it_starts_and_ends(tmp_path: Path) -> None:
    with kit.running(kit.bedside(tmp_path)) as daemon:
        assert daemon.services.models.names() == ["chest"]
    assert (tmp_path / "state" / "journal.sqlite3").exists()


def test_an_audit_trail_that_is_gone_as_a_whole_is_missed(tmp_path: Path) -> None:
    config = kit.bedside(tmp_path)
    with kit.resting(config) as services:
        assert services.alarms.standing == []
    for name in ("trail.jsonl", "head.json"):
        (tmp_path / "state/audit" / name).unlink()
    with kit.resting(config) as services:
        assert services.alarms.stands("audit-failed", "trail")
        services.alarms.clear("audit-failed", "trail")
    with kit.resting(config) as services:
        assert services.alarms.standing == []


def test_a_trail_of_many_segments_that_is_gone_is_missed(tmp_path: Path) -> None:
    config = kit.bedside(tmp_path, audit={"segment": "64KiB"})
    folder = tmp_path / "state/audit"
    for count in (200, 0):  # the second start goes on in the segment after
        with kit.resting(config) as services:
            for _ in range(count):
                services.audit.record(AuditEvent("received", instances=("1.2.3.4",) * 10))
    assert (folder / closed_name(1)).exists()
    (folder / closed_name(1)).rename(tmp_path / "archived")
    with kit.resting(config) as services:
        assert services.alarms.standing == []
        assert facts.audit(services)["entries"]
    for path in (folder / "trail.jsonl", folder / "head.json"):
        path.unlink()
    with kit.resting(config) as services:
        assert services.alarms.stands("audit-failed", "trail")


def test_who_asks_whether_a_state_is_served_does_not_free_it(tmp_path: Path) -> None:
    ask = f"import pathlib; from edgemed.serve.lock import is_served; print(is_served(pathlib.Path({str(tmp_path)!r})))"

    def elsewhere() -> str:
        command = [sys.executable, "-c", ask]
        return subprocess.run(command, env=package_environment(), capture_output=True, text=True, check=True).stdout

    with state_lock(tmp_path):
        assert is_served(tmp_path)
        assert elsewhere() == "True\n"
        with pytest.raises(DeviceStateError, match="Another daemon"), state_lock(tmp_path):
            pass
        assert elsewhere() == "True\n"
    assert not is_served(tmp_path)


def test_alarms_about_what_the_configuration_no_longer_has_end_with_the_start(tmp_path: Path) -> None:
    gone = ["not-ready", "model-lost", "model-rejected", "model-rolled-back", "deadline-missed", "distribution-shift"]
    gone += ["shadow-disagrees", "source-lost", "folder-failed"]
    config = kit.bedside(tmp_path)
    with kit.resting(config) as services:
        for code in gone:
            services.alarms.raise_(code, "It was so.", "gone")
        services.alarms.raise_("model-rolled-back", "It was taken back.", "chest")
    with kit.running(config) as daemon:
        standing = {(alarm.code, alarm.subject) for alarm in daemon.services.alarms.standing}
    assert {subject for _, subject in standing} <= {"chest"}
    assert ("model-rolled-back", "chest") in standing
