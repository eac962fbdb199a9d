"""Sloppy headers never cost a result: whatever they hold, all objects are made, valid, and of the right patient."""

from __future__ import annotations

import io
import json
import logging
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from edgemed.imaging.results.content import Content
from edgemed.imaging.results.hl7 import oru
from tests.imaging.results import cases
from tests.serve import kit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def raw(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element of explicit VR, whatever its value."""
    value += b" " * (len(value) % 2)
    if vr in (b"OB", b"UN"):
        return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def with_raw(image: Dataset, elements: dict[int, tuple[bytes, bytes]]) -> bytes:
    """The image with elements written as they are given."""
    for tag in elements:
        if tag in image:
            del image[tag]
    data = kit.encode(image)
    body = pydicom.dcmread(io.BytesIO(data))
    start = 132 + 12 + body.file_meta.FileMetaInformationGroupLength
    pieces = [(tag, raw(tag, *what)) for tag, what in elements.items()]
    for element in body:
        one = Dataset()
        one.add(element)
        part = io.BytesIO()
        pydicom.filewriter.write_dataset(_little(part), one)
        pieces.append((int(element.tag), part.getvalue()))
    return data[:start] + b"".join(piece for _, piece in sorted(pieces))


def _little(buffer: io.BytesIO) -> Any:
    from pydicom.filebase import DicomFileLike

    file = DicomFileLike(buffer)
    file.is_little_endian, file.is_implicit_VR = True, False
    return file


RAW: dict[str, dict[int, tuple[bytes, bytes]]] = {
    "dates with points, times with colons": {
        0x00080020: (b"DA", b"2026.01.05"),
        0x00080030: (b"TM", b"10:20:30"),
        0x00100030: (b"DA", b"1970-01-01"),
    },
    "dates that are none": {
        0x00080020: (b"DA", b"20261345"),
        0x00080030: (b"TM", b"256199"),
        0x00100030: (b"DA", b"unknown"),
    },
    "sex in words": {0x00100040: (b"CS", b"Female")},
    "sex in small letters": {0x00100040: (b"CS", b"f")},
    "numbers as words": {0x00200013: (b"IS", b"seven"), 0x00200011: (b"IS", b"1.5")},
    "numbers out of range": {0x00200013: (b"IS", b"-3"), 0x00200011: (b"IS", b"99999999999")},
    "patient ID of another VR": {0x00100020: (b"US", b"\x07\x00")},
    "study ID as bytes": {0x00200010: (b"OB", b"\x00\x01\x02\xff")},
    "several patient IDs": {0x00100020: (b"LO", b"4711\\4712")},
    "controls in a name": {0x00100010: (b"PN", b"Doe\x07^Ja\x1bne")},
    "a name of many parts": {0x00100010: (b"PN", b"a^b^c^d^e^f^g=h=i=j")},
    "a long name": {0x00100010: (b"PN", b"x" * 300)},
    "bytes of no character set": {0x00100010: (b"PN", b"M\xfcller^J\xf6rg")},
    "a character set that is misspelt": {0x00080005: (b"CS", b"ISO-IR 100"), 0x00100010: (b"PN", b"M\xfcller")},
    "a character set that there is not": {0x00080005: (b"CS", b"KLINGON"), 0x00100010: (b"PN", b"M\xfcller")},
    "an empty character set": {0x00080005: (b"CS", b"")},
    "orientation that is none": {0x00200020: (b"CS", b"XX\\YY")},
    "orientation of one axis": {0x00200020: (b"CS", b"L")},
    "a side in words": {0x00200060: (b"CS", b"left"), 0x00180015: (b"CS", b"Knee")},
    "a body part that there is not": {0x00180015: (b"CS", b"whole body / stuff")},
    "burned in, perhaps": {0x00280301: (b"CS", b"MAYBE")},
    "a time zone that is none": {0x00080201: (b"SH", b"CET")},
    "a time zone": {0x00080201: (b"SH", b"-0930")},
    "an age in years": {0x00101010: (b"AS", b"45")},
    "identity removed, nobody knows how": {0x00120062: (b"CS", b"YES")},
    "UIDs with zeros in front": {0x0020000D: (b"UI", b"1.2.03.4\0"), 0x0020000E: (b"UI", b"1.2.05\0")},
    "UIDs that are none": {0x0020000D: (b"UI", b"study-1"), 0x0020000E: (b"UI", b"")},
    "a frame of reference that is none": {0x00200052: (b"UI", b"x")},
    "no numbers at all": {0x00200013: (b"IS", b""), 0x00200011: (b"IS", b""), 0x00200010: (b"SH", b"")},
    "no patient": {0x00100010: (b"PN", b""), 0x00100020: (b"LO", b""), 0x00100030: (b"DA", b"")},
}

# where the header keeps an identity that breaks a rule, the result keeps it too: it must be found beside its image
KEPT = {"UIDs with zeros in front"}


def build(data: bytes, folder: Path, **fields: Any) -> dict[str, Any]:
    source = folder / "source.dcm"
    source.write_bytes(data)
    readings = (cases.classified(), cases.drawn(cases.blobs(64, 64)))
    return cases.made(cases.content(source, **{"readings": readings, **fields}))


def read(file: Any) -> Any:
    return pydicom.dcmread(io.BytesIO(file.data))


@cases.peers
@pytest.mark.parametrize("name", RAW)
def test_all_results_are_made_and_valid(name: str, tmp_path: Path) -> None:
    data = with_raw(kit.image(sop_class=kit.CR), RAW[name])
    files = build(data, tmp_path)
    assert set(files) == set(cases.EVERY)
    for kind in cases.DICOM:
        path = tmp_path / files[kind].name
        path.write_bytes(files[kind].data)
        errors = [
            line for line in cases.complaints(path) if name not in KEPT or not ("UID" in line or "Value Repr" in line)
        ]
        assert errors == [], kind
        assert len(list(read(files[kind]).iterall())) > 50, "each element can be read"


@cases.peers
@pytest.mark.parametrize(
    "keyword",
    [
        *("StudyInstanceUID", "SeriesInstanceUID", "StudyID", "PatientName", "PatientID", "PatientBirthDate"),
        *("PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "Modality"),
        *("SeriesNumber", "InstanceNumber", "Manufacturer", "ImageType", "SOPClassUID"),
    ],
)
def test_nothing_is_needed(keyword: str, tmp_path: Path) -> None:
    image = kit.image(sop_class=kit.CR)
    del image[keyword]
    plain = io.BytesIO()
    image.save_as(plain, enforce_file_format=False)
    files = build(plain.getvalue(), tmp_path)
    cases.assert_valid(tmp_path, files)


NAMES = {
    "ISO_IR 100": "Müller^Jörg",
    "ISO_IR 144": "Люкceмбypг^Роза",
    "ISO_IR 126": "Διονυσιος",
    "ISO_IR 13": "ﾔﾏﾀﾞ^ﾀﾛｳ",
    "ISO_IR 192": "Wang^XiaoDong=王^小東",
    "GB18030": "Wang^XiaoDong=王^小东",
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
    "ISO_IR 166": "นามสกุล",
}


@pytest.mark.parametrize("charset", NAMES)
def test_names_of_all_scripts_stay_what_they_are(charset: str, tmp_path: Path) -> None:
    image = kit.image(sop_class=kit.CR)
    image.SpecificCharacterSet = charset.split("\\") if "\\" in charset else charset
    image.PatientName = NAMES[charset]
    files = build(kit.encode(image), tmp_path)
    for kind in cases.DICOM:
        opened = read(files[kind])
        assert str(opened.PatientName) == NAMES[charset], kind
        declared = opened.SpecificCharacterSet
        assert ("\\".join(declared) if not isinstance(declared, str) else declared) == charset, kind
    message = oru(json.loads(files["json"].data)).decode("utf-8")
    assert "UNICODE UTF-8" in message.split("\r")[0]
    assert NAMES[charset].split("=")[-1].split("^")[0] in message


def test_a_word_that_the_character_set_lacks_makes_it_utf8(tmp_path: Path) -> None:
    image = kit.image(sop_class=kit.CR, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    data = kit.encode(image)
    files = build(data, tmp_path, notes=("Люкс",))
    assert read(files["sr"]).SpecificCharacterSet == "ISO_IR 192"
    assert str(read(files["sr"]).PatientName) == "Müller^Jörg"
    assert read(files["seg"]).SpecificCharacterSet == "ISO_IR 100"


def test_identifiers_are_kept_whole(tmp_path: Path) -> None:
    image = kit.image(sop_class=kit.CR, PatientID="P" * 70, AccessionNumber="A" * 20, IssuerOfPatientID="HOSP")
    files = build(kit.encode(image), tmp_path)
    for kind in cases.DICOM:
        opened = read(files[kind])
        assert (opened.PatientID, opened.AccessionNumber) == ("P" * 70, "A" * 20)
        assert opened.IssuerOfPatientID == "HOSP"
        assert opened.StudyInstanceUID == image.StudyInstanceUID


@pytest.mark.parametrize(("sop_class", "frames"), [("1.2.840.10008.5.1.4.1.1.6", None), ("1.3.6.1.4.1.99999.1", 3)])
def test_classes_that_libraries_do_not_know(sop_class: str, frames: int | None, tmp_path: Path) -> None:
    image = kit.image(sop_class=sop_class, frames=frames)
    files = build(kit.encode(image), tmp_path)
    assert {"sr", "sc", "gsps", "json"} <= set(files)
    for kind in ("sr", "sc", "gsps"):
        referred = {
            str(item.ReferencedSOPClassUID)
            for item in every_item(read(files[kind]))
            if item.get("ReferencedSOPInstanceUID") == image.SOPInstanceUID
        }
        assert referred == {sop_class}, kind


def every_item(dataset: Any) -> Any:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from every_item(item)


def test_frames_that_no_reference_can_name_are_not_outlined(tmp_path: Path) -> None:
    image = kit.image(sop_class="1.2.840.10008.5.1.4.1.1.7", frames=3)
    source = kit.write(image, tmp_path / "sc.dcm")
    said = cases.content(source, readings=(cases.drawn(cases.blobs(64, 64), frame=1),))
    files = cases.made(said)
    assert set(files) == {"sr", "sc", "gsps", "json"}
    assert b"no reference can name them" in files["sr"].data
    assert b"SCOORD" not in files["sr"].data
    cases.assert_valid(tmp_path, files)


def test_files_that_are_no_dicom_have_a_json_result(tmp_path: Path) -> None:
    source = tmp_path / "picture.png"
    source.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert set(cases.made(cases.content(source, refusal="It is no DICOM."))) == {"json"}


def test_a_notice_about_an_image_of_no_size_is_valid(tmp_path: Path) -> None:
    source = kit.write(kit.image(Rows=0), tmp_path / "image.dcm")
    files = cases.made(cases.content(source, refusal="Its Rows is 0."), "sr")
    assert set(files) == {"sr"}
    cases.assert_valid(tmp_path, files)


def test_other_byte_orders_and_no_meta_header(tmp_path: Path) -> None:
    for name in ("MR_small_bigendian.dcm", "ExplVR_BigEndNoMeta.dcm", "no_meta_group_length.dcm", "image_dfl.dcm"):
        source = cases.real(name)
        said: Content = cases.content(source, refusal="It came too late.")
        assert "sr" in cases.made(said), name
    image = kit.image(sop_class=kit.CR)
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert "sr" in build(kit.encode(image), tmp_path)


def test_no_name_gets_into_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    image = kit.image(sop_class=kit.CR, PatientName="Canary", PatientID="C4N4RY", PatientSex="F")
    build(kit.encode(image), tmp_path)
    assert "canary" not in caplog.text.lower()
    assert "c4n4ry" not in caplog.text.lower()
    assert image.SOPInstanceUID not in caplog.text


KEYWORDS = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")
KEYWORDS += ("AccessionNumber", "ReferringPhysicianName", "StudyDescription", "BodyPartExamined", "PatientAge")


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=st.dictionaries(st.sampled_from(KEYWORDS), st.binary(max_size=40), max_size=6),
    charset=st.sampled_from([b"", b"ISO_IR 192", b"ISO 2022 IR 87"]),
)
def test_any_bytes(found: dict[str, bytes], charset: bytes, tmp_path: Path) -> None:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    elements = {0x00080005: (b"CS", charset)}
    for keyword, value in found.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        elements[tag] = (dictionary_VR(tag).encode(), value)
    source = tmp_path / "source.dcm"
    source.write_bytes(with_raw(kit.image(sop_class=kit.CR, rows=8, columns=8), elements))
    said = cases.content(source, readings=(cases.classified(),))
    for kind, file in cases.made(replace(said, notes=("ok",)), "sr", "gsps", "json").items():
        if kind != "json":
            assert read(file).StudyInstanceUID
