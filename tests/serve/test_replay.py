"""A study replayed to the site's own daemon: fresh UIDs, a schedule that waits for nobody, and nobody outside told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import generate_uid

from edgemed.base.errors import InputError
from edgemed.serve.config import Config
from edgemed.serve.dicom.receiver import Receiver
from edgemed.serve.dicom.scu import Link, Target
from edgemed.serve.dicom.template import UID_LENGTH, read_study
from edgemed.serve.rehearsal import RECEIVER, rehearse
from edgemed.serve.replay import Replayed, replay
from tests.serve import kit

MS = 1_000_000


def series(folder: Path, images: int = 2, **attributes) -> list[Dataset]:
    """A little CT series whose images refer to each other and to their study."""
    folder.mkdir(exist_ok=True)
    uids = {"study": generate_uid(), "series": generate_uid()}
    made = [kit.image(**uids, InstanceNumber=images - i, **attributes) for i in range(images)]
    for number, ds in enumerate(made):
        item, outside = Dataset(), Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kit.CT, made[0].SOPInstanceUID
        outside.ReferencedSOPClassUID, outside.ReferencedSOPInstanceUID = kit.CT, "1.2.3.4"
        ds.SourceImageSequence = [item, outside]
        ds.PatientComments = "odd  "
        kit.write(ds, folder / f"{number}.dcm")
    return made


def read(data: bytes, like: Dataset) -> Dataset:
    """A data set alone."""
    buffer = BytesIO()
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = like.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kit.CT, "1.2"
    empty = Dataset()
    empty.file_meta = meta
    empty.save_as(buffer, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue() + data))


@pytest.fixture
def scratch(tmp_path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def test_uids_are_fresh_each_time_and_agree_and_nothing_else_changes(tmp_path, scratch):
    originals = {str(ds.SOPInstanceUID): ds for ds in series(tmp_path / "in", 3)}
    study = read_study(tmp_path / "in", scratch)
    assert [image.sop_instance for image in study.series[0].images] == [*reversed(originals)]  # by Instance Number
    times = [study.fresh(), study.fresh()]
    assert not set(times[0].values()) & set(times[1].values())
    for fresh in times:
        assert {len(uid) for uid in fresh.values()} == {UID_LENGTH}
        sent = {
            image.sop_instance: read(image.filled(fresh), originals[image.sop_instance])
            for image in study.series[0].images
        }
        for uid, ds in sent.items():
            before = dcmread(BytesIO(kit.encode(originals[uid])))
            assert ds.PixelData == before.PixelData
            assert ds.SOPInstanceUID == fresh[uid]
            assert ds.StudyInstanceUID == fresh[before.StudyInstanceUID]
            assert ds.SeriesInstanceUID == fresh[before.SeriesInstanceUID]
            refers = [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence]
            assert refers == [fresh[before.SourceImageSequence[0].ReferencedSOPInstanceUID], "1.2.3.4"]
            for element in (ds, before):  # apart from those, they are the same
                for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SourceImageSequence"):
                    delattr(element, name)
            assert [(each.tag, each.VR, each.value) for each in ds] == [(b.tag, b.VR, b.value) for b in before]
    assert all(dcmread(path).SOPInstanceUID in originals for path in (tmp_path / "in").iterdir())  # those are untouched


def test_what_is_no_image_is_left_out_and_a_folder_without_any_is_refused(tmp_path, scratch):
    series(tmp_path / "in", 1)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "again.dcm").write_bytes((tmp_path / "in" / "0.dcm").read_bytes())
    study = read_study(tmp_path / "in", scratch)
    assert (study.images, study.left_out) == (1, 2)
    (tmp_path / "in" / "0.dcm").unlink()
    (tmp_path / "in" / "again.dcm").unlink()
    with pytest.raises(InputError, match="no DICOM image"):
        read_study(tmp_path / "in", scratch)
    with pytest.raises(InputError, match="is not a folder"):
        read_study(tmp_path / "nowhere", scratch)


def test_a_deflated_data_set_is_refused(tmp_path, scratch):
    series(tmp_path / "in", 1)
    ds = dcmread(tmp_path / "in" / "0.dcm")
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    kit.write(ds, tmp_path / "in" / "0.dcm")
    with pytest.raises(InputError, match="deflated"):
        read_study(tmp_path / "in", scratch)


def test_latency_counts_from_the_intended_arrival_however_slow_the_daemon_is(tmp_path, scratch, monkeypatch):
    series(tmp_path / "in", 1)
    study = read_study(tmp_path / "in", scratch)
    stall = [120, 0, 0, 0]
    enter = Link.__enter__

    def slowly(link: Link) -> Link:
        time.sleep(stall.pop(0) / 1000)
        return enter(link)

    monkeypatch.setattr(Link, "__enter__", slowly)
    into, ticks = Replayed(), []
    with Receiver(RECEIVER) as receiver:
        target = Target("127.0.0.1", receiver.port, RECEIVER, "MODALITY", 10_000 * MS)
        replay(study, target, repeat=4, pace_ns=40 * MS, into=into, done=lambda: ticks.append(None))
        assert receiver.received == into.accepted == len(ticks) == 4
    assert [b - a for a, b in zip(into.intended, into.intended[1:], strict=False)] == [40 * MS] * 3
    assert into.idle[:3] == [True, False, False]  # the stall held up those behind it, and it shows
    assert all(begun >= intended for begun, intended in zip(into.begun, into.intended, strict=True))
    assert into.begun[1] - into.intended[1] >= 80 * MS
    assert sorted(set(into.of.values())) == [0, 1, 2, 3]


def test_images_that_are_not_taken_are_counted_by_reason(tmp_path, scratch):
    series(tmp_path / "in", 2)
    study = read_study(tmp_path / "in", scratch)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        target = Target("127.0.0.1", closed.getsockname()[1], "X", "Y", 1000 * MS)
        into = Replayed()
        replay(study, target, repeat=1, pace_ns=MS, into=into)
    assert into.accepted == 0
    assert into.refused == {"It takes no connection": 2}


# -- nobody outside is spoken to ---------------------------------------------------------------------------------------


@contextmanager
def tripwire() -> Iterator[tuple[int, list[object]]]:
    """A port that nothing may connect to, and who did."""
    seen: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def watch() -> None:
            while True:
                try:
                    connection, peer = server.accept()
                except OSError:
                    return
                seen.append(peer)
                connection.close()

        thread = threading.Thread(target=watch)
        thread.start()
        yield server.getsockname()[1], seen
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def site(root: Path, port: int, **sections) -> Config:
    """Everything that a site may have that reaches out, at one port."""
    (root / "results").mkdir()
    (root / "watched").mkdir()
    url, names = f"http://127.0.0.1:{port}/", ("pacs", "web", "hook", "hl7", "share")
    return kit.bedside(
        root,
        **{
            "destinations": [
                {
                    "name": "pacs",
                    "kind": "dicom",
                    "ae_title": "PACS",
                    "host": "127.0.0.1",
                    "port": port,
                    "forward": True,
                },
                {"name": "web", "kind": "dicomweb", "url": url},
                {"name": "hook", "kind": "webhook", "url": url},
                {"name": "hl7", "kind": "hl7", "host": "127.0.0.1", "port": port},
                {"name": "share", "kind": "folder", "path": root / "results"},
            ],
            "models": [
                {
                    "name": "chest",
                    "bundle": kit.write_classifier(root / "chest.edgemed"),
                    "runner": "onnxruntime",
                    "level": "series",
                    "match": {"calling": ["CT1"]},
                    "completeness": {"after": "10ms"},
                    "results": ["sr", "json"],
                    "send_to": names,
                }
            ],
            "dicom": {"ae_title": "BEDSIDE", "peers": [{"ae_title": "CT1", "addresses": ["10.0.0.1"], "port": port}]},
            "folders": [{"name": "in", "path": root / "watched"}],
            "live": [{"name": "cam", "source": "/dev/video9", "model": "chest"}],
            "audit": {"syslog": f"127.0.0.1:{port}", "key": root / "audit.pem"},
            "http": {"host": "0.0.0.0", "port": port, "tokens": root / "tokens", "grpc_port": port},
            **sections,
        },
    )


def test_no_address_of_the_site_is_left_in_a_rehearsal(tmp_path):
    config = site(tmp_path, 12345)
    made = rehearse(config, tmp_path / "scratch", 999)
    text = made.config.model_dump_json()
    for outside in ("12345", "10.0.0.1", "/results", "/watched", "video9", "audit.pem", 'tokens":"', "0.0.0.0"):
        assert outside not in text
    assert Config.model_validate_json(text) == made.config
    assert {(each.kind, each.host, each.port) for each in made.config.destinations} == {("dicom", "127.0.0.1", 999)}
    assert [each.name for each in made.config.destinations] == ["pacs", "web", "share"]
    assert made.config.models[0].send_to == ("pacs", "web", "share")
    assert made.config.models[0].completeness == config.models[0].completeness
    assert made.config.models[0].match == config.models[0].match
    assert made.config.daemon.state == tmp_path / "scratch"
    assert (made.calling, made.called) == ("CT1", "BEDSIDE")
    assert any("hl7" in text for text in made.differs)


def test_a_new_section_of_the_configuration_must_be_thought_of():
    """A rehearsal names what it keeps; this list is to be changed together with `rehearse`."""
    known = {
        "daemon",
        "dicom",
        "http",
        "folders",
        "models",
        "live",
        "destinations",
        "spool",
        "golden",
        "trust",
        "audit",
    }
    assert set(Config.model_fields) == known | {"thermal", "log"}


def test_a_site_without_peers_that_may_send_is_refused(tmp_path):
    config = kit.bedside(tmp_path, dicom={"peers": [{"ae_title": "A", "addresses": ["10.0.0.1"], "may": ["echo"]}]})
    with pytest.raises(InputError, match="No peer"):
        rehearse(config, tmp_path, 1)
