"""From an accepted object to its tasks, by the real loop over a real journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from edgemed.base.errors import InputError, ResourceError
from edgemed.imaging.dicom import describe
from edgemed.serve.again import route_again
from edgemed.serve.journal.history import untold
from edgemed.serve.journal.records import FORWARD, NewResult, add_results, move_delivery, move_task
from edgemed.serve.journal.routes import DELETED, LATE, OTHER_STUDY, OURS, Route, Routed, enter
from edgemed.serve.loops import Beat
from edgemed.serve.routing import Router
from edgemed.serve.services import Services
from edgemed.serve.states import Event
from tests.serve import kit
from tests.serve.store import rows, wait_routed
from tests.waiting import wait_for

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.33"
FAST = {"after": "1ms", "quiet": "60s"}


def model(name: str = "chest", **lines: Any) -> dict[str, Any]:
    return {"name": name, "bundle": "unused.edgemed", "completeness": FAST, **lines}


@contextmanager
def routing(root: Path, *models: dict[str, Any], start: bool = True, **sections: Any) -> Iterator[Services]:
    config = kit.bedside(root, models=list(models) or [model()], **sections)
    with kit.resting(config) as services:
        if start:
            Router(services).start()
        yield services


tmp_path = kit.folder_in_memory


def settled(services: Services) -> list[sqlite3.Row]:
    """Objects, when none of them is to be routed."""
    wait_routed(services.journal)
    return rows(services.journal)


def tasks(services: Services) -> list[tuple[Any, ...]]:
    settled(services)
    return [
        tuple(row)
        for row in rows(services.journal, "SELECT model, level, subject, revision, state FROM task ORDER BY id")
    ]


def end_task(services: Services, number: int) -> None:
    def work(connection: sqlite3.Connection) -> None:
        for event in (Event.START, Event.ANSWER, Event.FINISH):
            move_task(connection, number, event)

    services.journal.write(work)


def test_an_image_is_queued_for_each_model_that_wants_it(tmp_path: Path) -> None:
    wanting = [
        model("all"),
        model("ct", match={"modalities": ["mr", "ct"], "sop_classes": ["CTImageStorage"]}),
        model("chest", match={"body_parts": ["Chest"], "series_description": "THORAX * ?mm [x]"}),
        model("peer", match={"calling": ["CT1"], "called": ["EDGE"], "inlets": ["dicom"]}),
        model("mr", match={"modalities": ["MR"]}),
        model("other", match={"calling": ["ct1"]}),
    ]
    ds = kit.image(BodyPartExamined="CHEST", SeriesDescription="Thorax nativ 5mm [X]")
    with routing(tmp_path, *wanting) as services:
        outcome = kit.arrive(services, ds, called="EDGE")
        (row,) = settled(services)
        assert (row["state"], row["study"], row["series"]) == ("routed", ds.StudyInstanceUID, ds.SeriesInstanceUID)
        expected = [(name, "instance", ds.SOPInstanceUID, 1, "queued") for name in ("all", "ct", "chest", "peer")]
        assert tasks(services) == expected
        (first, *_) = rows(services.journal, "SELECT completeness, completed FROM task")
        assert first["completeness"]
        assert first["completed"]
        assert services.timelines.point(1, "complete") is not None
        assert services.timelines.point(1, "first_byte") is not None
        assert outcome.number == row["id"]


def test_what_no_model_wants_ends_with_the_reason(tmp_path: Path) -> None:
    with routing(tmp_path, model("mr", match={"modalities": ["MR"]})) as services:
        kit.arrive(services, kit.image())
        (row,) = settled(services)
        assert (row["state"], row["reason"]) == ("not-analysed", "No model is for it: mr: modality.")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sop_class": SR, "no_pixels": True}, "It is no image: it holds no pixels."),
        ({"sop_class": SEG}, "It is a segmentation, not an image of a patient."),
        ({"Manufacturer": "edgemed"}, "It is a result of edgemed, not an image of a patient."),
    ],
)
def test_what_is_no_image_is_not_analysed(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    no_pixels = change.pop("no_pixels", False)
    ds = kit.image(**change)
    if no_pixels:
        del ds.PixelData, ds.Rows
    with routing(tmp_path) as services:
        kit.arrive(services, ds)
        (row,) = settled(services)
        assert (row["state"], row["reason"], tasks(services)) == ("not-analysed", reason, [])


def test_a_segmentation_is_for_a_model_that_names_its_class(tmp_path: Path) -> None:
    with routing(tmp_path, model("seg", match={"sop_classes": ["SegmentationStorage"]}), model("all")) as services:
        kit.arrive(services, kit.image(sop_class=SEG))
        assert [task[0] for task in tasks(services)] == ["seg"]


def test_a_result_of_ours_that_comes_back_is_neither_analysed_nor_sent_again(tmp_path: Path) -> None:
    first, ours = kit.image(), kit.image()
    with routing(tmp_path, destinations=[pacs()]) as services:
        kit.arrive(services, first)
        settled(services)
        result = NewResult("sc", "results/x", "0" * 64, 1, kit.CT, ours.SOPInstanceUID)
        services.journal.write(lambda c: add_results(c, 1, [result], {}))
        kit.arrive(services, ours)
        assert tuple(settled(services)[1])[-3:-1] == ("not-analysed", OURS)
        assert len(rows(services.journal, "SELECT 1 FROM delivery")) == 1


def nested() -> Dataset:
    ds = kit.image()
    inner = Dataset()
    for _ in range(60):
        outer = Dataset()
        outer.ReferencedSeriesSequence = Sequence([inner])
        inner = outer
    ds.ReferencedSeriesSequence = Sequence([inner])
    return ds


def test_what_cannot_be_read_fails_with_an_alarm_and_stops_nobody(tmp_path: Path) -> None:
    with routing(tmp_path, start=False) as services:
        kit.arrive(services, nested())
        lost = kit.arrive(services, kit.image())
        other = kit.image()
        kit.arrive(services, other)
        good = kit.image()
        kit.arrive(services, good)
        paths = [services.spool.path(row["path"]) for row in rows(services.journal)]
        paths[1].unlink()
        paths[2].write_bytes(kit.encode(kit.image()))  # another object under its name
        Router(services).start()
        found = settled(services)
        assert [row["state"] for row in found] == ["failed", "failed", "failed", "routed"]
        assert "nested more than" in found[0]["reason"]
        assert found[1]["reason"] == "It cannot be read back from the disk."
        assert found[2]["reason"] == "It cannot be read: it is not the object that it was sent as."
        assert lost.number == found[1]["id"]
        assert not any(good.PatientID in row["reason"] for row in found)
        alarm = wait_for(lambda: [a for a in services.alarms.standing if a.count == 3])[0]
        assert (alarm.code, alarm.subject) == ("input-failed", "dicom")


def test_what_could_not_be_read_is_looked_at_again_when_somebody_asks(tmp_path: Path) -> None:
    with routing(tmp_path) as services:
        ds, bad = kit.image(), kit.encode(nested())
        with pytest.MonkeyPatch.context() as older:  # of us, that cannot read it yet

            def cannot(path: Path) -> Any:
                raise InputError("it is too new.", "")

            older.setattr(describe, "describe", cannot)
            kit.arrive(services, ds)
            other = kit.arrive(services, kit.image())
            assert [row["state"] for row in settled(services)] == ["failed", "failed"]
            wait_for(lambda: services.alarms.stands("input-failed", "dicom"), "the alarm")
        (row,) = rows(services.journal, "SELECT path FROM object WHERE id = ?", other.number)
        services.spool.path(row["path"]).write_bytes(bad)  # not what came
        assert route_again(services.spool.root) == [1]
        wait_for(lambda: rows(services.journal, "SELECT 1 FROM object WHERE state = 'routed'"), "routing")
        assert [row["state"] for row in settled(services)] == ["routed", "failed"]
        assert services.alarms.stands("input-failed", "dicom")
        with services.journal.read() as connection:
            assert list(untold(connection)) == []


def test_the_alarm_is_over_when_all_that_could_not_be_read_was(tmp_path: Path) -> None:
    with routing(tmp_path) as services:
        with pytest.MonkeyPatch.context() as older:
            older.setattr(describe, "describe", lambda _: 1 / 0)
            kit.arrive(services, kit.image())
            wait_for(lambda: services.alarms.stands("input-failed", "dicom"), "the alarm")
        assert route_again(services.spool.root) == [1]
        wait_for(lambda: not services.alarms.stands("input-failed", "dicom"), "the end of the alarm")
        assert [row["state"] for row in settled(services)] == ["routed"]


@pytest.mark.parametrize(
    ("error", "ends"), [(ZeroDivisionError(), ("failed", 0)), (ResourceError("The disk is full.", ""), ("routed", 4))]
)
def test_an_object_that_cannot_be_entered_ends_and_stops_nobody(
    error: Exception, ends: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def stumble(connection: sqlite3.Connection, route: Route) -> Routed:
        if route.number == 1 and not route.unreadable and len(tries) < 4:
            tries.append(route.number)
            raise error
        return enter(connection, route)

    monkeypatch.setattr("edgemed.serve.routing.enter", stumble)
    monkeypatch.setattr("edgemed.serve.loops._BACKOFF_CAP_NS", 1_000_000)
    with routing(tmp_path) as services:
        kit.arrive(services, kit.image())
        kit.arrive(services, kit.image())
        assert [row["state"] for row in settled(services)] == [ends[0], "routed"]
        assert services.loops.beats["router"].failures == ends[1]
        if ends[0] == "failed":
            wait_for(lambda: services.alarms.stands("input-failed", "dicom"), "the alarm")
            assert len(tries) == 3


def test_a_series_is_complete_when_its_association_was_released(tmp_path: Path) -> None:
    with routing(tmp_path, model(level="series")) as services:
        for number in range(3):
            kit.arrive(services, kit.image(study="1.1", series="1.1.1", instance=f"1.1.1.{number}"), association="a")
        assert tasks(services) == [("chest", "series", "1.1.1", 1, "collecting")]
        services.intake.association_ended("a", released=True)
        wait_for(lambda: tasks(services)[0][4] == "queued", "completion")
        (row,) = rows(services.journal, "SELECT completeness FROM task")
        assert row["completeness"] == "association released, then quiet; 3 images"
        assert len(rows(services.journal, "SELECT 1 FROM part")) == 3


def test_a_series_is_complete_with_the_count_that_its_files_tell(tmp_path: Path) -> None:
    with routing(tmp_path, model(level="series")) as services:
        for number in range(2):
            tells = {"NumberOfSeriesRelatedInstances": 2}
            kit.arrive(services, kit.image(study="1.1", series="1.1.1", instance=f"1.1.1.{number}", **tells))
        wait_for(lambda: tasks(services)[0][4] == "queued", "completion")
        (row,) = rows(services.journal, "SELECT completeness, expected FROM task")
        assert tuple(row) == ("all 2 images that the files tell of", 2)


def late_series(services: Services) -> None:
    kit.arrive(services, kit.image(study="1.1", series="1.1.1", instance="1.1.1.1"), association="a")
    settled(services)
    services.intake.association_ended("a", released=True)
    wait_for(lambda: tasks(services)[0][4] == "queued", "completion")
    end_task(services, 1)


def test_a_late_image_makes_a_revision_of_all_images_and_a_repeat_none(tmp_path: Path) -> None:
    rules = {"after": "1ms", "quiet": "100ms"}
    with routing(tmp_path, model(level="series", completeness=rules)) as services:
        first = kit.image(study="1.1", series="1.1.1", instance="1.1.1.1")
        kit.arrive(services, first, association="a")
        services.intake.association_ended("a", released=True)
        wait_for(lambda: [t for t in tasks(services) if t[4] == "queued"], "completion")
        end_task(services, 1)
        assert kit.arrive(services, first, association="b").verdict == "repeated"
        kit.arrive(services, kit.image(study="1.1", series="1.1.1", instance="1.1.1.2"), association="b")
        wait_for(lambda: [t for t in tasks(services) if t[3:] == (2, "queued")], "the second revision")
        assert [task[3:] for task in tasks(services)] == [(1, "delivered"), (2, "queued")]
        parts = rows(services.journal, "SELECT task, object FROM part ORDER BY task, object")
        assert [tuple(part) for part in parts] == [(1, 1), (2, 1), (2, 2)]
        assert [row["state"] for row in settled(services)] == ["routed", "routed"]  # the first one is open again
        end_task(services, 2)
        assert [row["state"] for row in settled(services)] == ["delivered", "delivered"]


@pytest.mark.parametrize(("reopen", "delete", "reason"), [(False, False, LATE), (True, True, DELETED)])
def test_a_late_image_that_makes_no_revision_says_why(tmp_path: Path, reopen: bool, delete: bool, reason: str) -> None:
    with routing(tmp_path, model(level="series", completeness={**FAST, "reopen": reopen})) as services:
        late_series(services)
        if delete:
            services.journal.write(lambda c: c.execute("UPDATE object SET path = ''"))
        kit.arrive(services, kit.image(study="1.1", series="1.1.1", instance="1.1.1.2"))
        assert tuple(settled(services)[1])[-3:-1] == ("not-analysed", reason)


def test_images_of_two_studies_never_share_a_task(tmp_path: Path) -> None:
    with routing(tmp_path, model(level="series")) as services:
        kit.arrive(services, kit.image(study="1.1", series="1.1.1"))
        kit.arrive(services, kit.image(study="1.2", series="1.1.1"))
        assert tuple(settled(services)[1])[-3:-1] == ("not-analysed", OTHER_STUDY)
        assert len(tasks(services)) == 1


def test_an_image_without_a_series_is_for_no_model_of_series(tmp_path: Path) -> None:
    ds = kit.image()
    ds.SeriesInstanceUID = ""
    with routing(tmp_path, model(level="series")) as services:
        kit.arrive(services, ds)
        (row,) = settled(services)
        assert (row["state"], row["reason"]) == ("not-analysed", "It has no UID of its series.")


def test_a_task_of_a_model_that_is_gone_fails_at_the_next_start(tmp_path: Path) -> None:
    with routing(tmp_path, model(level="series")) as services:
        kit.arrive(services, kit.image())
        settled(services)
    with routing(tmp_path, model("another")) as services:
        wait_for(lambda: tasks(services)[0][4] == "failed", "the end")
        assert [row["state"] for row in settled(services)] == ["failed"]
        wait_for(lambda: [alarm.subject for alarm in services.alarms.standing] == ["chest"], "the alarm")


def pacs(name: str = "pacs", ae_title: str = "PACS", **lines: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "dicom",
        "ae_title": ae_title,
        "host": "127.0.0.1",
        "port": 104,
        "forward": True,
        **lines,
    }


def test_images_are_sent_on_as_results_of_a_task_of_their_own(tmp_path: Path) -> None:
    destinations = [pacs(), pacs("origin", "CT1"), pacs("quiet", "P3", forward=False)]
    with routing(tmp_path, model(match={"modalities": ["MR"]}), destinations=destinations) as services:
        ds = kit.image()
        kit.arrive(services, ds)
        (row,) = settled(services)
        assert tasks(services) == [(FORWARD, "instance", ds.SOPInstanceUID, 1, "delivering")]
        (result,) = rows(services.journal, "SELECT * FROM result")
        same = ("path", "sha256", "size", "sop_class", "sop_instance")
        assert [result[name] for name in same] == [row[name] for name in same]
        assert result["kind"] == "image"
        (delivery,) = rows(services.journal, "SELECT * FROM delivery")
        assert (delivery["destination"], delivery["state"]) == ("pacs", "pending")
        services.journal.write(lambda c: move_delivery(c, delivery["id"], "delivered"))
        assert [row["state"] for row in settled(services)] == ["delivered"]


def test_what_we_cannot_read_is_sent_on_all_the_same(tmp_path: Path) -> None:
    with routing(tmp_path, destinations=[pacs()]) as services:
        kit.arrive(services, nested())
        assert [task[0] for task in tasks(services)] == [FORWARD]
        (event,) = rows(services.journal, "SELECT reason FROM event WHERE what = 'object' AND event = 'route'")
        assert event["reason"].endswith("It is only sent on.")
        wait_for(lambda: [alarm.code for alarm in services.alarms.standing] == ["input-failed"], "the alarm")


def test_what_could_not_be_sent_on_is_tried_again_when_somebody_asks(tmp_path: Path) -> None:
    with routing(tmp_path, destinations=[pacs(), pacs("second", "P2")], start=False) as services:
        kit.arrive(services, kit.image())
        router = Router(services)
        router._restore()
        router._route_all(Beat("x", 10**12, services.loops._stopping))
        for number, state in ((1, "delivered"), (2, "failed")):
            services.journal.write(lambda c, n=number, s=state: move_delivery(c, n, s))
        (task,) = rows(services.journal, "SELECT id FROM task WHERE model = ? AND state = 'failed'", FORWARD)
        services.journal.write(lambda c: move_task(c, task["id"], Event.RETRY))
        router._forward_again()
        states = [row["state"] for row in rows(services.journal, "SELECT state FROM delivery ORDER BY id")]
        assert states == ["delivered", "pending"]
        (again,) = rows(services.journal, "SELECT state FROM task WHERE id = ?", task["id"])
        assert again["state"] == "delivering"


def test_no_model_may_have_the_name_of_what_is_sent_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model may be named forward"):
        kit.bedside(tmp_path, models=[model(FORWARD)])


@pytest.mark.parametrize("match", [{"sop_classes": ["CTImageStorag"]}, {"inlets": ["attic"]}])
def test_a_model_that_asks_for_what_cannot_be_stops_the_start(tmp_path: Path, match: dict[str, Any]) -> None:
    with routing(tmp_path, model(match=match), start=False) as services, pytest.raises(InputError, match="no"):
        Router(services).start()
