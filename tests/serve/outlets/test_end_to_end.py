"""From the modality to the PACS: an image is stored here, analysed, and its report is there, committed."""

from __future__ import annotations

import io
from pathlib import Path

from pydicom import dcmread

from edgemed.serve.dicom.inlet import DicomInlet
from tests.serve import kit
from tests.serve.dicom import rig
from tests.serve.outlets import bench
from tests.serve.outlets.pacs import ToyPacs, toy
from tests.waiting import wait_for


@rig.needs("storescu")
def test_an_image_comes_back_as_a_report(tmp_path: Path) -> None:
    images = [kit.image(level=level) for level in (60, 200)]
    files = [kit.write(ds, tmp_path / f"{index}.dcm") for index, ds in enumerate(images)]
    bundle = kit.write_classifier(tmp_path / "chest.edgemed")
    with toy(ToyPacs()) as pacs:
        place = {
            "kind": "dicom",
            "name": "pacs",
            "ae_title": "PACS",
            "host": "127.0.0.1",
            "port": pacs.port,
            "forward": True,
        }
        config = kit.bedside(
            tmp_path,
            models=[{"name": "chest", "bundle": bundle, "runner": "onnxruntime", "send_to": ["pacs"]}],
            destinations=[place],
            dicom={"host": "127.0.0.1", "port": 0, "peers": [rig.MODALITY]},
        )
        with kit.running(config) as daemon:
            services, inlet = daemon.services, daemon.part("dicom")
            assert isinstance(inlet, DicomInlet)
            rig.storescu(inlet.port, *files)
            wait_for(lambda: len(bench.states(services)) == 4, "the results")
            wait_for(lambda: bench.states(services) == ["delivered"] * 4, "the deliveries")
            wait_for(lambda: set(bench.states(services, "object")) == {"delivered"}, "the end")
            lines = {line.model: line for line in services.timelines.recent}
        stored = dict(pacs.stored)
        for ds, file in zip(images, files, strict=True):
            assert stored.pop(str(ds.SOPInstanceUID)) == file.read_bytes()[bench._offset(file.read_bytes()) :]
        reports = [dcmread(io.BytesIO(_part10(data)), force=True) for data in stored.values()]
        assert {report.Modality for report in reports} == {"SR"}
        about = {report.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID for report in reports}
        assert about == {ds.StudyInstanceUID for ds in images}
        points = lines["chest"].points
        ordered = [points[name] for name in ("first_byte", "last_object", "complete", "started", "written", "sent")]
        assert ordered == sorted(ordered)


def _part10(data: bytes) -> bytes:
    """A data set in explicit VR little endian as a file."""
    from edgemed.imaging.dicom.identity import encode_meta

    return encode_meta("1.2.840.10008.5.1.4.1.1.88.33", "1.2.3", rig.EXPLICIT) + data
