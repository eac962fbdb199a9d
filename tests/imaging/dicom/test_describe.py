"""What a router reads of a file, and where a data set begins: of sound files, of damaged ones, of any bytes."""

from __future__ import annotations

import hashlib
import io
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.describe import Described, describe, described_by, sop_class_uid
from edgemed.imaging.dicom.elements import HEAD
from edgemed.imaging.dicom.identity import look
from edgemed.imaging.dicom.part10 import hash_dataset, read_meta
from edgemed.imaging.dicom.syntaxes import SYNTAXES
from edgemed.imaging.dicom.values import quiet
from tests.serve import kit


def sample() -> Dataset:
    return kit.image(
        BodyPartExamined="CHEST",
        SeriesDescription="Doe^Jane thorax",
        NumberOfSeriesRelatedInstances="12",
        ImagesInAcquisition="7",
        NumberOfStudyRelatedInstances="0",
    )


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    ds = sample()
    found = describe(kit.write(ds, tmp_path / "a"))
    assert (found.sop_class, found.sop_instance) == (kit.CT, ds.SOPInstanceUID)
    assert (found.study, found.series) == (ds.StudyInstanceUID, ds.SeriesInstanceUID)
    assert (found.modality, found.body_part, found.series_description) == ("CT", "CHEST", "Doe^Jane thorax")
    assert (found.in_series, found.in_study, found.has_pixels) == (12, None, True)
    assert found == describe(tmp_path / "a", whole=True)


def test_what_is_behind_the_rows_is_not_looked_at_unless_the_whole_is_asked_for(tmp_path: Path) -> None:
    data = kit.encode(sample())
    place = data.index(b"\x28\x00\x11\x00")  # Columns
    path = tmp_path / "a"
    path.write_bytes(data[:place] + b"\xff" * 200)
    assert describe(path).has_pixels
    with pytest.raises(InputError):
        describe(path, whole=True)


@pytest.mark.parametrize("name", ["CT_small.dcm", "JPEG2000.dcm", "SC_rgb_rle_2frame.dcm"])
def test_pixels_that_break_off_are_seen(tmp_path: Path, name: str) -> None:
    data = Path(str(get_testdata_file(name))).read_bytes()
    path = tmp_path / "a"
    path.write_bytes(data)
    assert describe(path, whole=True).has_pixels
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(InputError):
        describe(path, whole=True)


def test_an_error_does_not_quote_the_file(tmp_path: Path) -> None:
    ds = kit.image(instance="1.2.345678")
    path = tmp_path / "a"
    path.write_bytes(kit.encode(ds).replace(b"1.2.345678", b"Doe^Jane\n\xfc"))
    with pytest.raises(InputError, match="SOPInstanceUID is no UID") as error:
        describe(path)
    assert "Doe" not in str(error.value)


def test_any_damage_is_an_error_of_the_input(tmp_path: Path) -> None:
    dice = random.Random(0)
    sound = kit.encode(sample())
    path = tmp_path / "a"
    for _ in range(400):
        data = bytearray(sound)
        for _ in range(dice.randrange(1, 8)):
            data[dice.randrange(1400)] = dice.randrange(256)
        path.write_bytes(data[: dice.randrange(len(data))] if dice.random() < 0.3 else data)
        with suppress(InputError):
            describe(path)
        with path.open("rb") as file, suppress(InputError):
            read_meta(file)


def test_classes_by_keyword_and_by_uid() -> None:
    assert sop_class_uid("CTImageStorage") == kit.CT
    assert sop_class_uid("1.2.3") == "1.2.3"
    for wrong in ("CTImage", "Verification", "UID_dictionary", "RE_VALID_UID", ""):
        with pytest.raises(InputError, match="no SOP class"):
            sop_class_uid(wrong)


def glanced(path: Path) -> Described | None:
    with path.open("rb") as file:
        meta = read_meta(file)
        file.seek(meta.offset)
        return described_by(look(file.read(HEAD), SYNTAXES[meta.syntax]), meta.syntax)


def write(path: Path, syntax: UID, changes: dict[str, Any]) -> None:
    with quiet():  # pydicom warns of values that it would not write by itself
        ds = kit.image(**changes)
        ds.file_meta.TransferSyntaxUID = syntax
        kit.write(ds, path)


def test_a_glance_says_what_the_parser_says() -> None:
    agreed = 0
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm")):
        try:
            found = glanced(path)
        except (InputError, KeyError):
            continue
        if found is not None:
            assert found == describe(path), path.name
            agreed += 1
    assert agreed > 25


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_glance_at_what_the_parser_must_tell(tmp_path: Path, syntax: UID) -> None:
    path = tmp_path / "a"
    for changes in (
        {"SeriesDescription": "Thorax ü", "SpecificCharacterSet": "ISO_IR 192"},
        {"SeriesDescription": "a~b"},
        {"SeriesDescription": "one\\two"},
        {"ImagesInAcquisition": "7.0"},
    ):
        write(path, syntax, changes)
        assert glanced(path) is None
    for changes in (
        {"SeriesDescription": " Thorax  pa ", "SpecificCharacterSet": "ISO 2022 IR 13"},
        {"Manufacturer": "", "NumberOfSeriesRelatedInstances": "100001", "ImagesInAcquisition": " 3 "},
        {"BodyPartExamined": "CHEST", "NumberOfStudyRelatedInstances": "-4", "ReferencedImageSequence": [Dataset()]},
    ):
        write(path, syntax, changes)
        assert glanced(path) == describe(path)


def test_a_glance_at_damaged_bytes_agrees_or_leaves_it_to_the_parser(tmp_path: Path) -> None:
    dice, path, agreed = random.Random(1), tmp_path / "a", 0
    sound = kit.encode(sample())
    for _ in range(1500):
        data = bytearray(sound)
        for _ in range(dice.randrange(1, 5)):
            data[dice.randrange(330, 1200)] = dice.randrange(256)
        path.write_bytes(data)
        with suppress(InputError):  # what has been passed over may be damaged: whoever analyses it parses it
            found = glanced(path)
            if found is not None and (parsed := describe(path)) is not None:
                assert found == parsed
                agreed += 1
    assert agreed > 100


@pytest.mark.parametrize("name", ["MR_small_implicit.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "CT_small.dcm"])
def test_where_the_data_set_begins(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    whole, ds = path.read_bytes(), dcmread(path, stop_before_pixels=True)
    with path.open("rb") as file:
        meta = read_meta(file)
        assert (meta.syntax, meta.sop_instance) == (ds.file_meta.TransferSyntaxUID, ds.SOPInstanceUID)
        assert meta.offset == 144 + int.from_bytes(whole[140:144], "little")  # the group's length is right in these
        assert hash_dataset(file, meta.offset) == hashlib.sha256(whole[meta.offset :]).hexdigest()


def test_a_wrong_group_length_and_a_missing_preamble_do_not_matter() -> None:
    whole = kit.encode(sample())
    offset = read_meta(io.BytesIO(whole)).offset
    wrong = whole[:140] + b"\xff\xff\x00\x00" + whole[144:]
    assert read_meta(io.BytesIO(wrong)).offset == offset
    assert read_meta(io.BytesIO(whole[132:])).offset == offset - 132
    assert read_meta(io.BytesIO(whole[offset:])).offset == 0


@pytest.mark.parametrize(
    "damage", [b"\x02\x00\x10\x00UI\xff\xff", b"\x02\x00\x01\x00OB\x00\x00\xff\xff\xff\xff", b"\x02\x00"]
)
def test_meta_information_that_leads_beyond_the_file_is_refused(damage: bytes) -> None:
    with pytest.raises(InputError, match="meta information is damaged"):
        read_meta(io.BytesIO(b"\0" * 128 + b"DICM" + damage))
