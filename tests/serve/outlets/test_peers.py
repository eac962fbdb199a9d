"""Results arrive where they are read: Debian's Orthanc with its DICOMweb plug-in, DCMTK's storescp and dcmqrscp."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid

from edgemed.imaging.dicom.part10 import read_meta
from edgemed.serve.daemon import Daemon
from edgemed.serve.dicom.inlet import DicomInlet
from edgemed.serve.outlets.outlets import Outlets
from edgemed.serve.services import Part, Services
from tests.serve import kit
from tests.serve.dicom import rig
from tests.serve.dicom.orthanc import needs_orthanc, orthanc
from tests.serve.netns import inside, private_network
from tests.serve.outlets import bench
from tests.waiting import wait_for

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
RETRY = {"first": "100ms", "cap": "1s"}


class WithOutlets(Daemon):
    """The daemon with its outlets and the DICOM inlet alone."""

    def _all_parts(self, services: Services) -> Sequence[Part]:
        return [Outlets(services), DicomInlet(services)]


@contextmanager
def outlets(root: Path, *destinations: dict[str, Any]) -> Iterator[Services]:
    config = kit.bedside(
        root,
        models=[{"name": "chest", "bundle": root / "x", "send_to": [d["name"] for d in destinations]}],
        destinations=[{"retry": RETRY, **d} for d in destinations],
        dicom={"host": "127.0.0.1", "port": 11112, "peers": []},
    )
    with WithOutlets(config) as daemon:
        yield daemon.services


def add_images(services: Services, count: int) -> dict[str, bytes]:
    """Results that are as good as any: data sets by their UIDs."""
    study, made = generate_uid(), {}
    for _ in range(count):
        ds = kit.image(rows=64, columns=65, study=study)
        data = kit.encode(ds)
        bench.add_task(services, [("sr", ds.SOPInstanceUID, data)], subject=ds.SOPInstanceUID)
        made[str(ds.SOPInstanceUID)] = data_set(data)
    services.loops.wake("outlets")
    return made


def data_set(file: bytes) -> bytes:
    return file[read_meta(io.BytesIO(file)).offset :]


@needs_orthanc
@pytest.mark.skipif(not PLUGIN.exists(), reason="not installed: orthanc-dicomweb")
def test_orthanc_keeps_what_it_was_sent_and_says_so(tmp_path: Path) -> None:
    us = {"AET": "EDGEMED", "Host": "127.0.0.1", "Port": 11112, "AllowStorageCommitment": True}
    pacs = {"kind": "dicom", "name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": 4242}
    web = {"kind": "dicomweb", "name": "web", "url": "http://127.0.0.1:8043/dicom-web"}
    with (
        private_network(),
        orthanc(tmp_path / "a", {"us": us}) as first,
        orthanc(tmp_path / "b", {}, http_port=8043, DicomServerEnabled=False, Plugins=[str(PLUGIN)]) as second,
    ):
        assert inside()
        with outlets(tmp_path / "ours", pacs, web) as services:
            sent = add_images(services, 3)
            wait_for(lambda: bench.states(services) == ["delivered"] * 6, "the deliveries")
            assert "committed itself" in bench.reasons(services)[0]
            assert bench.states(services, "task") == ["delivered"] * 3
            assert bench.alarms(services) == set()
        for theirs in (first, second):
            found = {}
            for number in theirs.get("/instances"):
                file = theirs._client.get(f"/instances/{number}/file").content
                found[theirs.get(f"/instances/{number}/simplified-tags")["SOPInstanceUID"]] = data_set(file)
            assert found == sent


@rig.needs("storescp")
def test_storescp_gets_the_very_bytes(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    place = {"kind": "dicom", "name": "scp", "ae_title": "SCP", "host": "127.0.0.1", "port": 4242, "commitment": False}
    with (
        private_network(),
        running("storescp", "-od", kept, "-uf", "+B", "-aet", "SCP", "4242"),
        outlets(tmp_path / "ours", place) as services,
    ):
        sent = add_images(services, 5)
        wait_for(lambda: bench.states(services) == ["delivered"] * 5, "the deliveries")
    assert {path.name.split(".", 1)[1]: data_set(path.read_bytes()) for path in kept.iterdir()} == sent


@rig.needs("dcmqrscp")
def test_dcmqrscp_comes_up_late(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    settings = tmp_path / "dcmqrscp.cfg"
    settings.write_text(
        "NetworkTCPPort = 4242\nMaxPDUSize = 16384\nMaxAssociations = 4\n"
        "HostTable BEGIN\nus = (EDGEMED, 127.0.0.1, 11112)\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQR {kept} RW (200, 1024mb) ANY\nAETable END\n"
    )
    place = {"kind": "dicom", "name": "qr", "ae_title": "QR", "host": "127.0.0.1", "port": 4242, "commitment": False}
    with private_network(), outlets(tmp_path / "ours", place) as services:
        add_images(services, 3)
        wait_for(lambda: "delivery-late" in bench.alarms(services), "the alarm")
        with running("dcmqrscp", "-c", settings):
            wait_for(lambda: bench.states(services) == ["delivered"] * 3, "the deliveries")
            wait_for(lambda: bench.alarms(services) == set(), "the end of the alarm")
    assert len([path for path in kept.iterdir() if path.name != "index.dat"]) == 3


@contextmanager
def running(program: str, *arguments: object) -> Iterator[None]:
    path = shutil.which(program)
    assert path is not None
    process = subprocess.Popen([path, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(20)
