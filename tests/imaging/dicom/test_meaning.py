"""What the pixels mean: MONOCHROME1 with its windows and tables, padding, Modality LUTs, palettes, single frames."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from edgemed.base.errors import InputError
from edgemed.imaging.dicom import DicomFile, open_dicom
from edgemed.recipe.image import Image, LookupTable, Window
from tests.imaging.dicom.samples import pydicom, sample
from tests.imaging.dicom.writing import BIG, EXPLICIT, IMPLICIT, dataset, save

GRADIENT = np.arange(24, dtype=np.uint8).reshape(4, 6)


@pytest.fixture
def opened(tmp_path: Path):
    def write(uid: str = EXPLICIT, **elements: object) -> DicomFile:
        return open_dicom(save(dataset(**elements), tmp_path / "image.dcm", uid))

    return write


def shown(x: np.ndarray, window: Window) -> np.ndarray:
    """0 to 1, by PS3.3 C.11.2.1.2 and C.11.2.1.3, exact where the inputs are."""
    c, w = window.center, window.width
    if window.function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (x - c) / w))
    if window.function == "LINEAR_EXACT":
        return np.clip((x - c) / w + 0.5, 0, 1)
    if w == 1:
        return np.where(x <= c - 0.5, 0.0, 1.0)
    return np.clip((x - (c - 0.5)) / (w - 1) + 0.5, 0, 1)


def looked_up(x: np.ndarray, table: LookupTable) -> np.ndarray:
    return table.data[np.clip(x - table.first, 0, len(table.data) - 1)].astype(np.int64)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("slope", "intercept"), [("1", "0"), ("2", "-100"), ("-1", "7"), ("0.5", "-3.25")])
@pytest.mark.parametrize("signed", [0, 1])
def test_what_monochrome1_shows_is_the_complement(function: str, slope: str, intercept: str, signed: int, opened):
    """The same file as MONOCHROME1 shows black where MONOCHROME2 shows white, gray for gray."""
    elements = {
        "PixelRepresentation": signed,
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
        "WindowCenter": ["11", "9.5"],
        "WindowWidth": ["13", "6"],
        "VOILUTFunction": function,
    }
    one: Image = opened(PhotometricInterpretation="MONOCHROME1", **elements).image()
    two: Image = opened(PhotometricInterpretation="MONOCHROME2", **elements).image()
    assert one.pixels.dtype == two.pixels.dtype
    assert one.stored_range == two.stored_range
    assert len(one.windows) == 2
    for first, second in zip(one.windows, two.windows, strict=True):
        a, b = (shown(i.pixels.astype(np.float64), w) for i, w in ((one, first), (two, second)))
        np.testing.assert_allclose(a, 1 - b, rtol=0, atol=1e-12)  # float64 formulas, of exact values


def lut_item(first: int, data: list[int], bits: int, order: str = "<"):
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [len(data), first & 0xFFFF, bits])
    item.add_new("LUTData", "OW", np.array(data, f"{order}u2").tobytes())
    item.add_new("LUTExplanation", "LO", "a curve")
    return item


@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT, BIG])
def test_voi_luts_are_turned_over_with_the_pixels(uid: str, opened):
    order = ">" if uid == BIG else "<"
    sequence = [lut_item(5, [0, 3, 9, 200, 255], 8, order)]
    one = opened(uid, PhotometricInterpretation="MONOCHROME1", VOILUTSequence=sequence).image()
    two = opened(uid, PhotometricInterpretation="MONOCHROME2", VOILUTSequence=sequence).image()
    assert two.tables[0].data.tolist() == [0, 3, 9, 200, 255]
    assert two.tables[0].first == 5
    assert two.tables[0].explanation == "a curve"
    a, b = (looked_up(image.pixels.astype(int), image.tables[0]) for image in (one, two))
    np.testing.assert_array_equal(a, 255 - b)


def test_tables_that_cannot_be_meant_are_left_out(opened):
    for item in (lut_item(0, [1, 2], 40), lut_item(0, [300, 2], 8), pydicom.Dataset()):
        file = opened(VOILUTSequence=[item])
        assert file.image().tables == ()
        assert "VOI LUT was left out" in file.notes[0]


@pytest.mark.parametrize("uid", [EXPLICIT, IMPLICIT, BIG])
def test_a_modality_lut_is_looked_up(uid: str, opened):
    order = ">" if uid == BIG else "<"
    image = opened(uid, ModalityLUTSequence=[lut_item(2, [1000, 40, 7000, 9], 16, order)]).image()
    expected = np.array([1000, 40, 7000, 9])[np.clip(GRADIENT.astype(int) - 2, 0, 3)]
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.stored_range == (9.0, 7000.0)
    with pytest.raises(InputError, match="lookup table whose entries need more than 8 bits"):
        opened(ModalityLUTSequence=[lut_item(2, [1000, 40], 8)])


@pytest.mark.parametrize(
    ("stored", "signed", "slope", "intercept", "dtype"),
    [
        (8, 0, "1", "0", "u1"),
        (8, 1, "1", "0", "i1"),
        (8, 0, "1", "-10", "i2"),
        (8, 0, "2", "0", "u2"),
        (8, 0, "-1", "255", "u1"),
        (8, 0, "256", "65536", "u4"),
        (8, 0, "0.5", "0", "f4"),
        (8, 0, "1", "0.5", "f4"),
        (7, 0, "1", "-64", "i1"),
    ],
)
def test_the_smallest_type_that_fits(stored: int, signed: int, slope: str, intercept: str, dtype: str, opened):
    elements = {"BitsStored": stored, "HighBit": stored - 1, "PixelRepresentation": signed}
    image = opened(RescaleSlope=slope, RescaleIntercept=intercept, **elements).image()
    assert image.pixels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(image.pixels, GRADIENT * float(slope) + float(intercept))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_masked_and_holds_the_smallest_value(photometric: str, opened):
    made = {"PhotometricInterpretation": photometric, "RescaleSlope": "-2", "RescaleIntercept": "5"}
    image = opened(PixelPaddingValue=3, PixelPaddingRangeLimit=1, **made).image()
    plain = opened(**made).image()
    assert image.valid is not None
    np.testing.assert_array_equal(image.valid, (GRADIENT < 1) | (GRADIENT > 3))
    np.testing.assert_array_equal(image.pixels[image.valid], plain.pixels[image.valid])
    assert set(image.pixels[~image.valid].tolist()) == {image.pixels[image.valid].min()}
    assert opened(PixelPaddingValue=77, **made).image().valid is None


def test_padding_in_the_wrong_sign_or_beyond_the_stored_bits(tmp_path: Path):
    """-2000 is often written as US 63536, and with all 16 bits where 12 are stored."""
    values = np.array([[-2000, 1, 2], [3, -2000, 5]], "<i2")
    for stored in (12, 16):
        made = dataset(
            Rows=2,
            Columns=3,
            BitsAllocated=16,
            BitsStored=stored,
            HighBit=stored - 1,
            PixelRepresentation=1,
            PixelData=values.tobytes(),
        )
        made.add_new("PixelPaddingValue", "US", 63536)
        image = open_dicom(save(made, tmp_path / "a.dcm")).image()
        assert image.valid is not None
        np.testing.assert_array_equal(image.valid, values != -2000)
        np.testing.assert_array_equal(image.pixels[image.valid], values[values != -2000])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_an_image_of_nothing_but_padding(photometric: str, opened):
    image = opened(PhotometricInterpretation=photometric, PixelData=bytes([9] * 24), PixelPaddingValue=9).image()
    assert image.valid is not None
    assert not image.valid.any()
    assert len(set(image.pixels.ravel().tolist())) == 1


@pytest.mark.parametrize(("keyword", "dtype"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
def test_float_pixels(keyword: str, dtype: str, tmp_path: Path):
    values = np.linspace(-1.5, 3, 24).astype(dtype)
    bits = values.dtype.itemsize * 8
    none = dict.fromkeys(("PixelData", "BitsStored", "HighBit", "PixelRepresentation"))
    path = tmp_path / "map.dcm"
    made = dataset(BitsAllocated=bits, **none, **{keyword: values.tobytes()})
    image = open_dicom(save(made, path)).image()
    np.testing.assert_array_equal(image.pixels.ravel(), values.astype(np.float32))
    assert image.stored_range is None
    assert image.facts.bits is None
    values[3] = np.nan
    setattr(made, keyword, values.tobytes())
    with pytest.raises(InputError, match="hold NaN, infinity"):
        open_dicom(save(made, path)).image()
    setattr(made, "FloatPixelPaddingValue" if bits == 32 else "DoubleFloatPixelPaddingValue", float("nan"))
    image = open_dicom(save(made, path)).image()
    assert image.valid is not None
    assert (~image.valid).sum() == 1
    assert np.isfinite(image.pixels).all()


def palette(**elements: object) -> dict[str, object]:
    made: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for color in ("Red", "Green", "Blue"):
        for keyword, value in elements.items():
            made[keyword.replace("COLOR", color)] = value
    return made


_DESCRIPTOR, _DATA = "COLORPaletteColorLookupTableDescriptor", "COLORPaletteColorLookupTableData"
_SEGMENTED = "SegmentedCOLORPaletteColorLookupTableData"


def test_palettes_clip_at_their_ends(opened):
    table = np.array([10, 20, 30, 40], "<u2") << 8
    image = opened(**palette(**{_DESCRIPTOR: [4, 5, 16], _DATA: table.tobytes()})).image()
    expected = np.array([10, 20, 30, 40])[np.clip(GRADIENT.astype(int) - 5, 0, 3)]
    np.testing.assert_array_equal(image.pixels[..., 0], expected)
    assert image.windows == ()


def test_a_segmented_palette(opened):
    """Discrete (100, 200), linear to 500 in 3 steps, and both segments once more."""
    words = [0, 2, 100 << 6, 200 << 6, 1, 3, 500 << 6, 2, 2, 0, 0]
    entries = [100, 200, 300, 400, 500, 100, 200, 300, 400, 500]
    data = np.array(words, "<u2").tobytes()
    image = opened(**palette(**{_DESCRIPTOR: [10, 0, 16], _SEGMENTED: data})).image()
    expected = (np.array(entries) << 6 >> 8)[np.clip(GRADIENT, 0, 9)]
    np.testing.assert_array_equal(image.pixels[..., 2], expected)


@pytest.mark.parametrize(
    ("elements", "match"),
    [
        ({_DATA: bytes(8)}, "no Red Palette Color Lookup Table Descriptor"),
        ({_DESCRIPTOR: [4, 0, 16]}, "no Red Palette Color Lookup Table Data"),
        ({_DESCRIPTOR: [4, 0, 16], _DATA: bytes(6)}, "has 3 entries instead of 4"),
        ({_DESCRIPTOR: [4, 0, 12], _DATA: bytes(8)}, "entries of 12 bits"),
        ({_DESCRIPTOR: [4, 0, 16], _SEGMENTED: struct.pack("<4H", 1, 4, 9, 9)}, "segmented Red palette is damaged"),
        ({_DESCRIPTOR: [4, 0, 16], _SEGMENTED: struct.pack("<4H", 9, 4, 9, 9)}, "segmented Red palette is damaged"),
        ({_DESCRIPTOR: [4, 0, 16], _SEGMENTED: struct.pack("<4H", 2, 1, 0, 0)}, "segmented Red palette is damaged"),
        (
            {_DESCRIPTOR: [4, 0, 16], _SEGMENTED: struct.pack("<3H", 0, 1, 9) + struct.pack("<3H", 1, 65535, 9) * 99},
            "more than 65536 entries",
        ),
    ],
)
def test_palettes_that_are_wrong(elements: dict, match: str, opened):
    with pytest.raises(InputError, match=match):
        opened(**palette(**elements))


def test_frames_of_an_enhanced_object_have_their_own_attributes():
    file = open_dicom(sample("pydicom-data/eCT_Supplemental.dcm"))
    raw = pydicom.dcmread(sample("pydicom-data/eCT_Supplemental.dcm"))
    for index, group in enumerate(raw.PerFrameFunctionalGroupsSequence):
        found = file.attributes(index)
        assert found.position == tuple(group.PlanePositionSequence[0].ImagePositionPatient)
        window = group.get("FrameVOILUTSequence") or raw.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
        assert found.windows[0].center == window[0].WindowCenter
        assert found.spacing is not None
        geometry = file.frame(index).geometry
        assert geometry is not None
        np.testing.assert_allclose(geometry.affine[:3, 3], found.position)
        assert np.linalg.norm(geometry.affine[:3, 1]) == pytest.approx(found.spacing[0], rel=1e-6)
    np.testing.assert_array_equal(file.image().pixels[1], file.frame(1).pixels)


def test_frames_with_slopes_of_their_own(opened):
    def group(slope: str):
        item, own = pydicom.Dataset(), pydicom.Dataset()
        own.RescaleSlope, own.RescaleIntercept, own.RescaleType = slope, "1", "US"
        item.PixelValueTransformationSequence = [own]
        return item

    data = bytes(range(24)) * 2
    elements = {
        "NumberOfFrames": "2",
        "PixelData": data,
        "PerFrameFunctionalGroupsSequence": [group("2"), group("0.5")],
    }
    file = opened(**elements)
    image = file.image()
    assert image.pixels.dtype == np.float32
    np.testing.assert_array_equal(image.pixels, np.stack([GRADIENT * 2.0 + 1, GRADIENT * 0.5 + 1]))
    assert image.stored_range == (1.0, 511.0)
    assert file.frame(0).pixels.dtype == np.uint16
    assert [list(frame.pixels[0, :2]) for frame in map(file.frame, range(file.frames))] == [[1, 3], [1, 1.5]]


def test_a_dose_grid_places_its_frames():
    file = open_dicom(sample("pydicom/rtdose.dcm"))
    raw = pydicom.dcmread(sample("pydicom/rtdose.dcm"))
    first = np.array(raw.ImagePositionPatient, float)
    for index in (0, 7, 14):
        expected = first + np.array([0, 0, float(raw.GridFrameOffsetVector[index])])
        np.testing.assert_allclose(file.attributes(index).position, expected)


def test_facts_of_a_real_file():
    facts = open_dicom(sample("pydicom/CT_small.dcm")).facts
    assert (facts.rows, facts.columns, facts.frames, facts.bits) == (128, 128, 1, 16)
    assert (facts.modality, facts.photometric, facts.manufacturer) == ("CT", "MONOCHROME2", "GE MEDICAL SYSTEMS")
    assert facts.spacing == (0.661468, 0.661468)
    assert facts.sop_class == "1.2.840.10008.5.1.4.1.1.2"
    assert facts.patient == "1CT1"
    assert "1CT1" not in repr(facts)
    cine = open_dicom(sample("pydicom-data/color3d_jpeg_baseline.dcm")).facts
    assert cine.frames == 120
    assert cine.frame_time_ms == pytest.approx(33, abs=1)


def test_facts_that_are_missing_or_wrong_are_none(opened):
    file = opened(SOPInstanceUID=None, PixelSpacing=["0", "0"], FrameTime="-1", NumberOfFrames="1")
    assert file.facts.sop_instance is None
    assert file.facts.series is None
    assert file.facts.spacing is None
    assert "PixelSpacing was left out" in " ".join(file.notes)


def test_an_orientation_that_is_none_gives_no_geometry(opened):
    right = {"ImagePositionPatient": [1, 2, 3], "PixelSpacing": [2, 3], "SliceThickness": "4"}
    affine = opened(ImageOrientationPatient=[1, 0, 0, 0, 1, 0], **right).frame(0).geometry.affine
    # slice, row, column to x, y, z: columns lie along x, rows along y
    np.testing.assert_array_equal(affine, [[0, 0, 3, 1], [0, 2, 0, 2], [4, 0, 0, 3], [0, 0, 0, 1]])
    for wrong in ([1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0], [1, 0, 0]):
        file = opened(ImageOrientationPatient=wrong, **right)
        assert file.frame(0).geometry is None
        assert "ImageOrientationPatient was left out" in file.notes[0]
