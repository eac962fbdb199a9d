"""Items are written as pydicom writes the same data set, byte for byte."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from edgemed.imaging.results.items import Item, encoded, plain

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of values that it would not have

WORDS = st.text(st.characters(codec="ascii", exclude_characters="\\", exclude_categories=["C"]), max_size=9)
LETTERS = st.text("aä王山ﾔ=^ ", max_size=9)
UIDS = st.from_regex(r"[12]\.[0-9]{1,9}", fullmatch=True)
FLOATS = st.floats(allow_nan=False, width=32)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "ValueType": WORDS,
    "SOPInstanceUID": UIDS,
    "SoftwareVersions": st.lists(WORDS, max_size=3),
    "SeriesDescription": WORDS | LETTERS,
    "TextValue": WORDS | LETTERS | st.builds(lambda: "x" * 70_000),
    "PatientName": WORDS | LETTERS,
    "NumericValue": st.floats(-1e6, 1e6).map(lambda value: f"{value:.6g}"),
    "InstanceNumber": st.integers(0, 9999) | st.none(),
    "ReferencedFrameNumber": st.lists(st.integers(1, 99), max_size=3),
    "FloatingPointValue": st.floats(allow_nan=False),
    "GraphicData": st.lists(FLOATS, max_size=5) | st.builds(lambda: [0.5] * 20_000),
    "Rows": st.integers(0, 65535),
    "DisplayedAreaTopLeftHandCorner": st.lists(st.integers(-9, 9), min_size=2, max_size=2),
    "FrameIncrementPointer": st.just(0x00181063),
    "ICCProfile": st.binary(max_size=5),
    "PixelPaddingValue": st.integers(0, 99),
    "StudyDate": st.sampled_from(["20260105", ""]),
}


def nested(children: st.SearchStrategy[Dataset]) -> st.SearchStrategy[Dataset]:
    sequences = st.lists(children, max_size=3)
    return st.tuples(DATASETS, sequences, sequences).map(lambda parts: with_sequences(*parts))


def dataset(values: dict[str, Any]) -> Dataset:
    made = Dataset()
    made.PixelRepresentation = 0
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def with_sequences(made: Dataset, content: list[Dataset], measured: list[Dataset]) -> Dataset:
    made.ContentSequence, made.MeasuredValueSequence = content, measured
    return made


DATASETS = st.fixed_dictionaries({}, optional=VALUES).map(dataset)


def by_pydicom(made: Dataset, charset: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, made, charset)
    return buffer.getvalue()


@given(st.recursive(DATASETS, nested, max_leaves=5), st.sampled_from(["ISO_IR 192", "GB18030", "ISO_IR 100"]))
def test_as_pydicom_writes_it(made: Dataset, charset: str) -> None:
    assert encoded(plain(made), convert_encodings(charset)) == by_pydicom(made, charset)


def test_elements_stand_in_the_order_of_their_tags() -> None:
    item = Item(PatientID="4711", Modality="SR", ContentSequence=[Item(TextValue="b", ValueType="TEXT")])
    read = io.BytesIO(encoded(item, []))
    assert read.getvalue()[:4] == b"\x08\x00\x60\x00"
    whole = Dataset()
    whole.Modality, whole.PatientID, inner = "SR", "4711", Dataset()
    inner.ValueType, inner.TextValue = "TEXT", "b"
    whole.ContentSequence = [inner]
    assert read.getvalue() == by_pydicom(whole, "iso8859")


def test_a_copy_leaves_the_first_as_it_was() -> None:
    first = Item(Modality="SR")
    second = first.but(Modality="CT", PatientID="1")
    assert (first.value("Modality"), first.value("PatientID")) == ("SR", None)
    assert (second.value("Modality"), second.value("PatientID")) == ("CT", "1")


def test_compressed_pixels_have_no_length() -> None:
    from pydicom.encaps import encapsulate

    made = Dataset()
    made.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    assert encoded(plain(made), []) == by_pydicom(made, "iso8859")
