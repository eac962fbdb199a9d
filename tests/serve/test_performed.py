"""Images that procedure steps name: waited for, told of, missed; by the real router, inlet and journal."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from edgemed.base.quantity import SECOND
from edgemed.cli.app import invoke
from edgemed.serve.completeness import Collector, Told
from edgemed.serve.config.models import Completeness
from edgemed.serve.daemon import Daemon
from edgemed.serve.dicom.inlet import DicomInlet
from edgemed.serve.journal.records import move_object, move_task, open_task
from edgemed.serve.journal.recovery import JOURNAL
from edgemed.serve.journal.routes import LATE
from edgemed.serve.journal.steps import create_step, named, set_step, unfinished
from edgemed.serve.performed import Performed
from edgemed.serve.reconcile import reconcile
from edgemed.serve.routing import Router
from edgemed.serve.services import Part, Services
from edgemed.serve.states import Event
from tests.serve import kit
from tests.serve.dicom.modality import MODALITY, Modality, begun, ended
from tests.serve.process import free_port, started
from tests.serve.store import rows, wait_routed
from tests.waiting import wait_for

NEVER = {"association": False, "quiet": "1h"}  # nothing but a count or a step completes it
STUDY = "1.1"


def image(series: int, number: int, **attributes: Any) -> Dataset:
    uids = {"study": STUDY, "series": f"1.1.{series}", "instance": uid(series, number)}
    return kit.image(rows=8, columns=8, **uids, **attributes)


def uid(series: int, number: int) -> str:
    return f"1.1.{series}.{number}"


def names(series: int, count: int, first: int = 0) -> dict[str, list[str]]:
    return {f"1.1.{series}": [uid(series, n) for n in range(first, first + count)]}


def missed(images: str, series: int) -> tuple[str, str]:
    """The warning: whose, and its text."""
    text = f"{images} images that procedure steps name did not come for ct, of {series} series;"
    return "ct", f"{text} `edgemed reconcile` lists them."


class Taken(Daemon):
    """The daemon as far as the queue."""

    def _all_parts(self, services: Services) -> Sequence[Part]:
        return [Router(services), DicomInlet(services)]


class Bedside:
    """One, and a modality that sends and tells."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        self.services = daemon.services
        self.modality = Modality(port, "CT1", kit.CT)

    def send(self, *images: Dataset) -> None:
        for ds in images:
            assert self.modality.association.send_c_store(ds).Status == 0

    def tell(self, step: str, series: dict[str, list[str]], status: str = "COMPLETED") -> None:
        if not self.rows("SELECT 1 FROM step WHERE sop_instance = ?", step):
            assert self.modality.create(step, begun(STUDY)).Status == 0
        if status:
            assert self.modality.set(step, ended(series, status)).Status == 0

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return rows(self.services.journal, sql, *values)

    def tasks(self) -> list[tuple[str, int, str]]:
        """Subject, revision and reason of those that are complete; when everything is routed."""
        wait_routed(self.services.journal)
        found = self.rows("SELECT subject, revision, completeness FROM task WHERE state <> 'collecting' ORDER BY id")
        return [tuple(row) for row in found]

    def settled(self) -> list[tuple[str, int, str]]:
        """The same after some rounds of the router."""
        before = self.services.loops.beats["router"].last_ns
        for _ in range(3):
            self.services.loops.wake("router")
            wait_for(lambda: self.services.loops.beats["router"].last_ns > before, "a round")  # noqa: B023
            before = self.services.loops.beats["router"].last_ns
        return self.tasks()

    def alarms(self) -> list[tuple[str, str]]:
        return [
            (alarm.subject, alarm.text) for alarm in self.services.alarms.standing if alarm.code == "images-missing"
        ]


@contextmanager
def bedside(root: Path, level: str = "series", completeness: dict[str, Any] | None = None, **lines: Any):
    model = {"name": "ct", "bundle": "unused.edgemed", "level": level, "completeness": completeness or NEVER, **lines}
    dicom = {"host": "127.0.0.1", "port": 0, "peers": [MODALITY]}
    with Taken(kit.bedside(root, models=[model], dicom=dicom)) as daemon:
        inlet = daemon.part("dicom")
        assert isinstance(inlet, DicomInlet)
        made = Bedside(daemon, inlet.port)
        with made.modality:
            yield made


tmp_path = kit.folder_in_memory


def test_the_last_image_that_a_step_names_completes_a_series(tmp_path: Path) -> None:
    with bedside(tmp_path) as running:
        running.tell("9.1", {}, "")
        running.send(image(0, 0), image(0, 1))
        running.tell("9.1", names(0, 3))
        assert running.settled() == []
        running.send(image(0, 2))
        reason = "all 3 images that the procedure step names"
        wait_for(lambda: running.tasks() == [("1.1.0", 1, reason)], "completion")
        assert running.alarms() == []


def test_a_step_that_ends_after_its_images(tmp_path: Path) -> None:
    with bedside(tmp_path) as running:
        running.send(image(0, 0), image(0, 1), image(1, 0))
        assert running.settled() == []
        running.tell("9.1", names(0, 2) | names(1, 2))
        wait_for(lambda: [task[0] for task in running.tasks()] == ["1.1.0"], "completion")
        assert [task[0] for task in running.settled()] == ["1.1.0"]


def test_what_the_model_does_not_take_has_come_as_well(tmp_path: Path) -> None:
    with bedside(tmp_path, match={"series_description": "thin"}) as running:
        running.tell("9.1", names(0, 2))
        running.send(image(0, 0, SeriesDescription="thin"))
        assert running.settled() == []
        running.send(image(0, 1, SeriesDescription="scout"))
        wait_for(lambda: len(running.tasks()) == 1, "completion")
        assert running.rows("SELECT count(*) FROM part")[0][0] == 1


def test_a_release_is_not_believed_while_images_are_missing_and_they_are_told_of(tmp_path: Path) -> None:
    """After the timer; then the late image makes a revision, and the warning is over."""
    with bedside(tmp_path, completeness={"after": "1ms", "quiet": "2s"}) as running:
        running.tell("9.1", names(0, 3))
        running.send(image(0, 0))
        running.modality.association.release()
        wait_for(running.tasks, "the timer")
        reason = "no image for 2 s; 2 of the 3 images that the procedure step names are missing"
        assert running.tasks() == [("1.1.0", 1, reason)]
        wait_for(lambda: running.alarms() == [missed("2 of 3", 1)], "the warning")
        for number in (1, 2):
            kit.arrive(running.services, image(0, number))
        wait_for(lambda: len(running.tasks()) == 2, "the revision")
        assert running.tasks()[1] == ("1.1.0", 2, "all 3 images that the procedure step names")
        wait_for(lambda: not running.alarms(), "the end of the warning")


def test_images_are_missed_where_the_step_ends_after_the_task(tmp_path: Path) -> None:
    with bedside(tmp_path, completeness={"after": "1ms", "quiet": "1s", "reopen": False}) as running:
        kit.arrive(running.services, image(0, 0), association="x")
        running.services.intake.association_ended("x", released=True)
        wait_for(running.tasks, "the release")
        assert running.tasks()[0][2] == "association released, then quiet; 1 images"
        running.tell("9.1", names(0, 2))
        wait_for(running.alarms, "the warning")
        kit.arrive(running.services, image(0, 1))
        wait_for(lambda: running.rows("SELECT 1 FROM object WHERE reason = ?", LATE), "the late image")
        kit.arrive(running.services, image(1, 0))
        running.tell("9.2", names(1, 1))
        wait_for(lambda: not running.alarms(), "the end of the warning")


def test_the_warning_outlives_the_next_patient(tmp_path: Path) -> None:
    """It is over when the images have come, or somebody has seen it."""
    with bedside(tmp_path, completeness={"after": "1ms", "quiet": "1s"}) as running:
        for series, count in ((0, 3), (1, 2)):
            running.tell(f"9.{series}", names(series, count))
            running.send(image(series, 0))
        wait_for(lambda: running.alarms() == [missed("3 of 5", 2)], "the warning")
        kit.arrive(running.services, image(2, 0))
        running.tell("9.2", names(2, 1))
        wait_for(lambda: len(running.tasks()) == 3, "the next series")
        running.settled()
        assert running.alarms() == [missed("3 of 5", 2)]
        kit.arrive(running.services, image(1, 1))
        wait_for(lambda: running.alarms() == [missed("2 of 3", 1)], "the number of those that are missing still")
        running.services.alarms.clear("images-missing", "ct")  # as `/admin/alarms/images-missing/seen` does
        kit.arrive(running.services, image(3, 0))
        running.tell("9.3", names(3, 1))
        wait_for(lambda: len(running.tasks()) == 5, "the next series")
        running.settled()
        assert running.alarms() == []


def test_what_lacks_images_is_looked_at_together(tmp_path: Path) -> None:
    """After a restart all of it is judged at once: with a look at all for each, the router would be silent for minutes.

    Counted in instructions of SQLite: four times as many series are no more than six times the work.
    """

    def work_of(series: int) -> int:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        model = {"name": "ct", "bundle": "unused.edgemed", "level": "series", "completeness": {"quiet": "1s"}}
        with kit.resting(kit.bedside(tmp_path / str(series), models=[model])) as services:
            services.journal.write(lambda connection: fail_to_come(connection, series))
            performed = Performed(services, Collector())
            performed.look(0)
            with services.journal.read() as connection:
                connection.set_progress_handler(count, 100)
            performed.look(2 * SECOND)
            (alarm,) = services.alarms.standing
            assert (alarm.subject, alarm.text) == missed(f"{2 * series} of {2 * series}", series)
        return steps

    few, many = work_of(20), work_of(80)
    assert few > 0
    assert many <= 6 * few


def fail_to_come(connection: sqlite3.Connection, series: int) -> None:
    """Series that were complete without the images that steps name."""
    for number in range(series):
        create_step(connection, f"9.{number}", "CT1", STUDY, {})
        set_step(connection, f"9.{number}", "CT1", "COMPLETED", names(number, 2))
        task = open_task(connection, "ct", "series", f"1.1.{number}", [])
        move_task(connection, task, Event.COMPLETE, "no image for 1 s")


def test_a_discontinued_step_is_waited_for_no_longer_than_for_a_release(tmp_path: Path) -> None:
    with bedside(tmp_path, completeness={"association": False, "after": "1ms", "quiet": "1h"}) as running:
        running.send(image(0, 0))
        running.tell("9.1", names(0, 3), "DISCONTINUED")
        wait_for(running.tasks, "completion")
        reason = "procedure step discontinued, then quiet; 2 of the 3 images that the procedure step names are missing"
        assert running.tasks() == [("1.1.0", 1, reason)]
        assert running.alarms() == []


def test_a_study_is_not_over_while_a_step_of_it_goes_on(tmp_path: Path) -> None:
    with bedside(tmp_path, "study", {"after": "1ms", "quiet": "1h"}) as running:
        running.tell("9.1", {}, "")
        running.tell("9.2", {}, "")
        kit.arrive(running.services, image(0, 0), association="x")
        running.services.intake.association_ended("x", released=True)
        running.tell("9.1", names(0, 1))
        assert running.settled() == []
        kit.arrive(running.services, image(1, 0), association="y")
        running.tell("9.2", names(1, 2))
        assert running.settled() == []
        kit.arrive(running.services, image(1, 1), association="y")
        wait_for(running.tasks, "completion")
        assert running.tasks() == [(STUDY, 1, "all 3 images that the procedure step names")]


def test_a_site_may_leave_steps_out_of_account(tmp_path: Path) -> None:
    with bedside(tmp_path, completeness={**NEVER, "mpps": False}) as running:
        running.send(image(0, 0))
        running.tell("9.1", names(0, 1))
        assert running.settled() == []
        assert len(running.rows("SELECT 1 FROM step_image")) == 1


def test_a_restart_knows_what_is_missing(tmp_path: Path) -> None:
    with bedside(tmp_path) as running:
        running.send(image(0, 0))
        running.tell("9.1", names(0, 2))
        assert running.settled() == []
    with bedside(tmp_path) as running:
        assert running.settled() == []
        running.send(image(0, 1))
        wait_for(running.tasks, "completion")
        assert running.tasks() == [("1.1.0", 1, "all 2 images that the procedure step names")]


def test_steps_outlive_a_damaged_journal(tmp_path: Path) -> None:
    with bedside(tmp_path) as running:
        running.send(image(0, 0))
        running.tell("9.1", names(0, 2))
        running.settled()
    (tmp_path / "state" / "journal.damaged").write_text("{}")  # found while it ran
    with bedside(tmp_path) as running:
        assert list((tmp_path / "state" / "damaged").iterdir())
        running.send(image(0, 1))
        wait_for(running.tasks, "completion")
        assert running.tasks() == [("1.1.0", 1, "all 2 images that the procedure step names")]


def test_reconcile_lists_what_has_not_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with bedside(tmp_path) as running:
        running.send(image(0, 0))
        running.tell("9.1", names(0, 6) | names(1, 2))
        running.tell("9.2", names(2, 2), "DISCONTINUED")
        running.settled()
    state = tmp_path / "state"
    account = reconcile(state)
    assert account.troubles == []
    assert [(each.series, each.came, len(each.missing)) for each in account.unfinished] == [
        ("1.1.0", 1, 5),
        ("1.1.1", 0, 2),
    ]
    assert invoke(["reconcile", str(state), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["awaited"]
    assert (first["step"], first["peer"], first["study"], first["came"]) == ("9.1", "CT1", STUDY, 1)
    assert first["missing"] == [uid(0, n) for n in range(1, 6)]
    assert second["missing"] == [uid(1, 0), uid(1, 1)]
    assert invoke(["reconcile", str(state)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "CT1: 5 of 6 images of series 1.1.0 have not come: 1.1.0.1, 1.1.0.2, 1.1.0.3 and 2 more." in said
    assert "1.1.1.0" not in said  # of which nothing came: it may never have been meant for us
    assert "nothing is lost" in said


def test_an_image_has_come_when_it_was_routed(tmp_path: Path) -> None:
    with kit.resting(kit.bedside(tmp_path)) as services:
        write = services.journal.write
        write(lambda c: create_step(c, "9.1", "CT1", STUDY, {}))
        write(lambda c: set_step(c, "9.1", "CT1", "COMPLETED", names(0, 1)))
        number = kit.arrive(services, image(0, 0)).number
        services.journal.settle()
        with services.journal.read() as connection:
            found = named(connection, "series", "1.1.0")
            assert found is not None
            assert found.awaited == {uid(0, 0)}
        write(lambda c: move_object(c, number, Event.UNWANTED, "No model is for it."))
        with services.journal.read() as connection:
            found = named(connection, "series", "1.1.0")
            assert found is not None
            assert (found.total, found.awaited) == (1, frozenset())
            assert list(unfinished(connection)) == []
            plan = connection.execute(
                "EXPLAIN QUERY PLAN SELECT 1 FROM object WHERE sop_instance = '' AND state <> 'refused'"
                " AND state NOT IN ('arriving', 'received')"
            ).fetchall()
        assert "object_uid" in plan[0]["detail"]  # by its index, or each image of a step would read the table


RULES = Completeness(after_ns=2, quiet_ns=60)


def collector(told: Told | None, rules: Completeness = RULES) -> Collector:
    made = Collector()
    made.opened(1, rules, 0)
    made.added(1, [1, 2], 10, association="a", expected=2)
    made.association_ended("a", True, 10)
    made.told(1, told, 15)
    return made


@pytest.mark.parametrize(
    ("told", "due_ns", "reason"),
    [
        (None, 10, "all 2 images that the files tell of"),
        (Told(2), 15, "all 2 images that the procedure step names"),
        (
            Told(5, awaited=2, doubtful=1),
            75,
            "no image for 6e-08 s; 3 of the 5 images that the procedure step names are missing",
        ),
        (
            Told(5, doubtful=3),
            17,
            "procedure step discontinued, then quiet; 3 of the 5 images that the procedure step names are missing",
        ),
        (Told(2, open=True), 75, "no image for 6e-08 s, while a procedure step is in progress; 2 images"),
    ],
)
def test_what_is_told_decides_when(told: Told | None, due_ns: int, reason: str) -> None:
    made = collector(told)
    assert (made.next_ns, made.due(due_ns - 1)) == (due_ns, {})
    assert made.due(due_ns) == {1: reason}


def test_what_is_told_may_be_left_out_of_account_or_withdrawn() -> None:
    assert collector(Told(5, awaited=3), Completeness(after_ns=2, quiet_ns=60, mpps=False)).next_ns == 10
    made = collector(Told(5, awaited=3))
    made.told(1, None, 20)
    assert made.next_ns == 10


def reasons(root: Path) -> list[str]:
    with sqlite3.connect(f"file:{root / 'state' / JOURNAL}?mode=ro", uri=True) as connection:
        found = connection.execute("SELECT completeness FROM task WHERE completeness <> ''").fetchall()
    return [row[0] for row in found]


@pytest.mark.parametrize("missing", [0, 1])
def test_kill_9_between_the_end_of_a_step_and_completion(tmp_path: Path, missing: int) -> None:
    """What was answered Success is believed by the next daemon; no timer decides here."""
    peers = [{"ae_title": "SENDER", "addresses": ["127.0.0.1"], "may": ["store", "mpps"]}]
    model = {"name": "chest", "bundle": "chest.edgemed", "runner": "onnxruntime", "level": "series"}
    sections: dict[str, Any] = {"models": [{**model, "completeness": NEVER}]}
    port = free_port()  # the one that is started picks its own, and is overruled
    sections["dicom"] = {"host": "127.0.0.1", "port": port, "peers": peers}
    images = [image(0, number) for number in range(3)]
    with started(tmp_path, **sections) as process:
        process.ready()
        modality = Modality(port, "SENDER", kit.CT)
        assert modality.create("9.1", begun(STUDY)).Status == 0
        for ds in images[: 3 - missing]:
            assert modality.association.send_c_store(ds).Status == 0
        sock = modality.association.dul.socket.socket
        assert modality.set("9.1", ended(names(0, 3))).Status == 0
        process.child.kill()
        process.child.wait()
        modality.association.abort()
        sock.close()  # pynetdicom leaves it to the garbage collector
    with started(tmp_path, **sections) as process:
        process.ready()
        with Modality(port, "SENDER", kit.CT) as modality:
            for ds in images[3 - missing :]:
                assert reasons(tmp_path) == []
                assert modality.association.send_c_store(ds).Status == 0
            wait_for(lambda: reasons(tmp_path), "completion")
        assert reasons(tmp_path) == ["all 3 images that the procedure step names"]
        assert process.stop() == 0
