"""No byte of what a file said in words may be left, wherever it stood."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from edgemed.base.errors import InputError
from edgemed.imaging.deid.deidentify import deidentify
from edgemed.imaging.deid.options import Options

CANARY = b"KANARIENVOGEL"
FORMS = ("AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI")
TEXT = frozenset((*FORMS, "AE", "LO", "LT", "PN", "SH", "ST", "UC", "UN", "UR", "UT"))
IMAGE = frozenset(  # without true values in these there is no image
    (0x00080005, 0x00080016, 0x00080018, 0x00080060, 0x00280004, 0x00280008)
)


def elements_of_every_attribute(depth: int) -> list[DataElement | RawDataElement]:
    """Each attribute of the data dictionary, with the canary wherever its VR holds text; sequences hold some too."""
    made: list[DataElement | RawDataElement] = []
    for tag, (vr, *_) in DicomDictionary.items():
        group = tag >> 16
        if tag in IMAGE or group in (0x0000, 0x0002, 0x0004, 0x7FE0, 0xFFFE) or tag & 0xFFFF == 0:
            continue
        if vr in TEXT:
            made.append(RawDataElement(Tag(tag), vr, len(CANARY) + 1, CANARY + b" ", 0, False, True, True))
        elif vr == "SQ" and depth:
            made.append(DataElement(tag, "SQ", Sequence([small_item(depth)])))
    return made


def small_item(depth: int) -> Dataset:
    """An item with a name, codes, a UID, a private block, and a sequence of its own."""
    item = Dataset()
    for tag, vr in (
        (0x00080100, "SH"),
        (0x00080102, "SH"),
        (0x00080104, "LO"),
        (0x0008010B, "CS"),
        (0x00081155, "UI"),
        (0x00090010, "LO"),
        (0x00091001, "UN"),
        (0x00100010, "PN"),
        (0x00400275, "UT"),
        (0x0040A160, "UT"),
        (0x00700006, "ST"),
    ):
        item[tag] = RawDataElement(Tag(tag), vr, len(CANARY) + 1, CANARY + b" ", 0, False, True, True)
    if depth > 1:
        item.add(DataElement(0x00081140, "SQ", Sequence([small_item(depth - 1)])))
    return item


def image(rows: int = 8, columns: int = 8) -> FileDataset:
    """A CT slice."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.SourceApplicationEntityTitle = CANARY.decode()
    file = FileDataset("", {}, preamble=CANARY.ljust(128, b" "), file_meta=meta)
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = CTImageStorage, "1.2.3", "CT"
    file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
    file.PixelData = np.arange(rows * columns, dtype="<u2").tobytes()
    return file


def written(dataset: FileDataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def full() -> FileDataset:
    """A file whose every text says the canary."""
    file = image()
    for element in elements_of_every_attribute(depth=3):
        file[element.tag] = element
    for tag, vr in ((0x00090010, "LO"), (0x00091001, "LO"), (0x00091002, "UN"), (0x60000022, "LO"), (0x50000022, "LO")):
        file[tag] = RawDataElement(Tag(tag), vr, len(CANARY) + 1, CANARY + b" ", 0, False, True, True)
    return file


def burned_in_says_no(file: FileDataset) -> None:
    file.BurnedInAnnotation, file.ImageType = "NO", ["ORIGINAL", "PRIMARY"]
    for keyword in ("ConversionType", "SpecimenLabelInImage", "DirectoryRecordSequence"):
        if keyword in file:
            del file[keyword]


@pytest.mark.filterwarnings("ignore")  # pydicom's, of what the canary does to values while they are set up
def test_nothing_of_a_file_full_of_canaries_is_left(full: FileDataset) -> None:
    burned_in_says_no(full)
    assert len(full) > 3000, "most of the data dictionary"
    cleaned, report = deidentify(full)
    data = written(cleaned)
    assert CANARY.lower() not in data.lower()
    assert CANARY.decode().lower() not in report.model_dump_json().lower()
    again = pydicom.dcmread(io.BytesIO(data))
    assert np.array_equal(again.pixel_array, np.arange(64).reshape(8, 8))


@pytest.mark.parametrize("vr", sorted(TEXT - {"UI"}))
@pytest.mark.filterwarnings("ignore")
def test_a_name_in_the_wrong_vr_is_found(vr: str) -> None:
    """Explicit VRs are the sender's word: text of any attribute may come as any VR."""
    file = image()
    for tag in (0x00180015, 0x00181030, 0x0018106A, 0x00280030, 0x00281054, 0x00200062, 0x00081090):
        file[tag] = RawDataElement(Tag(tag), vr, 14, b"Kanarienvogel ", 0, False, True, True)
    assert CANARY not in written(deidentify(file)[0]).upper()


BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
PIXELS = (0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009, 0x7FE00010)


@pytest.mark.filterwarnings("ignore")
def test_bytes_that_no_image_needs_go() -> None:
    """ICC profiles, waveforms, documents, palettes of gray images: in bytes anybody may write anything."""
    file, text = image(), CANARY.ljust(16)  # a whole number of every kind of word
    item = Dataset()
    for tag, (vr, *_) in DicomDictionary.items():
        found = sorted(BINARY & set(vr.split(" or ")))
        if not found or tag >> 16 < 8 or tag & 0xFFFF == 0:
            continue
        item[tag] = RawDataElement(Tag(tag), found[0], 16, text, 0, False, True, True)
        if tag not in PIXELS:
            file[tag] = item[tag]
    assert len(item) > 70
    file.SharedFunctionalGroupsSequence = [item]
    cleaned, report = deidentify(file)
    assert CANARY not in written(cleaned)
    assert np.array_equal(cleaned.pixel_array, np.arange(64).reshape(8, 8))
    told = {tag.path: (tag.action, tag.why) for tag in report.tags}
    for keyword in ("ICCProfile", "RedPaletteColorLookupTableData", "SharedFunctionalGroupsSequence/PixelData"):
        assert told[keyword] == ("removed", "bytes that the image does not need")


def test_tables_that_pixels_go_through_stay() -> None:
    file = image()
    file.PhotometricInterpretation = "PALETTE COLOR"
    file.RedPaletteColorLookupTableData = b"\1\2" * 256
    file.ModalityLUTSequence, file.VOILUTSequence = [Dataset()], [Dataset()]
    for sequence in (file.ModalityLUTSequence, file.VOILUTSequence):
        sequence[0].LUTDescriptor = [256, 0, 16]
        sequence[0].add_new(0x00283006, "OW", b"\3\4" * 256)
    cleaned, _ = deidentify(file)
    assert cleaned.RedPaletteColorLookupTableData == file.RedPaletteColorLookupTableData
    for sequence in (cleaned.ModalityLUTSequence, cleaned.VOILUTSequence):
        assert sequence[0].LUTData == b"\3\4" * 256


def real_files() -> list[Path]:
    """All that pydicom brings."""
    return sorted(p for p in (Path(pydicom.__file__).parent / "data" / "test_files").rglob("*") if p.is_file())


def identifiers(dataset: Dataset) -> set[str]:
    """What identifies in a real file: names, numbers, UIDs, institutions."""
    found: set[str] = set()
    wanted = ("AccessionNumber", "InstitutionName", "StationName", "StudyInstanceUID", "SeriesInstanceUID")
    for element in dataset.iterall():
        if element.VR == "PN" or element.keyword in ("PatientID", "SOPInstanceUID", "DeviceSerialNumber", *wanted):
            values = element.value if element.VM > 1 else [element.value]
            found.update(str(value).strip() for value in values)
    return {text for text in found if len(text) > 5}


@pytest.mark.filterwarnings("ignore")  # pydicom's, of files that are odd on purpose
def test_real_files_keep_nothing_that_identifies() -> None:
    done, refused = 0, []
    for path in real_files():
        try:
            source = pydicom.dcmread(path)
            names = identifiers(source)
        except Exception:
            continue
        before = source.to_json_dict() if "PixelData" not in source else None
        try:
            cleaned, report = deidentify(source, Options(key=b"k" * 32))
        except InputError as error:
            refused.append(f"{path.name}: {error.what}")
            continue
        data = written(cleaned)
        left = [name for name in names if name.encode() in data]
        assert not left, f"{path.name} still says {left}"
        assert not [name for name in names if name in report.model_dump_json()]
        assert before is None or before == source.to_json_dict(), "the source was changed"
        done += 1
    assert done >= 60, f"only {done} files; refused: {refused}"
    reasons = ("burned", "no SOP", "DICOMDIR", "frames cannot be told apart")
    assert all(any(reason in text for reason in reasons) for text in refused), refused


def test_options_say_what_they_keep() -> None:
    file = image()
    file.PatientAge, file.StationName, file.InstitutionName = "061Y", "CT3", "St. Elsewhere"
    file.StudyDate, file.StudyTime = "20200301", "101500"
    kept: dict[str, Any] = {"retain_patient": True, "retain_device": True, "retain_institution": True, "dates": "keep"}
    cleaned, report = deidentify(file, Options(**kept))
    assert (cleaned.PatientAge, cleaned.StationName) == ("061Y", "CT3")
    assert (cleaned.InstitutionName, cleaned.StudyDate, cleaned.StudyTime) == ("St. Elsewhere", "20200301", "101500")
    assert report.codes == ("113100", "113106", "113108", "113109", "113112")
    bare, report = deidentify(file)
    assert not {"PatientAge", "StationName", "InstitutionName"} & {element.keyword for element in bare}
    assert (bare.StudyDate, report.codes) == ("", ("113100",))
