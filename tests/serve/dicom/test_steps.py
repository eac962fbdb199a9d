"""Procedure steps that a modality tells of: by pynetdicom as its SCU, over a real association."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.dsutils import encode

from edgemed.imaging.dicom.syntaxes import IMPLICIT_LITTLE
from edgemed.serve.dicom.steps import Refused, Step, read_step
from edgemed.serve.dicom.store import Status
from edgemed.serve.journal import steps
from tests.serve import kit
from tests.serve.canary import MARK
from tests.serve.dicom import rig
from tests.serve.dicom.modality import MODALITY, MPPS, Modality, begun, ended

RETRIEVE = "1.2.840.10008.3.1.2.3.4"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Rig]:
    other = {**MODALITY, "ae_title": "CT2"}
    with rig.inlet(tmp_path_factory.mktemp("inlet"), peers=[MODALITY, other]) as running:
        yield running


def kept(running: rig.Rig, uid: str) -> dict[str, Any] | None:
    found = running.rows(f"SELECT peer, study, state, images FROM step WHERE sop_instance = '{uid}'")
    return dict(found[0]) if found else None


def images_of(running: rig.Rig, uid: str) -> set[tuple[str, str]]:
    rows = running.rows(
        "SELECT step_series.series, step_image.sop_instance FROM step JOIN step_series ON step_series.step = step.id"
        f" JOIN step_image ON step_image.series = step_series.id WHERE step.sop_instance = '{uid}'"
    )
    return {(row[0], row[1]) for row in rows}


def test_a_step_from_its_beginning_to_its_end(shared: rig.Rig) -> None:
    with Modality(shared.port) as modality:
        assert modality.create("1.9.1").Status == 0
        assert kept(shared, "1.9.1") == {"peer": "CT1", "study": "1.1", "state": "IN PROGRESS", "images": 0}
        interim = ended({"1.1.1": ["1.1.1.1"], "1.1.2": []})
        del interim.PerformedProcedureStepStatus
        assert modality.set("1.9.1", interim).Status == 0
        assert images_of(shared, "1.9.1") == {("1.1.1", "1.1.1.1")}
        assert modality.set("1.9.1", ended({"1.1.1": ["1.1.1.1", "1.1.1.2"], "1.1.3": ["1.1.3.1"]})).Status == 0
        assert kept(shared, "1.9.1") == {"peer": "CT1", "study": "1.1", "state": "COMPLETED", "images": 3}
        assert images_of(shared, "1.9.1") == {("1.1.1", "1.1.1.1"), ("1.1.1", "1.1.1.2"), ("1.1.3", "1.1.3.1")}
        late = modality.set("1.9.1", ended({}))
        assert (late.Status, late.ErrorID) == (0x0110, 0xA710)
        assert kept(shared, "1.9.1")["images"] == 3
    events = shared.rows("SELECT before, event, after FROM event WHERE what = 'step' ORDER BY id")
    assert [tuple(row) for row in events][:3] == [
        ("", "create", "IN PROGRESS"),
        ("IN PROGRESS", "set", "IN PROGRESS"),
        ("IN PROGRESS", "set", "COMPLETED"),
    ]


def test_the_last_change_may_only_say_the_status(shared: rig.Rig) -> None:
    status = ended({}, PerformedSeriesSequence=None)
    with Modality(shared.port) as modality:
        modality.create("1.9.2")
        assert modality.set("1.9.2", status).Status == 0x0121  # no series was told of
        assert kept(shared, "1.9.2")["state"] == "IN PROGRESS"
        assert modality.set("1.9.2", ended({"1.2": ["1.2.1"]}, status="IN PROGRESS")).Status == 0
        assert modality.set("1.9.2", status).Status == 0
    assert (kept(shared, "1.9.2")["state"], images_of(shared, "1.9.2")) == ("COMPLETED", {("1.2", "1.2.1")})


def test_a_discontinued_step_may_have_made_nothing(shared: rig.Rig) -> None:
    with Modality(shared.port) as modality:
        modality.create("1.9.3")
        assert modality.set("1.9.3", ended({}, status="DISCONTINUED")).Status == 0
        assert modality.set("1.9.3", ended({"1.2": []})).Status == 0x0110
    assert kept(shared, "1.9.3")["state"] == "DISCONTINUED"


def test_a_step_of_several_studies_is_of_none(shared: rig.Rig) -> None:
    with Modality(shared.port) as modality:
        assert modality.create("1.9.4", begun("1.1", "1.2")).Status == 0
    assert kept(shared, "1.9.4")["study"] == ""


NO_UID, NO_STUDY = Dataset(), Dataset()
NO_UID[0x0020000D] = DataElement(0x0020000D, "UI", "1.x.2", validation_mode=config.IGNORE)
NO_STUDY.AccessionNumber = "1"


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"PerformedProcedureStepStatus": "COMPLETED"}, 0x0106),
        ({"PerformedProcedureStepStatus": "SCHEDULED"}, 0x0106),
        ({"PerformedProcedureStepStatus": None}, 0x0120),
        ({"PerformedProcedureStepStatus": ""}, 0x0121),
        ({"PerformedProcedureStepID": None}, 0x0120),
        ({"PerformedProcedureStepID": ""}, 0x0121),
        ({"PerformedStationAETitle": None}, 0x0120),
        ({"PerformedProcedureStepStartDate": None}, 0x0120),
        ({"PerformedProcedureStepStartTime": None}, 0x0120),
        ({"Modality": None}, 0x0120),
        ({"ScheduledStepAttributesSequence": None}, 0x0120),
        ({"ScheduledStepAttributesSequence": []}, 0x0121),
        ({"ScheduledStepAttributesSequence": [NO_STUDY]}, 0x0120),
        ({"ScheduledStepAttributesSequence": [NO_UID]}, 0x0106),
        ({"PerformedSeriesSequence": None}, 0x0000),  # of type 2: nothing here needs it
        ({"PatientName": None, "PatientID": None}, 0x0000),
    ],
)
def test_what_a_creation_must_say(shared: rig.Rig, attributes: dict[str, Any], status: int) -> None:
    uid = generate_uid()
    with Modality(shared.port) as modality:
        answer = modality.create(uid, begun(**attributes))
    assert answer.Status == status
    assert (kept(shared, uid) is not None) is (status == 0)
    assert MARK not in answer.get("ErrorComment", "")


def test_what_a_change_must_say(shared: rig.Rig) -> None:
    nameless, unnamed = ended({"1.2": ["1.2.1"]}), ended({"1.2": ["1.2.1"]})
    del nameless.PerformedSeriesSequence[0].SeriesInstanceUID
    del unnamed.PerformedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID
    imageless = ended({"1.2": []})
    del imageless.PerformedSeriesSequence[0].ReferencedImageSequence
    with Modality(shared.port) as modality:
        modality.create("1.9.5")
        assert modality.set("1.9.5", nameless).Status == 0x0120
        assert modality.set("1.9.5", unnamed).Status == 0x0120
        assert modality.set("1.9.5", ended({"1.2": ["1.2.1"]}, status="SCHEDULED")).Status == 0x0106
        assert modality.set("1.9.5", ended({})).Status == 0x0121
        assert kept(shared, "1.9.5")["state"] == "IN PROGRESS"
        assert modality.set("1.9.5", imageless).Status == 0
    assert kept(shared, "1.9.5")["images"] == 0


def test_which_steps_there_are(shared: rig.Rig) -> None:
    with Modality(shared.port) as modality, Modality(shared.port, "CT2") as other:
        assert modality.create("1.9.6").Status == 0
        assert modality.create("1.9.6").Status == other.create("1.9.6").Status == 0x0111
        assert modality.set("1.9.7", ended({"1.2": ["1.2.1"]})).Status == 0x0112
        assert other.set("1.9.6", ended({"1.2": ["1.2.1"]})).Status == 0x0124
        assert modality.create(None).Status == 0x0117
        assert modality.association.send_n_get([0x00100010], MPPS, "1.9.6")[0].Status == 0x0211
    assert kept(shared, "1.9.6") == {"peer": "CT1", "study": "1.1", "state": "IN PROGRESS", "images": 0}


def test_there_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_STEPS", 2)
    monkeypatch.setattr(steps, "MOST_IMAGES", 3)
    with rig.inlet(tmp_path, peers=[MODALITY]) as running, Modality(running.port) as modality:
        assert [modality.create(f"1.{n}").Status for n in range(3)] == [0, 0, 0x0213]
        assert modality.set("1.0", ended({"1.1": ["1.1.1", "1.1.2"]}, status="IN PROGRESS")).Status == 0
        assert modality.set("1.1", ended({"1.2": ["1.2.1", "1.2.2"]})).Status == 0x0213
        assert modality.set("1.0", ended({"1.1": ["1.1.1", "1.1.2", "1.1.3"]})).Status == 0
        assert [row[0] for row in running.rows("SELECT state FROM step ORDER BY id")] == ["COMPLETED", "IN PROGRESS"]


def test_a_peer_at_its_limit_shuts_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_STEPS", 1)
    monkeypatch.setattr(steps, "MOST_IMAGES", 2)
    peers = [MODALITY, {**MODALITY, "ae_title": "CT2"}]
    with (
        rig.inlet(tmp_path, peers=peers) as running,
        Modality(running.port) as one,
        Modality(running.port, "CT2") as two,
    ):
        assert [one.create(f"1.{number}").Status for number in (1, 2)] == [0, 0x0213]
        assert one.set("1.1", ended({"1.1": ["1.1.1", "1.1.2"]})).Status == 0
        assert [two.create(f"1.{number}").Status for number in (2, 3)] == [0, 0x0213]
        assert two.set("1.2", ended({"1.1": ["1.1.1", "1.1.2"]})).Status == 0


def test_steps_are_forgotten_after_their_time(tmp_path: Path) -> None:
    with rig.inlet(tmp_path, peers=[MODALITY]) as running, Modality(running.port) as modality:
        modality.create("1.1")
        modality.set("1.1", ended({"1.1": ["1.1.1", "1.1.2"]}))
        modality.create("1.2")
        journal = running.services.journal
        (old,) = running.rows("SELECT event FROM step WHERE sop_instance = '1.1'")
        assert journal.write(lambda c: steps.forget_steps(c, 0)) == 0
        assert journal.write(lambda c: steps.forget_steps(c, old["event"])) == 1
        assert journal.write(lambda c: steps.forget_steps(c, old["event"])) == 0
        assert [row[0] for row in running.rows("SELECT sop_instance FROM step")] == ["1.2"]
        assert running.rows("SELECT 1 FROM step_series UNION ALL SELECT 1 FROM step_image") == []
        assert modality.set("1.1", ended({"1.1": ["1.1.1"]})).Status == 0x0112


def test_success_outlives_the_daemon(tmp_path: Path) -> None:
    with rig.inlet(tmp_path, peers=[MODALITY]) as running, Modality(running.port) as modality:
        assert modality.create("1.1").Status == 0
    with rig.inlet(tmp_path, peers=[MODALITY]) as running, Modality(running.port) as modality:
        assert modality.create("1.1").Status == 0x0111
        assert modality.set("1.1", ended({"1.1": ["1.1.1"]})).Status == 0


def test_nothing_of_the_patient_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "edgemed")
    with rig.inlet(tmp_path, peers=[MODALITY]) as running, Modality(running.port) as modality:
        modality.create("1.1")
        modality.set("1.1", ended({"1.1": ["1.1.1"]}))
        modality.create("1.2", begun(PerformedProcedureStepStatus=MARK))
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert [path.name for path in files if MARK.encode() in path.read_bytes()] == []
    assert any(b"1.1.1" in path.read_bytes() for path in files)
    assert MARK not in caplog.text
    assert "CT1 tells of a procedure step: completed" in caplog.text


@pytest.mark.parametrize("may", [("store",), ("store", "mpps")])
def test_only_who_may(tmp_path: Path, may: tuple[str, ...]) -> None:
    with rig.inlet(tmp_path, peers=[{**MODALITY, "may": may}]) as running:
        with rig.raw(running.port) as peer:
            asked = rig.associate((MPPS, [rig.EXPLICIT]), (RETRIEVE, [rig.EXPLICIT]), (kit.CT, [rig.EXPLICIT]))
            kind, body = peer.send(asked).pdu()
        assert kind == 2
        results = {body[at + 4]: body[at + 6] for at in range(len(body)) if body[at : at + 2] == b"\x21\x00"}
        assert results == {1: 0 if "mpps" in may else 3, 3: 3, 5: 0}


SEEDS = [encode(ds, True, True) for ds in (begun(), ended({"1.1": ["1.1.1", "1.1.2"], "1.2": []}))]


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    damage=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    length=st.integers(0, 2000),
    creating=st.booleans(),
)
def test_whatever_comes_is_a_step_or_refused(
    seed: bytes, damage: list[tuple[int, int]], length: int, creating: bool
) -> None:
    data = bytearray(seed[:length] if length < 1000 else seed)
    for at, value in damage:
        if data:
            data[at % len(data)] = value
    read = step_or_status(bytes(data), creating)
    if isinstance(read, Step):
        assert read.state in (None, "IN PROGRESS", "COMPLETED", "DISCONTINUED")
    else:
        assert read.code
        assert read.comment.isascii()
        assert MARK not in read.comment


def step_or_status(data: bytes, creating: bool) -> Step | Status:
    try:
        return read_step(data, IMPLICIT_LITTLE, creating=creating)
    except Refused as refused:
        return refused.status


def test_the_seeds_are_steps() -> None:
    assert read_step(SEEDS[0], IMPLICIT_LITTLE, creating=True) == Step("IN PROGRESS", "1.1", {})
    assert read_step(SEEDS[1], IMPLICIT_LITTLE, creating=False).series == {"1.1": {"1.1.1", "1.1.2"}, "1.2": set()}
