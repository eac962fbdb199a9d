"""Presentation states: outlines and words on the frames that they are about, shown as the image says."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from edgemed.imaging.results.content import ResultFile
from tests.imaging.results import cases
from tests.serve import kit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def read(file: ResultFile) -> Any:
    return pydicom.dcmread(io.BytesIO(file.data))


def annotations(state: Any, layer: str) -> list[Any]:
    return [item for item in state.GraphicAnnotationSequence if item.GraphicLayer == layer]


def test_outlines_lie_on_their_frames(tmp_path: Path) -> None:
    cine = kit.write(kit.image(sop_class=kit.US_MULTIFRAME, frames=4), tmp_path / "us.dcm")
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 10:20, 30:50] = True
    said = cases.content(cine, readings=(cases.drawn(mask, frame=2), cases.classified()), notes=("It came late.",))
    state = read(cases.made(said, "gsps")["gsps"])
    assert state.SOPClassUID == "1.2.840.10008.5.1.4.1.1.11.1"
    (outline,) = annotations(state, "CLASS_1")
    assert outline.ReferencedImageSequence[0].ReferencedFrameNumber == 3
    assert outline.ReferencedImageSequence[0].ReferencedSOPClassUID == kit.US_MULTIFRAME
    points = np.reshape(outline.GraphicObjectSequence[0].GraphicData, (-1, 2))
    assert (points.min(0).tolist(), points.max(0).tolist()) == ([30, 10], [50, 20])
    words = {
        item.ReferencedImageSequence[0].get("ReferencedFrameNumber"): item.TextObjectSequence[0].UnformattedTextValue
        for item in annotations(state, "WORDS")
    }
    assert words == {3: "class 0: found", None: "normal: 7.2%\r\npneumonia: 92.8% *"}
    (remark,) = annotations(state, "REMARKS")
    said_too = remark.TextObjectSequence[0].UnformattedTextValue
    assert said_too == "RESEARCH USE ONLY - not for diagnosis\r\nIt came late."


@pytest.mark.parametrize(
    ("name", "shape", "window"),
    [("CT_small.dcm", "IDENTITY", None), ("RG1_UNCR.dcm", "INVERSE", (15000.0, 30000.0))],
)
def test_gray_values_are_shown_as_the_file_says(name: str, shape: str, window: Any, tmp_path: Path) -> None:
    source = cases.real(name)
    state = read(cases.made(cases.content(source, readings=(cases.classified(),)), "gsps")["gsps"])
    assert state.PresentationLUTShape == shape
    voi = state.SoftcopyVOILUTSequence[0]
    if window is not None:
        header = pydicom.dcmread(source)
        assert (float(header.WindowCenter), float(header.WindowWidth)) == window
        assert (float(voi.WindowCenter), float(voi.WindowWidth)) == window
    else:  # no window in the file: most of its values are shown
        values = pydicom.dcmread(source).pixel_array - 1024.0
        low, high = voi.WindowCenter - voi.WindowWidth / 2, voi.WindowCenter + voi.WindowWidth / 2
        assert np.mean((values >= low) & (values <= high)) > 0.98
        assert (float(state.RescaleIntercept), float(state.RescaleSlope)) == (-1024.0, 1.0)


def test_colour_images_have_a_colour_state() -> None:
    for name in ("US1_UNCR.dcm", "examples_palette.dcm"):
        said = cases.content(cases.real(name), readings=(cases.classified(),))
        state = read(cases.made(said, "gsps")["gsps"])
        assert state.SOPClassUID == "1.2.840.10008.5.1.4.1.1.11.2"
        assert state.ICCProfile[36:40] == b"acsp"


def test_nothing_is_presented_of_what_was_not_analysed(tmp_path: Path) -> None:
    source = kit.write(kit.image(), tmp_path / "ct.dcm")
    assert "gsps" not in cases.made(cases.content(source, refusal="late"))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (5, 1)])
def test_an_image_of_a_line_has_none_and_the_report_says_so(rows: int, columns: int, tmp_path: Path) -> None:
    """Its displayed area would have no corners of its own."""
    source = kit.write(kit.image(rows=rows, columns=columns), tmp_path / "line.dcm")
    files = cases.made(cases.content(source, readings=(cases.classified(),)), "sr", "gsps")
    assert set(files) == {"sr"}
    assert "no presentation state" in read(files["sr"]).to_json()


def test_images_that_are_shown_differently_have_a_state_each(tmp_path: Path) -> None:
    paths = [
        kit.write(kit.image(study="1.2.1", series="1.2.2", RescaleSlope=slope), tmp_path / f"{slope}.dcm")
        for slope in ("1", "2")
    ]
    said = cases.content(*paths, readings=(cases.classified(0), cases.classified(1)))
    from edgemed.imaging.results import make_results

    files = make_results(said, ["gsps"])
    assert len({file.sop_instance for file in files}) == 2


@cases.peers
@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "US1_UNCR.dcm", "CT_small.dcm"])
def test_dcmtk_checks_it(name: str, tmp_path: Path) -> None:
    file = cases.made(cases.content(cases.real(name), readings=(cases.classified(),)), "gsps")["gsps"]
    path = tmp_path / file.name
    path.write_bytes(file.data)
    done = subprocess.run(["dcmpschk", path], capture_output=True, check=False)
    assert b"Test passed" in done.stdout + done.stderr


@cases.peers
def test_several_cines_of_a_series_share_a_state(tmp_path: Path) -> None:
    uids = {"study": "1.2.1", "series": "1.2.2", "sop_class": kit.US_MULTIFRAME, "frames": 3}
    cines = [kit.write(kit.image(**uids), tmp_path / f"{number}.dcm") for number in range(2)]
    readings = (cases.classified(0, 1), cases.drawn(cases.blobs(64, 64), 1, 2))
    files = cases.made(cases.content(*cines, readings=readings))
    cases.assert_valid(tmp_path, files)
    remarks, *told = read(files["gsps"]).GraphicAnnotationSequence
    assert len(remarks.ReferencedImageSequence) == 2, "research use is said of both"
    frames = [int(each.ReferencedImageSequence[0].ReferencedFrameNumber) for each in told]
    assert frames == [2, 3, 3, 3], "words on each, two outlines on one"
