"""Secondary captures: what is drawn where, decoded by pydicom and DCMTK; nothing of the image is hidden."""

from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from edgemed.imaging.dicom import open_dicom
from edgemed.imaging.results import capture, make_results
from edgemed.imaging.results.content import Content, Reading, ResultFile, Score
from edgemed.imaging.results.overlay import COLORS, WARNING, writable
from tests.imaging.results import cases
from tests.serve import kit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def read(file: ResultFile) -> Any:
    return pydicom.dcmread(io.BytesIO(file.data))


def pixels(file: ResultFile) -> NDArray[np.uint8]:
    found = read(file).pixel_array
    return found if found.ndim == 4 else found[None]


def has(picture: NDArray[np.uint8], color: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture.astype(int) - color).max(axis=-1) <= 2).any())


@pytest.fixture
def gray(tmp_path: Path) -> Path:
    return kit.write(kit.image(sop_class=kit.CR, rows=100, columns=80), tmp_path / "cr.dcm")


def test_the_image_is_above_the_words(gray: Path) -> None:
    file = cases.made(cases.content(gray, readings=(cases.classified(),)), "sc")["sc"]
    (picture,) = pixels(file)
    scale = 7  # 80 columns are enlarged to at least 512
    source = pydicom.dcmread(gray).pixel_array
    assert np.array_equal(picture[: 100 * scale : scale, : 80 * scale : scale, 0], source), "no pixel is hidden"
    strip = picture[100 * scale :]
    assert has(strip, WARNING)
    assert (strip[-4:] == 0).all()


def test_masks_are_tinted_and_outlined_in_their_place(gray: Path) -> None:
    mask = np.zeros((2, 100, 80), bool)
    mask[1, 20:40, 10:30] = True
    file = cases.made(cases.content(gray, readings=(cases.drawn(mask),)), "sc")["sc"]
    (picture,) = pixels(file)
    plain = np.repeat(np.repeat(pydicom.dcmread(gray).pixel_array, 7, 0), 7, 1)
    differs = (picture[:700, :560] != plain[..., None]).any(axis=-1)
    assert np.array_equal(differs, np.repeat(np.repeat(mask[1], 7, 0), 7, 1)), "changed just where the mask is"
    assert tuple(picture[140, 70]) == COLORS[1]
    inside = picture[200, 150].astype(int)
    assert abs(inside - (plain[200, 150] * 0.75 + np.array(COLORS[1]) * 0.25)).max() <= 1


def test_words_name_each_class_in_the_colour_of_its_mask(gray: Path) -> None:
    reading = cases.drawn(cases.blobs(100, 80))
    (with_masks,) = pixels(cases.made(cases.content(gray, readings=(reading,)), "sc")["sc"])
    strip = with_masks[700:]
    assert has(strip, COLORS[0])
    assert has(strip, COLORS[1])


def test_heat_is_laid_over(gray: Path) -> None:
    heat = np.zeros((10, 8), np.float32)
    heat[2, 3] = 1
    reading = replace(cases.classified(), heat=heat)
    (picture,) = pixels(cases.made(cases.content(gray, readings=(reading,)), "sc")["sc"])
    row, column = 25 * 7, 35 * 7
    hot, cold = picture[row, column].astype(int), picture[90 * 7, 70 * 7].astype(int)
    assert hot[0] > hot[2] + 100
    assert cold.max() - cold.min() <= 1


def test_a_cine_is_a_cine_and_each_frame_has_its_own(tmp_path: Path) -> None:
    cine = kit.write(kit.image(sop_class=kit.US_MULTIFRAME, frames=3), tmp_path / "us.dcm")
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 10:20, 10:20] = True
    said = cases.content(cine, readings=(cases.drawn(mask, frame=1),))
    file = cases.made(said, "sc")["sc"]
    opened = read(file)
    assert opened.SOPClassUID == capture.MULTIFRAME
    assert (opened.NumberOfFrames, float(opened.FrameTime)) == (3, 40.0)
    first, second, third = pixels(file)[:, :512, :512]
    assert not (first[..., 0] != first[..., 1]).any()
    assert (second[..., 0] != second[..., 2]).any()
    assert not (third[..., 0] != third[..., 1]).any()
    (source,) = opened.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == pydicom.dcmread(cine).SOPInstanceUID


def test_long_and_large_ones_are_compressed_and_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MAX_RAW_BYTES", 1 << 20)
    monkeypatch.setattr(capture, "MAX_FRAMES", 4)
    cine = kit.write(kit.image(sop_class=kit.US_MULTIFRAME, frames=10), tmp_path / "us.dcm")
    files = cases.made(cases.content(cine, readings=(cases.classified(),)), "sc", "sr")
    opened = read(files["sc"])
    assert (opened.NumberOfFrames, float(opened.FrameTime)) == (4, 120.0)
    assert opened.SourceImageSequence[0].ReferencedFrameNumber == [1, 4, 7, 10]
    assert (opened.LossyImageCompression, opened.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert float(opened.LossyImageCompressionRatio) > 2
    assert pixels(files["sc"]).shape == (4, opened.Rows, opened.Columns, 3)
    cases.assert_valid(tmp_path, files)
    assert b"one of 3 frames" in files["sr"].data


def test_a_volume_is_shown_slice_by_slice(tmp_path: Path) -> None:
    paths = [
        kit.write(kit.image(study="1.2.1", series="1.2.2", position=z, rows=32, columns=32), tmp_path / f"{z}.dcm")
        for z in range(3)
    ]
    labels = np.zeros((1, 3, 32, 32), bool)
    labels[0, 2, 4:9, 4:9] = True
    said = cases.content(*paths, readings=(cases.drawn(labels, None),), planes=((2, 0), (0, 0), (1, 0)))
    file = cases.made(said, "sc")["sc"]
    shown = [(frame[:512, :512, 0] != frame[:512, :512, 2]).any() for frame in pixels(file)]
    assert shown == [False, False, True]
    assert "FrameTime" not in read(file), "slices are pages, no film"


@pytest.mark.parametrize(
    ("said", "several", "expected"),
    [("YES", False, "YES"), ("NO", False, "NO"), (None, False, None), (None, True, "YES"), ("NO", True, "NO")],
)
def test_burned_in_names_are_not_denied(said: str | None, several: bool, expected: str | None, tmp_path: Path) -> None:
    more = {} if said is None else {"BurnedInAnnotation": said}
    image = kit.image(sop_class=kit.US_MULTIFRAME if several else kit.US, frames=2 if several else None, **more)
    source = kit.write(image, tmp_path / "us.dcm")
    file = cases.made(cases.content(source, readings=(cases.classified(),)), "sc")["sc"]
    assert read(file).get("BurnedInAnnotation") == expected


def test_damaged_pixels_have_a_report_and_no_picture(tmp_path: Path) -> None:
    image = kit.image(sop_class=kit.CR)
    image.PixelData = image.PixelData[:100]
    source = tmp_path / "cut.dcm"
    image.save_as(source, enforce_file_format=True)
    said = cases.content(source, refusal="Its pixels are cut short.")
    assert set(cases.made(said)) == {"sr", "json"}
    assert cases.made(said)["sr"].data.count(b"no secondary capture")


def test_readings_of_damaged_pixels_have_a_report_and_no_picture(tmp_path: Path) -> None:
    image = kit.image()
    del image.PixelData
    source = kit.write(image, tmp_path / "ct.dcm")
    files = cases.made(cases.content(source, readings=(cases.classified(),)), "sr", "sc")
    assert set(files) == {"sr"}
    assert b"There is no secondary capture" in files["sr"].data


def test_one_damaged_image_of_several_is_left_out(tmp_path: Path) -> None:
    good = kit.write(kit.image(study="1.2.1", series="1.2.2"), tmp_path / "good.dcm")
    image = kit.image(study="1.2.1", series="1.2.2")
    image.PixelData = image.PixelData[:100]
    bad = tmp_path / "bad.dcm"
    image.save_as(bad, enforce_file_format=True)
    files = cases.made(cases.content(bad, good, readings=(cases.classified(1),)), "sc", "sr")
    assert "NumberOfFrames" not in read(files["sc"])
    assert b"leaves out images" in files["sr"].data


def test_what_was_not_analysed_says_so_on_the_picture(gray: Path) -> None:
    said = cases.content(gray, refusal="The contract asks for CT, and this is CR.")
    lifted = replace(said, author=replace(cases.AUTHOR, research_only=False))
    for each in (said, lifted):
        (picture,) = pixels(cases.made(each, "sc")["sc"])
        assert has(picture[700:], WARNING)


def test_lifted_research_use_leaves_no_warning(gray: Path) -> None:
    said = cases.content(gray, readings=(cases.classified(),))
    lifted: Content = replace(said, author=replace(cases.AUTHOR, research_only=False))
    (picture,) = pixels(cases.made(lifted, "sc")["sc"])
    assert not has(picture[700:], WARNING)


def test_letters_that_the_font_lacks() -> None:
    assert writable("Läsion – 肺 ñ") == "Lasion ? ? n"


@cases.peers
@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "examples_ybr_color.dcm"])
def test_dcmtk_decodes_it(name: str, tmp_path: Path) -> None:
    source = cases.real(name)
    opened = open_dicom(source)
    reading = cases.drawn(cases.blobs(opened.module.rows, opened.module.columns), frame=None)
    file = cases.made(cases.content(source, readings=(reading,)), "sc")["sc"]
    path = tmp_path / file.name
    path.write_bytes(file.data)
    done = subprocess.run(["dcmj2pnm", "+op", path, tmp_path / "out.ppm"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    rows, columns = read(file).Rows, read(file).Columns
    assert (tmp_path / "out.ppm").read_bytes().startswith(b"P6\n%d %d\n255\n" % (columns, rows))


def test_many_classes_leave_room_for_the_image(gray: Path) -> None:
    scores = tuple(Score(f"class {number}", 0.5, False) for number in range(60))
    said = cases.content(gray, readings=(Reading("y", "multilabel", 0, scores=scores),))
    (file,) = make_results(said, ["sc"])
    assert read(file).Rows < 1000
