"""DICOM Segmentation (PS3.3 A.51): the masks themselves, where the standard has a place for them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.imaging.results import part10, words
from edgemed.imaging.results.clean import plain
from edgemed.imaging.results.content import Author, Concept, Content, Reading, ResultFile
from edgemed.imaging.results.evidence import Source
from edgemed.imaging.results.regions import planes_of
from edgemed.imaging.results.uids import identity, uid_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# what a class without more words is (CID 7150): neither anatomy nor disease is claimed
_CATEGORY: Final = Concept("309825002", "SCT", "Spatial and Relational Concept")
_FAMILY: Final = Concept("123110", "DCM", "Artificial Intelligence")


class NotLegalError(Exception):
    """No segmentation can be made, and why, as a clause."""


@dataclass(eq=False)
class Segmentations:
    """What was made.

    Attributes:
        files: ready to be sent.
        notes: why masks are in no segmentation.
        of: the segmentation of each reading that is in one.
    """

    files: list[ResultFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    of: dict[int, Dataset] = field(default_factory=dict)


def make_segmentations(content: Content, sources: list[Source]) -> Segmentations:
    """One file for each volume; for each output, one for all slices of a series; one for each other image."""
    made = Segmentations()
    for group in _groups(content, sources):
        readings = [content.readings[number] for number in group]
        try:
            dataset, used = _make(content, readings, sources, len(made.files))
        except NotLegalError as error:
            note = f"Masks of {readings[0].output} are in no DICOM Segmentation: {error}."
            made.notes += [note] if note not in made.notes else []
            continue
        made.files.append(part10.finish(dataset, content, "seg", used, "segmentation"))
        made.of |= dict.fromkeys(group, dataset)
    return made


def _groups(content: Content, sources: list[Source]) -> list[list[int]]:
    """Indices of readings that go into one file."""
    found: dict[tuple[object, ...], list[int]] = {}
    for number, reading in enumerate(content.readings):
        if reading.labels is None:
            continue
        key: tuple[object, ...] = (number,)
        if reading.labels.ndim == 3:
            source = sources[reading.source or 0]
            names = tuple(score.name for score in reading.scores)
            if source.multiframe and source.frames > 1:
                key = (reading.output, names, source.uid)
            elif _geometry(source) is not None:
                key = (reading.output, names, source.series, source.opened and source.opened.module.rows)
        found.setdefault(key, []).append(number)
    return list(found.values())


def _make(content: Content, readings: list[Reading], sources: list[Source], index: int) -> tuple[Dataset, list[Source]]:
    from highdicom.seg import Segmentation

    used, masks = _stacked(content, readings, sources)
    first = used[0]
    thickness = _thickness(used)
    uid = identity(content, "seg", [source.uid for source in used], index)
    try:
        made = Segmentation(
            source_images=[_image(source, thickness) for source in used],
            pixel_array=masks,
            segmentation_type="BINARY",
            segment_descriptions=_segments(content.author, readings[0], uid),
            sop_instance_uid=uid,
            **part10.series(content, "seg", first),
            **part10.made_by(content.author),
            content_label="EDGEMED",
            content_description=plain(f"{content.author.model} {readings[0].output}"),
            omit_empty_frames=bool(masks.any()),  # nothing was found: that is an answer, too
        )
    except Exception as error:  # highdicom raises whatever a contradiction of a header provokes
        reason = plain(str(error).split(". ")[0].rstrip("."), 200)
        raise NotLegalError(f"the headers do not allow it ({reason or type(error).__name__})") from error
    _fix_uids(made, uid)
    part10.copy_patient(made, first)
    part10.copy_part(made, first)  # no side: of frames it is told by an anatomic code, which no image's word is
    if "FrameOfReferenceUID" in made:
        made.PositionReferenceIndicator = made.get("PositionReferenceIndicator")
    else:
        made.PatientOrientation = first.dataset.PatientOrientation
    return made, used


def _stacked(
    content: Content, readings: list[Reading], sources: list[Source]
) -> tuple[list[Source], NDArray[np.uint8]]:
    """The images that are drawn on, and masks `(planes, rows, columns, segments)` in their order."""
    planes: dict[tuple[int, int], NDArray[np.bool_]] = {}
    for reading in readings:
        assert reading.labels is not None
        stack = reading.labels if reading.labels.ndim == 4 else reading.labels[:, None]
        for place, (source, frame) in enumerate(planes_of(content, reading)):
            planes[source, frame or 0] = np.moveaxis(stack[:, place], 0, -1)
    indices = list(dict.fromkeys(source for source, _ in planes))
    used = [sources[index] for index in indices]
    _require_legal(used)
    if used[0].frames > 1:
        shape = next(iter(planes.values())).shape
        masks = np.zeros((used[0].frames, *shape), np.uint8)
        for (_, frame), mask in planes.items():
            masks[frame] = mask
        return used, masks
    return used, np.stack([mask.astype(np.uint8) for mask in planes.values()])


def _require_legal(used: list[Source]) -> None:
    """A plane has a place in the patient, or is the whole of one image of one frame (PS3.3 C.8.20.2)."""
    if any(source.opened is None for source in used):
        raise NotLegalError("the pixels of an image cannot be read")
    if len({source.series for source in used}) > 1:
        raise NotLegalError("the images are of several series")
    if any(source.frames > 1 for source in used) and len(used) > 1:
        raise NotLegalError("it refers to one multi-frame image, or to images of one frame each")
    if any(source.unnamed for source in used):
        raise NotLegalError("an image has several frames, though its SOP Class has one")
    if used[0].multiframe and "PerFrameFunctionalGroupsSequence" not in used[0].header:
        raise NotLegalError("frames of a multi-frame image without a frame of reference have no place in the patient")
    if len(used) > 1 and any(_geometry(source) is None for source in used):
        raise NotLegalError("an image does not say its place in the patient")


def _geometry(source: Source) -> Any:
    """Of an image of one frame that says its place, and in what frame of reference."""
    if source.opened is None or "FrameOfReferenceUID" not in source.dataset:
        return None
    found = source.opened.attributes(0)
    whole = found.position is not None and found.orientation is not None and found.spacing is not None
    return found if whole else None


def _thickness(used: list[Source]) -> float | None:
    """Distance of slices, for those that do not say how thick they are."""
    planes = [_geometry(source) for source in used]
    if any(plane is None for plane in planes) or planes[0].thickness or planes[0].slice_spacing:
        return None
    places = np.unique([np.round(np.dot(plane.position, plane.normal), 3) for plane in planes])
    if len(places) < 2:
        raise NotLegalError("the thickness of the slice is not known")
    return float(np.diff(places).min())


def _image(source: Source, thickness: float | None) -> Dataset:
    """What highdicom reads of an image."""
    made = deepcopy(source.dataset)
    made.pop("PatientOrientation", None)
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if keyword in source.header:
            setattr(made, keyword, source.header[keyword].value)
    found = _geometry(source)
    if found is None and "PerFrameFunctionalGroupsSequence" not in made:
        made.pop("FrameOfReferenceUID", None)
    elif found is not None and "PerFrameFunctionalGroupsSequence" not in made:
        made.ImagePositionPatient = [_decimal(value) for value in found.position]
        made.ImageOrientationPatient = [_decimal(value) for part in found.orientation for value in part]
        made.PixelSpacing = [_decimal(value) for value in found.spacing]
        made.SliceThickness = _decimal(found.thickness or found.slice_spacing or thickness or 1.0)
    return made


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value))


def _segments(author: Author, reading: Reading, uid: str) -> list[Any]:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription

    algorithm = AlgorithmIdentificationSequence(
        name=plain(author.model),
        family=words.coded(_FAMILY),
        version=plain(author.version) or "1",
        source=words.MANUFACTURER,
        parameters={text.split("=", 1)[0]: text.split("=", 1)[1] for text in words.parameters(author)},
    )
    return [
        SegmentDescription(
            segment_number=place + 1,
            segment_label=plain(score.name),
            segmented_property_category=words.coded(_CATEGORY),
            segmented_property_type=words.coded(words.concept_of(score)),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=uid_of(uid, "segment", place),
            tracking_id=plain(f"{reading.output} {score.name}"),
        )
        for place, score in enumerate(reading.scores)
    ]


def _fix_uids(made: Dataset, uid: str) -> None:
    """highdicom draws a Dimension Organization UID at random."""
    fixed = uid_of(uid, "dimensions")
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made[keyword].value:
            item.DimensionOrganizationUID = fixed
