"""The JSON result keeps its schema; the HL7 message is read by the hl7 library, whatever names and notes hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import hl7
import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import InputError
from edgemed.imaging.results.content import Reading, ResultFile, Score
from edgemed.imaging.results.document import Result
from edgemed.imaging.results.hl7 import oru
from scripts.make_schemas import FOLDER
from tests.imaging.results import cases
from tests.serve import kit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def cr(tmp_path: Path) -> Path:
    image = kit.image(
        sop_class=kit.CR, PlacerOrderNumberImagingServiceRequest="PL|7", IssuerOfPatientID="HOSP", FrameTime=None
    )
    image.PixelSpacing = [0.5, 0.25]
    return kit.write(image, tmp_path / "cr.dcm")


def loaded(file: ResultFile) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.data)
    schema = json.loads((FOLDER / "result.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(found)
    return found


def test_what_was_found(cr: Path) -> None:
    mask = np.zeros((2, 64, 64), bool)
    mask[0, 10:14, 20:30] = True
    said = cases.content(cr, readings=(cases.classified(), cases.drawn(mask)), notes=("Late.",), ood=0.5)
    found = loaded(cases.made(said, "json")["json"])
    assert found["analysed"] == "2026-01-05T12:30:00.000Z"
    assert found["patient"]["name"] == "Doe^Jane"
    assert found["inputs"][0]["sop_class"] == kit.CR
    binary, drawn = found["readings"]
    assert binary["scores"][1] == {
        "name": "pneumonia",
        "code": {"value": "233604007", "scheme": "SCT", "meaning": "Pneumonia"},
        "value": 0.9275,
        "found": True,
    }
    first, second = drawn["masks"]
    assert (first["rows"], first["columns"], first["pixels"]) == ([10, 14], [20, 30], 40)
    assert (second["rows"], second["pixels"]) == (None, 0)
    assert "labels" not in json.dumps(found)


def test_sizes_in_millimetres(tmp_path: Path) -> None:
    paths = [
        kit.write(kit.image(study="1.2.1", series="1.2.2", position=2.5 * z, PixelSpacing=[0.5, 2]), tmp_path / f"{z}")
        for z in range(3)
    ]
    labels = np.zeros((1, 3, 64, 64), bool)
    labels[0, 1:, 4, 4] = True
    volume = cases.content(*paths, readings=(cases.drawn(labels, None),), planes=tuple((z, 0) for z in range(3)))
    (mask,) = loaded(cases.made(volume, "json")["json"])["readings"][0]["masks"]
    assert (mask["volume_mm3"], mask["area_mm2"], mask["planes"]) == (2 * 0.5 * 2 * 2.5, None, [1, 3])
    plane = cases.content(paths[0], readings=(cases.drawn(labels[:, 1]),))
    (mask,) = loaded(cases.made(plane, "json")["json"])["readings"][0]["masks"]
    assert (mask["area_mm2"], mask["volume_mm3"]) == (1.0, None)


def test_files_that_are_no_dicom(tmp_path: Path) -> None:
    source = tmp_path / "picture.png"
    source.write_bytes(b"\x89PNG\r\n\x1a\n")
    found = loaded(cases.made(cases.content(source, refusal="It is no DICOM."), "json")["json"])
    assert found["inputs"][0]["file"] == "picture.png"
    assert found["patient"] is None
    with pytest.raises(InputError, match="no DICOM"):
        oru(found)


def message(file: ResultFile, **how: str) -> Any:
    return hl7.parse(oru(json.loads(file.data), **how).decode("utf-8"))


def test_message(cr: Path) -> None:
    said = cases.content(cr, readings=(cases.classified(),), notes=("Late.",))
    parsed = message(cases.made(said, "json")["json"], application="AI", receiving="RIS^HOSP")
    msh, pid, obr = parsed.segment("MSH"), parsed.segment("PID"), parsed.segment("OBR")
    assert [str(msh[i]) for i in (3, 4, 5, 6, 7, 9, 11, 12)] == [
        *("AI", "bedside", "RIS", "HOSP", "20260105123000+0000", "ORU^R01^ORU_R01", "P", "2.5.1")
    ]
    assert len(str(msh[10])) == 20
    assert (str(pid[3]), str(pid[5]), str(pid[7]), str(pid[8])) == (
        "4711^^^HOSP",
        "Doe^Jane^^^^^L^A",
        "19700101",
        "F",
    )
    assert parsed.unescape(str(obr[2])) == "PL|7"
    assert (str(obr[3]), str(obr[18]), str(obr[25])) == ("A1", "A1", "P")
    rows = [(str(x[2]), str(x[3]), str(x[4]), str(x[5]), str(x[6]), str(x[11])) for x in parsed.segments("OBX")]
    assert ("TX", "121106^Comment^DCM", "", "RESEARCH USE ONLY - not for diagnosis", "", "P") in rows
    assert ("TX", "121106^Comment^DCM", "", "Late.", "", "P") in rows
    assert ("NM", "122157^Probability^DCM", "1.2", "0.9275", "1^^UCUM", "P") in rows
    assert ("CWE", "233604007^Pneumonia^SCT", "1.2", "52101004^Present^SCT", "", "P") in rows
    assert [str(x[1]) for x in parsed.segments("OBX")] == [str(n) for n in range(1, len(rows) + 1)]


def test_status_of_refusals_and_revisions(cr: Path) -> None:
    refused = message(cases.made(cases.content(cr, refusal="It is late."), "json")["json"])
    assert {str(x[11]) for x in refused.segments("OBX")} == {"X"}
    assert "NOT ANALYSED: It is late." in [str(x[5]) for x in refused.segments("OBX")]
    assert str(refused.segment("OBR")[25]) == "X"
    corrected = message(cases.made(cases.content(cr, readings=(cases.classified(),), revision=2), "json")["json"])
    assert {str(x[11]) for x in corrected.segments("OBX")} == {"C"}


def test_numbers_of_regressions_and_masks(cr: Path) -> None:
    mask = np.zeros((1, 64, 64), bool)
    mask[0, :2, :5] = True
    regression = Reading("thickness", "regression", 0, value=3.25, unit="mm")
    parsed = message(cases.made(cases.content(cr, readings=(regression, cases.drawn(mask))), "json")["json"])
    rows = [(str(x[3]), str(x[4]), str(x[5]), str(x[6])) for x in parsed.segments("OBX")]
    assert ("thickness^thickness^99EDGEMED", "1", "3.25", "mm^^UCUM") in rows
    assert ("42798000^Area^SCT", "2.1", "1.25", "mm2^^UCUM") in rows


def test_the_same_result_is_the_same_message(cr: Path) -> None:
    said = cases.content(cr, readings=(cases.classified(),))
    one, two = (oru(json.loads(cases.made(said, "json")["json"].data)) for _ in range(2))
    assert one == two
    other = oru(json.loads(cases.made(replace(said, revision=2), "json")["json"].data))
    assert other.split(b"|")[9] != one.split(b"|")[9], "another control ID"


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40)


@given(name=TEXTS, note=TEXTS, label=TEXTS.filter(bool))
def test_no_text_breaks_a_message(name: str, note: str, label: str) -> None:
    record = record_of(name, note, label)
    data = oru(record)
    parsed = hl7.parse(data.decode("utf-8"))
    assert {str(segment[0]) for segment in parsed} == {"MSH", "PID", "ORC", "OBR", "OBX"}
    assert data.count(b"\r") == len(parsed)
    notes = [str(x[5]) for x in parsed.segments("OBX") if str(x[3]).startswith("121106")]
    assert parsed.unescape(notes[-1]) == note
    assert len(str(parsed.segment("PID")[8])) == 1, "no field moved"
    assert all(str(x[11]) == "P" for x in parsed.segments("OBX"))
    assert data.isascii() == (len(parsed.segment("MSH")) <= 18)


def record_of(name: str, note: str, label: str) -> Result:
    said = cases.content(Path("x.dcm"), readings=(Reading("y", "multilabel", None, scores=(Score(label, 0.5, True),)),))
    from edgemed.imaging.results.document import Patient, describe

    blank = dict.fromkeys(Patient.model_fields, "")
    record = describe(replace(said, notes=(note,)), [None])
    return record.model_copy(update={"patient": Patient(**{**blank, "name": name, "id": name, "sex": "O"})})
