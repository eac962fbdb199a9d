"""Damaged files are refused, and nothing else happens."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from edgemed.base.errors import InputError
from edgemed.imaging.deid.deidentify import deidentify, deidentify_file
from edgemed.imaging.deid.options import Options
from edgemed.imaging.deid.regions import RegionRule

RULE = RegionRule(blank=((0, 0, 3, 3),))
FILES = [
    Path(str(get_testdata_file(name, download=False))).read_bytes()
    for name in ("CT_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "SC_rgb_jpeg_dcmtk.dcm")
]


@pytest.mark.filterwarnings("ignore")  # pydicom's, of what was damaged, when the result is written
@settings(max_examples=300)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(130, 5000), st.binary(max_size=6), st.integers(0, 6)), min_size=1, max_size=8),
    st.booleans(),
)
def test_any_damage_is_refused_or_survived(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, changes: list[tuple[int, bytes, int]], blank: bool
) -> None:
    for at, put, cut in changes:
        data = data[:at] + put + data[at + cut :]
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    path.write_bytes(data)
    try:
        file, _ = deidentify_file(path, Options(key=b"k" * 32, regions=(RULE,) if blank else ()))
    except InputError:
        return
    file.save_as(io.BytesIO(), enforce_file_format=True)
    assert file.PatientIdentityRemoved == "YES"


def ct() -> pydicom.FileDataset:
    return pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))


def test_deep_sequences_are_refused() -> None:
    dataset, item = ct(), Dataset()
    for _ in range(200):
        outer = Dataset()
        outer.AnatomicRegionSequence = Sequence([item])
        item = outer
    dataset.AnatomicRegionSequence = Sequence([item])
    with pytest.raises(InputError, match="nested more than"):
        deidentify(dataset)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID"])
def test_missing_uids_are_refused(keyword: str) -> None:
    dataset = ct()
    delattr(dataset, keyword)
    with pytest.raises(InputError, match="It has no SOP"):
        deidentify(dataset)


def test_pydicom_says_no_name_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    dataset = ct()
    raw = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(0x00100030), "DA", 14, b"Kanarienvogel ", 0, False, True, True
    )
    dataset[0x00100030] = raw
    deidentify(dataset)
    assert "Kanarienvogel" not in caplog.text
