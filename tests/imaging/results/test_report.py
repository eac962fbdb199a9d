"""Reports: what is in them, read back by highdicom and DCMTK; outlines that give the mask back."""

from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from scipy.ndimage import binary_fill_holes, label
from skimage.measure import points_in_poly

from edgemed.base.errors import InputError
from edgemed.imaging.results import make_results, report
from edgemed.imaging.results.content import Concept, Content, Reading, ResultFile, Score
from edgemed.imaging.results.regions import MAX_LENGTH, MAX_POINTS, find_regions
from edgemed.imaging.results.uids import uid_of
from tests.imaging.results import cases
from tests.serve import kit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # highdicom's, of names with one component


@pytest.fixture
def cr(tmp_path: Path) -> Path:
    return kit.write(kit.image(sop_class=kit.CR), tmp_path / "cr.dcm")


def read(file: ResultFile) -> Any:
    return hd.sr.srread(io.BytesIO(file.data))


def texts(file: ResultFile) -> list[str]:
    comment = hd.sr.CodedConcept("121106", "DCM", "Comment")
    found = hd.sr.utils.find_content_items(read(file), name=comment, recursive=True)
    return [item.value for item in found]


def test_classes_probabilities_decisions_and_who_says_so(cr: Path) -> None:
    said = cases.content(cr, readings=(cases.classified(),), notes=("The series is incomplete.",), ood=0.25)
    opened = read(cases.made(said, "sr")["sr"])
    analysis, normal, pneumonia = opened.content.get_image_measurement_groups()
    assert pneumonia.finding_type == hd.sr.CodedConcept("233604007", "SCT", "Pneumonia")
    assert normal.finding_type.scheme_designator == "99EDGEMED"
    probability, threshold = pneumonia.get_measurements()
    assert (probability.name.meaning, probability.value, probability.unit.value) == ("Probability", 0.9275, "1")
    assert (threshold.name.meaning, threshold.value) == ("Decision threshold", 0.5)
    for group, answer in ((normal, "Absent"), (pneumonia, "Present")):
        (evaluation,) = group.get_qualitative_evaluations()
        assert evaluation.value.meaning == answer
    (image_,) = [item for item in pneumonia[0].ContentSequence if item.ValueType == "IMAGE"]
    assert image_.referenced_sop_instance_uid == opened.get_evidence()[0][2]
    (ood,) = analysis.get_measurements()
    assert (ood.name.meaning, ood.value) == ("Out-of-distribution score", 0.25)
    (summary,) = analysis.get_qualitative_evaluations()
    assert (summary.name.value, summary.value.value) == ("111065", "111222")
    parameters = [item.value for item in analysis[0].ContentSequence if item.name.value == "111002"]
    assert f"bundle=sha256:{'5' * 64}" in parameters
    assert {"precision=int8", "backend=tensorrt", "device=Orin Nano"} <= set(parameters)
    assert (opened.CompletionFlag, opened.PreliminaryFlag, opened.VerificationFlag) == (
        "COMPLETE",
        "PRELIMINARY",
        "UNVERIFIED",
    )
    scheme = opened.CodingSchemeIdentificationSequence[0]
    assert scheme.CodingSchemeDesignator == "99EDGEMED"


def test_research_use_stands_in_it_until_a_site_lifts_it(cr: Path) -> None:
    said = cases.content(cr, readings=(cases.classified(),))
    report = cases.made(said, "sr")["sr"]
    assert "RESEARCH USE ONLY - not for diagnosis" in texts(report)
    assert "research" in read(report).SeriesDescription
    lifted = replace(said, author=replace(cases.AUTHOR, research_only=False))
    report = cases.made(lifted, "sr")["sr"]
    assert not any("RESEARCH" in line.upper() for line in (*texts(report), read(report).SeriesDescription))


def test_what_was_not_analysed_says_why(cr: Path) -> None:
    said = cases.content(cr, refusal="The contract asks for CT, and this is CR.")
    report = cases.made(said, "sr")["sr"]
    opened = read(report)
    assert opened.SeriesDescription.startswith("NOT ANALYSED")
    assert opened.CompletionFlag == "PARTIAL"
    assert opened.CompletionFlagDescription == "NOT ANALYSED: The contract asks for CT, and this is CR."
    assert "NOT ANALYSED: The contract asks for CT, and this is CR." in texts(report)
    (group,) = opened.content.get_image_measurement_groups()
    assert [e.value.meaning for e in group.get_qualitative_evaluations()] == ["Not Attempted"]


def test_regression_has_its_unit(cr: Path) -> None:
    reading = Reading("wall thickness", "regression", 0, value=12.3456789, unit="mm")
    opened = read(cases.made(cases.content(cr, readings=(reading,)), "sr")["sr"])
    (measurement,) = opened.content.get_image_measurement_groups()[1].get_measurements()
    assert (measurement.name.meaning, measurement.value, measurement.unit.value) == ("wall thickness", 12.3457, "mm")


def test_a_revision_names_those_before(cr: Path) -> None:
    said = cases.content(cr, readings=(cases.classified(),))
    first = cases.made(said, "sr")["sr"]
    second = cases.made(replace(said, revision=2, replaces=(first.sop_instance,)), "sr")["sr"]
    both = (first.sop_instance, second.sop_instance)
    third = cases.made(replace(said, revision=3, replaces=both), "sr")["sr"]
    assert "PredecessorDocumentsSequence" not in read(first)
    study = read(third).PredecessorDocumentsSequence[0]
    named = [item.ReferencedSOPInstanceUID for item in study.ReferencedSeriesSequence[0].ReferencedSOPSequence]
    assert named == [first.sop_instance, second.sop_instance]
    assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == read(first).SeriesInstanceUID


def test_cine_has_outlines_on_its_frames_and_says_why_there_is_no_segmentation(tmp_path: Path) -> None:
    cine = kit.write(kit.image(sop_class=kit.US_MULTIFRAME, frames=4), tmp_path / "us.dcm")
    readings = tuple(cases.drawn(cases.blobs(64, 64, 3 * frame), frame=frame) for frame in (0, 2))
    files = cases.made(cases.content(cine, readings=readings), "sr", "seg")
    assert set(files) == {"sr"}
    assert any("without a frame of reference" in line for line in texts(files["sr"]))
    groups = read(files["sr"]).content.get_planar_roi_measurement_groups()
    for frame, reading in ((0, readings[0]), (2, readings[1])):
        for number, mask in enumerate(reading.labels if reading.labels is not None else ()):
            parts = [
                group.roi for group in groups if f"class {number} frame {frame + 1} part" in group.tracking_identifier
            ]
            assert {image(roi) for roi in parts} == {(frame + 1,)}
            whole = np.any([inside(roi.GraphicData, mask.shape) for roi in parts], axis=0)
            assert np.array_equal(whole, binary_fill_holes(mask)), "outlines hold just the pixels of the mask"


def image(roi: Any) -> tuple[int, ...]:
    frames = roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber
    return (frames,) if isinstance(frames, int) else tuple(frames)


def inside(data: Any, shape: tuple[int, ...]) -> Any:
    """The pixels whose centres lie in a polygon of columns and rows."""
    polygon = np.reshape(np.asarray(data, float), (-1, 2))
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return points_in_poly(np.stack([x.ravel(), y.ravel()], 1), polygon).reshape(shape)


@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.integers(1, 24), st.floats(0.05, 0.95))
def test_outlines_of_any_mask_give_it_back(seed: int, rows: int, columns: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    found = find_regions(Content(cases.AUTHOR, (Path("x"),), cases.WHEN, readings=(cases.drawn(mask[None]),)))
    assert found.tolerance == 0
    numbered, count = label(mask, structure=np.ones((3, 3)))
    assert len(found.every) == min(count, 24)
    assert found.left_out == max(count - 24, 0)
    for region in found.every:
        assert tuple(region.points[0]) == tuple(region.points[-1])
        covered = inside(region.points, mask.shape)
        numbers = np.unique(numbered[covered & mask])
        parts = [np.array_equal(covered, binary_fill_holes(numbered == number)) for number in numbers]
        assert any(parts), "one part, without its holes"


def test_outlines_stay_within_what_an_element_holds() -> None:
    rough = np.zeros((1, 1500, 1500), bool)
    rough[0, 100:1400, 100:1400] = True
    rough[0, 100:1400:2, 100:1400:2] = np.random.default_rng(0).random((650, 650)) < 0.5
    rough[0, ::2, :] = True
    rough[0, :, 0] = True  # one part, its outline goes up and down each row
    found = find_regions(Content(cases.AUTHOR, (Path("x"),), cases.WHEN, readings=(cases.drawn(rough),)))
    assert all(len(region.points) <= MAX_LENGTH for region in found.every)
    assert sum(len(region.points) for region in found.every) <= MAX_POINTS


def test_long_cines_keep_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_GROUPS", 20)
    frames = 20
    cine = kit.write(kit.image(sop_class=kit.US_MULTIFRAME, rows=8, columns=8, frames=frames), tmp_path / "us.dcm")
    readings = []
    for frame in range(frames):
        found = frame in (3, frames - 1)
        scores = (Score("a", 0.9 if found else 0.2, found), Score("b", 0.1 + frame / frames / 2, False))
        readings.append(Reading("y", "multilabel", 0, frame, scores, threshold=0.5))
    file = cases.made(cases.content(cine, readings=tuple(readings)), "sr")["sr"]
    groups = read(file).content.get_image_measurement_groups()
    assert len(groups) == 20 + 1
    labels = [group.tracking_identifier for group in groups]
    assert "y a frame 4" in labels
    assert f"y a frame {frames}" in labels
    said = texts(file)
    assert any("left out" in line for line in said)
    assert any(
        line == f"y: highest probability of b is {0.1 + (frames - 1) / frames / 2:.3f}, in frame {frames}."
        for line in said
    )


@cases.peers
def test_dcmtk_shows_it(cr: Path, tmp_path: Path) -> None:
    file = cases.made(cases.content(cr, readings=(cases.classified(),)), "sr")["sr"]
    path = tmp_path / file.name
    path.write_bytes(file.data)
    shown = subprocess.run(["dsrdump", "+Pl", path], capture_output=True, check=True)
    assert not shown.stderr
    assert b'"Probability")="0.9275"' in shown.stdout


def test_uids_are_uuids_and_differ_by_what_matters(cr: Path) -> None:
    said = cases.content(cr, readings=(cases.classified(),))
    others = [
        replace(said, author=replace(cases.AUTHOR, precision="fp16")),
        replace(said, author=replace(cases.AUTHOR, digest="6" * 64)),
        replace(said, author=replace(cases.AUTHOR, model="other")),
        replace(said, revision=2),
        replace(said, refusal="late", readings=()),
    ]
    uids = [cases.made(each, "sr")["sr"].sop_instance for each in (said, *others)]
    assert len(set(uids)) == len(uids)
    for uid in uids:
        number = int(uid.removeprefix("2.25."))
        assert number < 1 << 128
        assert number >> 76 & 0xF == 8, "version 8 of RFC 9562"
        assert number >> 62 & 0x3 == 2
    later = replace(said, analysed=cases.WHEN.replace(hour=13))
    assert cases.made(later, "sr")["sr"].sop_instance == uids[0], "analysed again, it is the same result"
    assert uid_of("a", "b") != uid_of("ab")


def test_contradictions_are_said(cr: Path) -> None:
    mask = np.zeros((2, 64, 64), bool)
    wrong = replace(cases.drawn(mask), scores=cases.drawn(mask).scores[:1])
    for said, what in (
        (cases.content(), "no file"),
        (cases.content(cr, readings=(cases.classified(3),)), "source 3"),
        (cases.content(cr, readings=(wrong,)), "2 masks and 1 classes"),
        (cases.content(cr, readings=(cases.drawn(np.zeros((1, 2, 64, 64), bool), None),)), "planes"),
    ):
        with pytest.raises(InputError, match=what):
            make_results(said, ["sr"])
    with pytest.raises(InputError, match="pdf"):
        make_results(cases.content(cr), ["pdf"])


def test_long_names_and_other_scripts_become_codes(cr: Path) -> None:
    names = ("Verschattung, rechts basal, unklar", "肺炎", "a|b^c", "x" * 100)
    scores = tuple(Score(name, 0.5, True, None) for name in names)
    file = cases.made(cases.content(cr, readings=(Reading("y", "multilabel", 0, scores=scores),)), "sr")["sr"]
    groups = read(file).content.get_image_measurement_groups()[1:]
    concepts = [group.finding_type for group in groups]
    assert [concept.meaning for concept in concepts] == [name[:64] for name in names]
    assert len({concept.value for concept in concepts}) == 4
    assert all(len(concept.value) <= 16 and concept.value.isascii() for concept in concepts)
    assert read(file).SpecificCharacterSet == "ISO_IR 192"


def test_volume_refers_to_segments_or_outlines_each_slice(tmp_path: Path) -> None:
    series = [
        kit.write(kit.image(rows=32, columns=24, position=2.5 * z, series="1.2.3"), tmp_path / f"{z}.dcm")
        for z in range(4)
    ]
    labels = np.zeros((1, 4, 32, 24), bool)
    labels[0, 1:3, 4:10, 5:9] = True
    said = cases.content(
        *same_study(series), readings=(cases.drawn(labels, None),), planes=tuple((z, 0) for z in (3, 2, 1, 0))
    )
    files = cases.made(said, "sr", "seg")
    (group,) = read(files["sr"]).content.get_volumetric_roi_measurement_groups()
    (volume,) = group.get_measurements()
    assert (volume.name.meaning, volume.value, volume.unit.value) == ("Volume", 2 * 6 * 4 * 2.5, "mm3")
    assert group.reference_type == hd.sr.CodedConcept("121191", "DCM", "Referenced Segment")
    assert files["seg"].sop_instance in {str(item[2]) for item in read(files["sr"]).get_evidence()}
    (alone,) = read(cases.made(said, "sr")["sr"]).content.get_volumetric_roi_measurement_groups()
    assert len(alone.roi) == 2


def same_study(paths: list[Path]) -> list[Path]:
    import pydicom

    for number, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = "1.2.4", "1.2.5"
        dataset.InstanceNumber = number + 1
        dataset.save_as(path)
    return paths


def test_concepts_of_the_recipe_are_used_as_they_are(cr: Path) -> None:
    long = Concept("1234567890123456", "99LOCAL", "A local word")
    scores = (Score("x", 0.5, True, long),)
    file = cases.made(cases.content(cr, readings=(Reading("y", "multilabel", 0, scores=scores),)), "sr")["sr"]
    finding = read(file).content.get_image_measurement_groups()[1].finding_type
    assert (finding.value, finding.scheme_designator, finding.meaning) == (long.value, long.scheme, long.meaning)


def test_it_refers_to_the_requests_that_its_images_name(tmp_path: Path) -> None:
    def asked(number: str) -> Dataset:
        item, code = Dataset(), Dataset()
        item.RequestedProcedureID, item.RequestedProcedureDescription = f"RP{number}", "Chest two views"
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399208008", "SCT", "Chest X-ray"
        item.RequestedProcedureCodeSequence = [code]
        return item

    attributes = [asked("1"), asked("2")]
    named = [
        kit.write(kit.image(sop_class=kit.CR, study="1.2.3", RequestAttributesSequence=attributes), tmp_path / name)
        for name in ("a.dcm", "b.dcm")
    ]
    files = cases.made(cases.content(*named, readings=(cases.classified(),)), "sr")
    cases.assert_valid(tmp_path, files)
    first, second = read(files["sr"]).ReferencedRequestSequence  # once, though each image names them
    assert (first.StudyInstanceUID, first.AccessionNumber) == ("1.2.3", "A1")
    assert (first.RequestedProcedureID, second.RequestedProcedureID) == ("RP1", "RP2")
    assert first.RequestedProcedureCodeSequence[0].CodeValue == "399208008"
    assert (first.PlacerOrderNumberImagingServiceRequest, len(first.ReferencedStudySequence)) == ("", 0)


@pytest.mark.parametrize("sequence", [[], [Dataset()]])
def test_an_accession_number_is_a_request_too_and_none_is_none(tmp_path: Path, sequence: list[Dataset]) -> None:
    for number, wanted in (("A1", ["A1"]), ("", [])):
        image = kit.image(sop_class=kit.CR, AccessionNumber=number, RequestAttributesSequence=sequence)
        path = kit.write(image, tmp_path / "image.dcm")
        opened = read(cases.made(cases.content(path, readings=(cases.classified(),)), "sr")["sr"])
        found = [item.AccessionNumber for item in opened.get("ReferencedRequestSequence", [])]
        assert found == wanted
