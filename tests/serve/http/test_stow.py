"""STOW-RS against a running daemon: dicomweb-client and Orthanc's plug-in as senders, and bodies that are not right."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from edgemed.base.hashing import sha256_bytes
from edgemed.imaging.dicom.part10 import read_meta
from edgemed.serve import intake
from edgemed.serve.check import check
from edgemed.serve.daemon import Daemon
from tests.serve import kit
from tests.serve.dicom.orthanc import needs_orthanc, orthanc
from tests.serve.http.conftest import served
from tests.serve.netns import private_network
from tests.serve.store import fails_in, rows
from tests.waiting import wait_for

STUDIES = "/dicom-web/studies"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.fixture(scope="module")
def stow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with served(tmp_path_factory.mktemp("stow"), ready=False, http={"max_body": "1MiB"}) as three:
        yield three


def objects(daemon: Daemon, uid: str) -> list[Any]:
    return rows(daemon.services.journal, "SELECT * FROM object WHERE sop_instance = ?", uid)


def multipart(*parts: bytes, boundary: str = "b0undary", kind: str = "application/dicom") -> tuple[bytes, str]:
    body = b"".join(b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (boundary.encode(), kind.encode(), p) for p in parts)
    return body + f"--{boundary}--\r\n".encode(), f'multipart/related; type="application/dicom"; boundary={boundary}'


def post(client: httpx.Client, body: bytes, content_type: str, path: str = STUDIES, **headers: str) -> httpx.Response:
    return client.post(path, content=body, headers={"Content-Type": content_type, **headers})


def nothing_left(daemon: Daemon) -> bool:
    """Whether `incoming` gets empty; results are written there, too."""
    return wait_for(lambda: not list(daemon.services.spool.incoming.iterdir()))


def reasons(answer: httpx.Response) -> list[int]:
    module = answer.json()
    failed = [*module.get("00081198", {}).get("Value", []), *module.get("0008119A", {}).get("Value", [])]
    return [item["00081197"]["Value"][0] for item in failed]


def test_dicomweb_client_stores_a_series(stow: Any) -> None:
    daemon, server, _ = stow
    study, series = generate_uid(), generate_uid()
    images = [kit.image(study=study, series=series, InstanceNumber=i) for i in range(3)]
    told = DICOMwebClient(f"http://127.0.0.1:{server.port}/dicom-web").store_instances(images, study)
    assert [item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence] == [i.SOPInstanceUID for i in images]
    assert "FailedSOPSequence" not in told
    for image in images:
        (row,) = objects(daemon, image.SOPInstanceUID)
        data = daemon.services.spool.path(row["path"]).read_bytes()
        assert (row["inlet"], row["study"], row["series"]) == ("stow", study, series)
        assert row["sha256"] == sha256_bytes(data[read_meta(io.BytesIO(data)).offset :])
    assert len({objects(daemon, image.SOPInstanceUID)[0]["association"] for image in images}) == 1
    assert nothing_left(daemon)


@needs_orthanc
@pytest.mark.skipif(not PLUGIN.exists(), reason="not installed: orthanc-dicomweb")
def test_orthanc_sends(tmp_path: Path) -> None:
    with private_network(), served(tmp_path, ready=False) as (daemon, server, _):
        to = {"edgemed": {"Url": f"http://127.0.0.1:{server.port}/dicom-web/"}}
        settings = {"Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Servers": to}}
        with orthanc(tmp_path / "orthanc", {}, **settings) as peer:
            image = kit.image()
            kept = peer.post("/instances", kit.encode(image))["ID"]
            done = peer.post("/dicom-web/servers/edgemed/stow", {"Resources": [kept], "Synchronous": True})
            assert int(done["InstancesCount"]) == 1
        (row,) = objects(daemon, image.SOPInstanceUID)
        assert (row["state"] != "refused", row["study"]) == (True, image.StudyInstanceUID)


def test_the_same_again_and_another_under_its_name(stow: Any) -> None:
    daemon, _, client = stow
    image = kit.image()
    assert post(client, *multipart(kit.encode(image))).status_code == 200
    assert post(client, *multipart(kit.encode(image))).status_code == 200
    image.PatientComments = "another"
    answer = post(client, *multipart(kit.encode(image)))
    assert (answer.status_code, reasons(answer)) == (409, [0xC111])
    assert [row["state"] for row in objects(daemon, image.SOPInstanceUID)].count("refused") == 1


def test_some_of_them(stow: Any) -> None:
    _, _, client = stow
    good, bad = kit.image(), kit.encode(kit.image())
    answer = post(client, *multipart(kit.encode(good), b"no DICOM", bad[:200] + b"xx" + bad[202:]))
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/dicom+json"
    module = Dataset.from_json(answer.json())
    assert [item.ReferencedSOPInstanceUID for item in module.ReferencedSOPSequence] == [good.SOPInstanceUID]
    assert len(reasons(answer)) == 2


def with_meta(element: int, value: str) -> bytes:
    """An image whose file meta information says something else, as long."""
    image = kit.image(instance="1.2.3.4.5.6.7.8.9.10.1")
    data = kit.encode(image)
    at = data.index(b"\x02\x00" + element.to_bytes(2, "little") + b"UI") + 8
    length = int.from_bytes(data[at - 2 : at], "little")
    assert len(value) <= length
    return data[:at] + value.encode().ljust(length, b"\0") + data[at + length :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: b"", 0xC000),
        (lambda: b"\0" * 128 + b"DICM", 0xC122),
        (lambda: kit.encode(kit.image())[:300], 0xC000),
        (lambda: kit.encode(kit.image(sop_class="1.2.840.10008.5.1.4.1.1.88.33")), 0x0122),
        (lambda: with_meta(3, "1.2.3.4.5.6.7.8.9.10.2"), 0xA900),
        (lambda: with_meta(0x10, "1.2.840.1.2.9.1"), 0xC122),
    ],
    ids=["nothing", "a head", "cut short", "a report", "another in the meta", "an unknown syntax"],
)
def test_what_is_not_taken_and_why(stow: Any, data: Any, reason: int) -> None:
    daemon, _, client = stow
    body = data()
    with daemon.services.journal.read() as connection:
        (before,) = connection.execute("SELECT count(*) FROM object WHERE state = 'refused'").fetchone()
    answer = post(client, *multipart(body))
    assert (answer.status_code, reasons(answer)) == (409, [reason])
    with daemon.services.journal.read() as connection:
        (after,) = connection.execute("SELECT count(*) FROM object WHERE state = 'refused'").fetchone()
    assert after == before + 1
    assert nothing_left(daemon)


def test_another_study_than_the_path_names(stow: Any) -> None:
    answer = post(stow[2], *multipart(kit.encode(kit.image())), path=f"{STUDIES}/1.2.3")
    assert (answer.status_code, reasons(answer)) == (409, [0xC409])


def test_one_instance_without_multipart(stow: Any) -> None:
    image = kit.image()
    assert post(stow[2], kit.encode(image), "application/dicom").status_code == 200
    assert len(objects(stow[0], image.SOPInstanceUID)) == 1


def test_more_than_the_body_limit_flows_to_the_disk(stow: Any) -> None:
    image = kit.image(rows=1024, columns=1024)
    data = kit.encode(image)
    assert len(data) > 1 << 20  # `max_body` bounds what is held in memory; this is not

    def pieces() -> Iterator[bytes]:
        body, _ = multipart(data)
        yield from (body[at : at + 65537] for at in range(0, len(body), 65537))

    answer = stow[2].post(STUDIES, content=pieces(), headers={"Content-Type": multipart(b"")[1]})  # chunked
    assert answer.status_code == 200
    (row,) = objects(stow[0], image.SOPInstanceUID)
    assert stow[0].services.spool.path(row["path"]).read_bytes() == data


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("", b"", 415),
        ('multipart/related; type="application/dicom+json"; boundary=b', b"--b--", 415),
        ('multipart/related; type="application/dicom"', b"--b--", 400),
        (f'multipart/related; type="application/dicom"; boundary={"x" * 129}', b"", 400),
        ('multipart/related; type="application/dicom"; boundary=b', b"", 400),
        ('multipart/related; type="application/dicom"; boundary=b', b"other", 400),
        ('multipart/related; type="application/dicom"; boundary=b', b"--b--\r\n", 400),
        (
            'multipart/related; type="application/dicom"; boundary=b',
            b"--b\r\nContent-Type: application/dicom\r\n\r\nx",
            400,
        ),
        ('multipart/related; type="application/dicom"; boundary=b', b"--b\r\n" + b"A" * 5000, 400),
    ],
)
def test_bodies_that_are_not_right(stow: Any, content_type: str, body: bytes, status: int) -> None:
    answer = post(stow[2], body, content_type)
    assert (answer.status_code, bool(answer.json()["error"])) == (status, True)
    assert nothing_left(stow[0])


def test_an_answer_of_another_form(stow: Any) -> None:
    assert post(stow[2], *multipart(b"x"), Accept="application/dicom+xml").status_code == 406


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    spool = {"reserve": "1000000GiB", "warn": "1000000GiB"}
    with served(tmp_path, spool=spool) as (daemon, _, client):  # it is ready: the model answers
        answer = post(client, *multipart(kit.encode(kit.image())))
        assert (answer.status_code, reasons(answer)) == (507, [0xA700])
        assert "disk-full" in [alarm.code for alarm in daemon.services.alarms.standing]
        told = client.get("/v2/health/ready")
        assert ("inputs", False) in [(reason["subject"], reason["stops"]) for reason in told.json()["reasons"]]
        assert told.status_code == 200


def test_a_disk_that_fails_is_not_called_full(stow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon, _, client = stow
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fails_in("incoming"))
        answer = post(client, *multipart(kit.encode(kit.image())))
    assert (answer.status_code, reasons(answer)) == (507, [0xA700])
    assert [daemon.services.alarms.stands(code) for code in ("disk-failed", "disk-full")] == [True, False]
    assert post(client, *multipart(kit.encode(kit.image()))).status_code == 200
    assert not daemon.services.alarms.stands("disk-failed")


def test_what_may_be_stored_and_how_often_is_said_by_the_site(tmp_path: Path) -> None:
    limits = {"sop_classes": ["CTImageStorage"], "per_minute": 2}
    with served(tmp_path, ready=False, http=limits) as (daemon, _, client):
        assert reasons(post(client, *multipart(kit.encode(kit.image(sop_class=kit.CR))))) == [0x0122]
        assert post(client, *multipart(kit.encode(kit.image()))).status_code == 200
        answer = post(client, *multipart(kit.encode(kit.image())))
        assert (answer.status_code, reasons(answer)) == (507, [0xA700])
        assert nothing_left(daemon)


def test_a_sop_class_that_is_none_is_found_before_the_daemon_runs(tmp_path: Path) -> None:
    found = check(kit.bedside(tmp_path, http={"sop_classes": ["CTImage"]}))
    assert ["CTImageStorage" in line.text for line in found if (line.what, line.verdict) == ("http", "error")] == [True]


def test_a_fault_of_ours_is_not_laid_on_the_image(stow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise ZeroDivisionError

    ds = kit.image()
    body, uid = kit.encode(ds), str(ds.SOPInstanceUID)
    with monkeypatch.context() as patched:
        patched.setattr(intake, "name_of", faulty)
        assert reasons(post(stow[2], *multipart(body))) == [0x0110]
    assert [row["state"] for row in objects(stow[0], uid)] == ["refused"]  # the journal knows it, as over C-STORE
    assert post(stow[2], *multipart(body)).status_code == 200


def test_a_sender_that_goes_away_leaves_nothing(stow: Any) -> None:
    daemon, server, _ = stow
    whole, half = kit.image(), kit.image(rows=1536, columns=1536)
    data = kit.encode(half)
    body, content_type = multipart(kit.encode(whole), data)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST {STUDIES} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: -len(data) // 3])
        wait_for(lambda: objects(daemon, whole.SOPInstanceUID))
    assert nothing_left(daemon)
    assert objects(daemon, half.SOPInstanceUID) == []
