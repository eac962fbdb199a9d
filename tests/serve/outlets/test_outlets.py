"""All lanes of a daemon together: woken, measured, started again; and destinations that are there no more."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from edgemed.serve.journal.records import move_delivery, move_task
from edgemed.serve.outlets.outlets import Outlets, make_lane
from edgemed.serve.services import Services
from edgemed.serve.states import Event
from tests.serve.outlets import bench
from tests.serve.outlets.servers import Asked, Reply, site
from tests.waiting import wait_for


def folder(path: Path, name: str = "out") -> dict[str, Any]:
    return {"kind": "folder", "name": name, "path": path, "retry": {"first": "50ms", "cap": "100ms"}}


def metric(services: Services, name: str, **labels: str) -> float:
    return services.metrics.registry.get_sample_value(f"edgemed_{name}", labels) or 0.0


def test_files_appear_whole_under_names_that_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with bench.services(tmp_path, folder(out)) as services:
        Outlets(services).start()
        task = bench.add_task(services, [("sr", "1.2.3", b"report"), ("json", "", b"{}")], subject="9.8.7")
        services.timelines.opened(task, "chest", [])
        services.loops.wake("outlets")
        wait_for(lambda: bench.states(services, "task") == ["delivered"])
        assert {path.name: path.read_bytes() for path in out.iterdir()} == {
            "1.2.3.dcm": b"report",
            "chest-9.8.7.json": b"{}",
        }
        wait_for(lambda: metric(services, "deliveries_total", destination="out", outcome="delivered") == 2)
        wait_for(lambda: metric(services, "inputs_ended_total", model="chest", end="delivered") == 1)
        (line,) = services.timelines.recent
        assert set(line.points) == {"sent"}


def test_a_full_share_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "1.2.3.dcm").write_bytes(b"the one before")
    sync = os.fsync

    def full(fd: int) -> None:
        if not list(out.glob(".*.partial")):
            return sync(fd)
        raise OSError(errno.ENOSPC, "No space left on device")

    with bench.services(tmp_path, folder(out)) as services:
        bench.add_task(services, [("sr", "1.2.3", b"report")])
        lane = make_lane(services, services.config.destinations[0])
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            lane.step(bench.always)
        assert "No space left" in bench.reasons(services)[0]
        assert {path.name: path.read_bytes() for path in out.iterdir()} == {"1.2.3.dcm": b"the one before"}
        wait_for(lambda: lane.step(bench.always) or bench.states(services) == ["delivered"])
        assert (out / "1.2.3.dcm").read_bytes() == b"report"
        assert (out / "1.2.3.dcm").stat().st_mode & 0o777 == 0o640


def test_a_share_that_is_not_mounted_is_waited_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with bench.services(tmp_path, folder(out)) as services:
        Outlets(services).start()
        bench.add_task(services, [("sr", "1.2.3", b"report")])
        services.loops.wake("outlets")
        wait_for(lambda: "delivery-late" in bench.alarms(services))
        assert not out.exists()
        out.mkdir()
        wait_for(lambda: bench.states(services) == ["delivered"])
        wait_for(lambda: bench.alarms(services) == set())


def test_one_destination_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    release = threading.Event()

    def hang(asked: Asked) -> Reply:
        release.wait(20)
        return 200, {}, b""

    with site(hang) as server:
        hook = {"kind": "webhook", "name": "hook", "url": f"http://127.0.0.1:{server.port}/"}
        with bench.services(tmp_path, hook, folder(out)) as services:
            Outlets(services).start()
            bench.add_task(services, [("json", "", json.dumps({}).encode())])
            services.loops.wake("outlets")
            wait_for(lambda: bench.states(services) == ["pending", "delivered"])
            wait_for(lambda: server.asked)
            wait_for(lambda: metric(services, "waiting_deliveries", destination="hook") == 1)
            release.set()
            wait_for(lambda: bench.states(services, "task") == ["delivered"])


def test_a_restart_goes_on_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    retry = {"retry": {"first": "1h", "cap": "1h"}}
    with bench.services(tmp_path, {**folder(out), **retry}) as services:
        Outlets(services).start()
        bench.add_task(services, [("sr", "1.2.3", b"report")])
        services.loops.wake("outlets")
        wait_for(lambda: bench.reasons(services) != [""])
    out.mkdir()
    with bench.services(tmp_path, {**folder(out), **retry}) as services:
        Outlets(services).start()
        wait_for(lambda: bench.states(services) == ["delivered"])


def test_results_for_a_destination_that_was_taken_away_are_told_of(tmp_path: Path) -> None:
    with bench.services(tmp_path, folder(tmp_path / "out", "old")) as services:
        bench.add_task(services, [("sr", "1.2.3", b"report")])
    with bench.services(tmp_path, folder(tmp_path, "new")) as services:
        Outlets(services).start()
        wait_for(lambda: bench.reasons(services) == ["The configuration has no destination of this name any more."])
        assert bench.states(services) == ["pending"]


def test_a_retry_for_a_destination_that_was_taken_away_is_told_of_too(tmp_path: Path) -> None:
    with bench.services(tmp_path, folder(tmp_path / "out", "old")) as services:
        bench.add_task(services, [("sr", "1.2.3", b"report")])
        services.journal.write(lambda c: move_delivery(c, 1, "failed"))
    with bench.services(tmp_path, folder(tmp_path, "new")) as services:
        Outlets(services).start()
        services.journal.write(lambda c: move_task(c, 1, Event.RETRY))
        for event in (Event.START, Event.ANSWER):
            services.journal.write(lambda c, event=event: move_task(c, 1, event))  # type: ignore[misc]
        services.journal.write(lambda c: move_delivery(c, 1, "pending"))
        services.loops.wake("outlets")
        wait_for(lambda: bench.reasons(services) == ["The configuration has no destination of this name any more."])


def test_alarms_of_a_destination_that_was_taken_away_end_when_nothing_waits_for_it(tmp_path: Path) -> None:
    with bench.services(tmp_path, folder(tmp_path, "new")) as services:
        for code in ("delivery-late", "delivery-failed"):
            services.alarms.raise_(code, "It is not there.", "old")
        Outlets(services).start()
        wait_for(lambda: bench.alarms(services) == set())


def test_who_looks_after_them_begins_again_without_a_second_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench.services(tmp_path, folder(tmp_path / "out", "old")) as services:
        bench.add_task(services, [("sr", "1.2.3", b"report")])
    rounds: list[None] = []

    def measure(_: Outlets, found: object) -> None:
        rounds.append(None)
        if len(rounds) == 1:
            raise OSError(errno.EIO, "the disk")

    monkeypatch.setattr(Outlets, "_measure", measure)
    with bench.services(tmp_path, folder(tmp_path, "new")) as services:
        Outlets(services).start()
        wait_for(lambda: len(rounds) > 1)
        assert [thread.name for thread in threading.enumerate()].count("outlet old") == 1


def test_the_alarm_stands_until_nothing_is_failed_any_more(tmp_path: Path) -> None:
    with bench.services(tmp_path, folder(tmp_path)) as services:
        task = bench.add_task(services, [("sr", "1.2.3", b"report")])
        with services.journal.read() as connection:
            (path,) = connection.execute("SELECT path FROM result").fetchone()
        services.spool.path(path).unlink()
        Outlets(services).start()
        wait_for(lambda: bench.states(services, "task") == ["failed"])
        assert bench.alarms(services) == {"delivery-failed"}
        assert bench.reasons(services) == ["Its file in the spool is gone."]
        bench.again(services, task, [("sr", "1.2.3", b"report")])
        services.loops.wake("outlets")
        wait_for(lambda: bench.states(services, "task") == ["delivered"])
        services.loops.wake("outlets")
        wait_for(lambda: bench.alarms(services) == set())


def test_a_site_that_asks_for_commitment_no_more_is_done_with_what_was_stored(tmp_path: Path) -> None:
    pacs = {"kind": "dicom", "name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}
    with bench.services(tmp_path, pacs) as services:
        bench.add_task(services, [("sr", "1.2.3", b"report")])
        services.journal.write(lambda c: move_delivery(c, 1, "sent"))
    with bench.services(tmp_path, {**pacs, "commitment": False}) as services:
        Outlets(services).start()
        assert bench.states(services, "task") == ["delivered"]
