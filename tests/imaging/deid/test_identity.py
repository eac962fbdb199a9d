"""Pseudonyms hold together under one key, and fall apart under another."""

from __future__ import annotations

import uuid
from datetime import date

import pydicom
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from edgemed.imaging.deid.deidentify import deidentify
from edgemed.imaging.deid.identity import Identities, fingerprint_of, shifted
from edgemed.imaging.deid.options import Options, SafePrivate
from edgemed.imaging.deid.table import profile, type_of

ONE, OTHER = Identities(b"1" * 32), Identities(b"2" * 32)
CT = "1.2.840.10008.5.1.4.1.1.2"


def ct() -> pydicom.FileDataset:
    return pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))


@given(st.text(max_size=70), st.text(max_size=70))
def test_uids_are_legal_and_follow_from_key_and_original(first: str, second: str) -> None:
    uid = ONE.uid(first)
    assert pydicom.uid.UID(uid).is_valid
    assert uuid.UUID(int=int(uid.removeprefix("2.25."))).version == 8
    assert (ONE.uid(second) == uid) is (first == second)
    assert OTHER.uid(first) != uid


@given(st.dates(date(1900, 1, 1), date(2100, 1, 1)), st.dates(date(1900, 1, 1), date(2100, 1, 1)), st.text())
def test_shifts_keep_intervals(first: date, second: date, patient: str) -> None:
    days = ONE.days(patient)
    assert -3650 <= days <= -1
    moved = [shifted(f"{day:%Y%m%d}101500.5", days) for day in (first, second)]
    assert all(text is not None and text.endswith("101500.5") for text in moved)
    back = [date(int(text[:4]), int(text[4:6]), int(text[6:8])) for text in moved if text]
    assert back[1] - back[0] == second - first


def test_dates_that_are_none_do_not_pass() -> None:
    assert shifted("2020", -5) is None
    assert shifted("20201340", -5) is None
    assert shifted("00010101", -5) is None


def test_a_study_stays_together() -> None:
    options = Options(key=b"k" * 32)
    first, second = ct(), ct()
    second.SOPInstanceUID = "1.2.3.4"
    a, b = deidentify(first, options)[0], deidentify(second, options)[0]
    assert a.StudyInstanceUID == b.StudyInstanceUID != first.StudyInstanceUID
    assert a.FrameOfReferenceUID == b.FrameOfReferenceUID
    assert a.PatientID == b.PatientID != first.PatientID
    assert a.SOPInstanceUID != b.SOPInstanceUID
    assert a.file_meta.MediaStorageSOPInstanceUID == a.SOPInstanceUID
    assert deidentify(first)[0].PatientID != a.PatientID, "another key, another name"


def test_shifted_dates_say_so() -> None:
    file, report = deidentify(ct(), Options(key=b"k" * 32, dates="shift"))
    assert file.LongitudinalTemporalInformationModified == "MODIFIED"
    assert "113107" in report.codes
    was, now = ct(), file
    assert now.StudyDate != was.StudyDate
    assert now.StudyTime == was.StudyTime
    days = {(date.fromisoformat(f"{d.StudyDate[:4]}-{d.StudyDate[4:6]}-{d.StudyDate[6:]}")) for d in (was, now)}
    assert (max(days) - min(days)).days == -Identities(b"k" * 32).days("1CT1\0")


def test_safe_private_elements_stay_with_their_creator() -> None:
    dataset = ct()
    creator = dataset[0x0019, 0x0010].value
    file, report = deidentify(dataset, Options(safe_private=frozenset({SafePrivate(0x0019, creator, 0x02)})))
    kept = [element.tag for element in file if element.tag.is_private]
    assert kept == [(0x0019, 0x0010), (0x0019, 0x1002)]
    assert "113111" in report.codes


def test_retained_uids() -> None:
    file, report = deidentify(ct(), Options(retain_uids=True))
    assert file.SOPInstanceUID == ct().SOPInstanceUID
    assert "113110" in report.codes
    assert any("UIDs were kept" in note for note in report.notes)


def test_the_table() -> None:
    table = profile()
    assert len(table.rows) >= 650
    assert {row.edition for row in table.rows.values()} == {"2024e", "2026c"}
    assert table.rows[0x00100010].action == "Z"
    assert table.find(0x60020010) is table.overlays
    assert table.find(0x50300010) is table.curves
    assert table.find(0x00091001) is table.private
    assert table.find(0x00280010) is None


def test_types_choose_among_combined_actions() -> None:
    row = profile().rows[0x00080022]  # Acquisition Date: X/Z
    pet = "1.2.840.10008.5.1.4.1.1.128"
    assert row.resolve(type_of("AcquisitionDate", parent=None, sop_class=CT)) == "X"
    assert row.resolve(type_of("AcquisitionDate", parent=None, sop_class=pet)) == "Z"
    assert type_of("AcquisitionDate", parent=None, sop_class="1.2.3") == 2, "of an unknown class the strictest counts"
    assert type_of("ReferencedSOPInstanceUID", parent="NoSuchSequence", sop_class=CT) == 3


def test_pseudonyms_tell_their_key_and_fit_a_patient_id() -> None:
    one, other = Identities(b"1" * 32), Identities(b"2" * 32)
    made = one.patient("A\0")
    assert fingerprint_of(made) == one.fingerprint != other.fingerprint
    assert fingerprint_of(other.patient("A\0")) == other.fingerprint
    assert one.patient("B\0") != made
    assert len(made) <= 64
    assert fingerprint_of(one.patient("1.2.3")) is None, "a study stands for its patient, who may have others"
    assert fingerprint_of("P-0123456789abcdef") is None
