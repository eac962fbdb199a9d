"""Who an image is, read off its first bytes: as pydicom says, and never anything but that or a clear error."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import pydicom.data
import pytest
from pydicom import Dataset, Sequence, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from edgemed.base.errors import InputError
from edgemed.imaging.dicom.elements import HEAD
from edgemed.imaging.dicom.identity import Identity, encode_meta, look
from edgemed.imaging.dicom.part10 import read_meta
from edgemed.imaging.dicom.syntaxes import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, SYNTAXES, Syntax

FILES = sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm"))


def dataset() -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.4", "1.2.5"
    return ds


def encode(ds: Dataset, syntax: Syntax) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax.implicit, syntax.little
    write_dataset(buffer, ds)
    return buffer.getvalue()


def test_as_pydicom_says() -> None:
    compared = 0
    for path in FILES:
        data = path.read_bytes()
        try:
            meta = read_meta(io.BytesIO(data))
            found = look(data[meta.offset :][:HEAD], SYNTAXES[meta.syntax]).identity
        except (InputError, KeyError):
            continue
        ds = dcmread(path, stop_before_pixels=True)
        said = [str(ds.get(k, "")) for k in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")]
        assert found == Identity(*said), path.name
        compared += 1
    assert compared > 30


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG])
@pytest.mark.parametrize("undefined", [True, False])
def test_past_sequences(syntax: Syntax, undefined: bool) -> None:
    ds, inner, innermost = dataset(), dataset(), dataset()
    inner.ReferencedStudySequence = Sequence([innermost])
    ds.ReferencedImageSequence = Sequence([inner, Dataset(), inner])
    for each in (ds["ReferencedImageSequence"], inner["ReferencedStudySequence"]):
        each.is_undefined_length = undefined
    for item in (inner, innermost):
        item.is_undefined_length_sequence_item = undefined
    assert look(encode(ds, syntax), syntax).identity == Identity("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.4", "1.2.5")


def test_a_uid_that_is_not_all_there_is_none() -> None:
    ds = dataset()
    ds.StudyInstanceUID = "1.2.840.10008.1.2.3.4"
    data = encode(ds, EXPLICIT_LITTLE)
    end = data.index(b"1.2.840.10008.1.2.3.4") + len("1.2.840.10008.1.2.3.4")
    assert (
        look(data[:end], EXPLICIT_LITTLE).identity.study == "" == look(data[: end - 4], EXPLICIT_LITTLE).identity.study
    )
    assert look(data[: end + 1], EXPLICIT_LITTLE).identity.study == "1.2.840.10008.1.2.3.4"


def test_deflated() -> None:
    import zlib

    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(encode(dataset(), EXPLICIT_LITTLE)) + packer.flush()
    assert look(packed, DEFLATED).identity.series == "1.2.5"
    with pytest.raises(InputError, match="not deflated"):
        look(encode(dataset(), EXPLICIT_LITTLE), DEFLATED)


@pytest.mark.parametrize(
    ("data", "syntax", "why"),
    [
        (encode(dataset(), IMPLICIT_LITTLE), EXPLICIT_LITTLE, "not written in its transfer syntax"),
        (b"\x02\0\x10\0UI\x02\x001\0" + bytes(40), EXPLICIT_LITTLE, "does not begin like"),
        (encode(dataset(), EXPLICIT_LITTLE)[:34] + encode(dataset(), EXPLICIT_LITTLE), EXPLICIT_LITTLE, "says twice"),
        (struct.pack("<HHL", 8, 0x1140, 0xFFFFFFFF) + b"nonsense" * 4, IMPLICIT_LITTLE, "sequences is damaged"),
    ],
)
def test_what_is_no_data_set(data: bytes, syntax: Syntax, why: str) -> None:
    with pytest.raises(InputError, match=why):
        look(data, syntax)


def test_depth_is_bounded() -> None:
    item = struct.pack("<HHL", 8, 0x1140, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(InputError, match="too deep"):
        look(item * 1000, IMPLICIT_LITTLE)


def test_damaged_bytes_are_an_answer_or_a_clear_error() -> None:
    rng = random.Random(1)
    whole = {syntax.uid: encode(dataset(), syntax) for syntax in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)}
    for _ in range(3000):
        uid = rng.choice(list(whole))
        data = bytearray(whole[uid][: rng.randrange(len(whole[uid]))])
        for _ in range(rng.randrange(4) if data else 0):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            found = look(bytes(data), SYNTAXES[uid]).identity
        except InputError:
            continue
        assert all(set(text) <= set("0123456789.") for text in vars(found).values())


def test_meta_information_is_what_pydicom_reads() -> None:
    meta = encode_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", EXPLICIT_LITTLE.uid, "CT1")
    read = dcmread(io.BytesIO(meta + encode(dataset(), EXPLICIT_LITTLE)))
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID == "1.2.3"
    assert read.file_meta.SourceApplicationEntityTitle == "CT1"
    assert read.file_meta.FileMetaInformationGroupLength == len(meta) - 144
    assert read_meta(io.BytesIO(meta)).offset == len(meta)
