"""C-ECHO and C-STORE by real senders: what is acknowledged is on the disk, byte for byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE

from edgemed.base.hashing import sha256_bytes
from edgemed.imaging.dicom.part10 import read_meta
from tests.serve import kit
from tests.serve.dicom import rig
from tests.waiting import wait_for


def data_set(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(read_meta(file).offset)
        return file.read()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    with rig.inlet(tmp_path_factory.mktemp("inlet")) as running:
        yield running


@rig.needs("echoscu")
def test_echo(shared: rig.Rig) -> None:
    assert "Received Echo Response (Success)" in rig.dcmtk(
        "echoscu", "-v", "-aet", "CT1", "-aec", "EDGEMED", "127.0.0.1", shared.port
    )


@rig.needs("storescu")
def test_a_study_of_dcmtk(shared: rig.Rig, tmp_path: Path) -> None:
    files = [
        kit.write(kit.image(study="1.2.3", series="1.2.3.4", rows=512, columns=512), tmp_path / str(i))
        for i in range(3)
    ]
    ended: list[tuple[str, bool]] = []
    shared.services.intake.on_association_ended.append(lambda name, released: ended.append((name, released)))
    assert rig.storescu(shared.port, *files).count("Received Store Response (Success)") == 3
    rows = [row for row in shared.rows() if row["study"] == "1.2.3"]
    assert {row["sha256"] for row in rows} == {sha256_bytes(data_set(file)) for file in files}
    for row in rows:
        assert hashlib.sha256(shared.data_set(row)).hexdigest() == row["sha256"]
        assert (row["peer"], row["called"], row["inlet"], row["series"]) == ("CT1", "EDGEMED", "dicom", "1.2.3.4")
        kept = dcmread(shared.services.spool.path(row["path"]))
        assert kept.file_meta.MediaStorageSOPInstanceUID == kept.SOPInstanceUID == row["sop_instance"]
        assert kept.file_meta.SourceApplicationEntityTitle == "CT1"
        assert row["size"] == shared.services.spool.path(row["path"]).stat().st_size
    wait_for(lambda: ended)
    assert ended == [(rows[0]["association"], True)]
    assert shared.metric("associations") == 0


COMPRESSED = {
    "jpeg": ("dcmcjpeg", "1.2.840.10008.1.2.4.70", "-xs"),
    "jpegls": ("dcmcjpls", "1.2.840.10008.1.2.4.80", "-xt"),
    "rle": ("dcmcrle", "1.2.840.10008.1.2.5", "-xr"),
}


@pytest.mark.parametrize("name", COMPRESSED)
@rig.needs("storescu", "dcmcjpeg", "dcmcjpls", "dcmcrle")
def test_compressed_is_kept_as_it_is(shared: rig.Rig, tmp_path: Path, name: str) -> None:
    program, syntax, option = COMPRESSED[name]
    plain = kit.write(kit.image(), tmp_path / "plain.dcm")
    packed = tmp_path / "packed.dcm"
    rig.dcmtk(program, plain, packed)
    rig.storescu(shared.port, packed, options=(option,))
    row = shared.rows()[-1]
    assert row["syntax"] == syntax
    assert shared.data_set(row) == data_set(packed)


def test_pynetdicom_sends_what_it_likes(shared: rig.Rig) -> None:
    ae = AE("CT1")
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"):
        ae.requested_contexts = []
        ae.add_requested_context(kit.CT, syntax)
        association = ae.associate("127.0.0.1", shared.port, ae_title="EDGEMED", max_pdu=4096)
        assert association.is_established
        ds = kit.image(study="1.2.99")
        ds.file_meta.TransferSyntaxUID = syntax
        assert association.send_c_store(ds).Status == 0x0000
        assert association.send_c_store(ds).Status == 0x0000  # again: the very same
        association.release()
        wait_for(lambda: shared.rows()[-1]["repeats"], "the count, which nobody waits for")
        row = shared.rows()[-1]
        assert (row["study"], row["syntax"], row["repeats"]) == ("1.2.99", syntax, 1)
        assert dcmread(shared.services.spool.path(row["path"])).PixelData == ds.PixelData


def test_tiny_pdus_and_several_values_in_one(shared: rig.Rig, tmp_path: Path) -> None:
    ds = kit.image()
    body = data_set(kit.write(ds, tmp_path / "a.dcm"))
    command = rig.store_command(kit.CT, ds.SOPInstanceUID)
    with rig.raw(shared.port) as peer:
        assert peer.send(rig.associate()).pdu()[0] == 2
        peer.send(
            rig.p_data((1, 1, command[:10]), (1, 1, command[10:30])), rig.p_data((1, 3, command[30:]), (1, 0, body[:7]))
        )
        for at in range(7, len(body) - 50, 50):
            peer.send(rig.p_data((1, 0, body[at : at + 50])))
            last = at + 50
        peer.send(rig.p_data((1, 0, body[last:]), (1, 2, b"")))
        assert peer.status() == 0x0000
        assert peer.send(rig.RELEASE).pdu()[0] == 6
    assert shared.data_set(shared.rows()[-1]) == body


def test_what_was_under_way_leaves_nothing(shared: rig.Rig) -> None:
    before = len(shared.rows())
    with rig.raw(shared.port) as peer:
        peer.send(rig.associate()).pdu()
        peer.send(rig.p_data((1, 3, rig.store_command(kit.CT, "1.2.3")), (1, 0, b"\x08\x00")))
        wait_for(lambda: list(shared.services.spool.incoming.iterdir()))
    wait_for(lambda: not list(shared.services.spool.incoming.iterdir()))
    assert len(shared.rows()) == before


def test_what_was_acknowledged_is_in_the_audit_trail_while_the_association_goes_on(tmp_path: Path) -> None:
    from pynetdicom import AE

    ds = kit.image()
    with rig.inlet(tmp_path) as running:
        ae = AE("CT1")
        ae.add_requested_context(kit.CT, rig.EXPLICIT)
        association = ae.associate("127.0.0.1", running.port, ae_title="EDGEMED")
        assert association.send_c_store(ds).Status == 0x0000
        trail = tmp_path / "state/audit/trail.jsonl"
        try:
            wait_for(lambda: str(ds.SOPInstanceUID) in trail.read_text(encoding="utf-8"), "the entry")
            assert association.is_established
        finally:
            association.release()
    said = trail.read_text(encoding="utf-8")
    assert said.count(str(ds.SOPInstanceUID)) == 1
    assert "Node Authentication" not in said  # all went well


def test_an_association_that_ends_badly_is_a_security_alert(tmp_path: Path) -> None:
    trail = tmp_path / "state/audit/trail.jsonl"
    with rig.inlet(tmp_path) as running:
        with rig.raw(running.port) as peer:
            peer.send(rig.associate()).pdu()
        # before the daemon ends, which ends it otherwise
        wait_for(lambda: "It was lost; 0 objects were taken" in trail.read_text(encoding="utf-8"), "the alert")
    assert trail.read_text(encoding="utf-8").count("Node Authentication") == 1
