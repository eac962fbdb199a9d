"""Structured report, TID 1500 (PS3.16): what was measured and judged, on which image and frame, by whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from edgemed.imaging.results import part10, words
from edgemed.imaging.results.clean import plain
from edgemed.imaging.results.content import Concept, Content, Reading, ResultFile, Score
from edgemed.imaging.results.evidence import Source
from edgemed.imaging.results.regions import Region, Regions, is_volume
from edgemed.imaging.results.uids import identity, uid_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from edgemed.imaging.dicom.frames import FrameAttributes

MAX_GROUPS: Final = 256
"""Of measurements: half a megabyte and seconds of work. Of a longer cine frames with findings come first; the JSON
result has them all."""
_FEW: Final = 16
COMPREHENSIVE: Final = "1.2.840.10008.5.1.4.1.1.88.33"


@dataclass(eq=False)
class Report:
    """One report as it is put together.

    Attributes:
        content: what it says.
        sources: of which.
        regions: outlines of the masks.
        notes: more than the content's own.
        segmentations: which hold the masks of readings, where there are such.
    """

    content: Content
    sources: list[Source]
    regions: Regions
    notes: list[str] = field(default_factory=list)
    segmentations: dict[int, Dataset] = field(default_factory=dict)
    _count: int = 0

    def make(self) -> ResultFile:
        """The file."""
        from highdicom.sr import ComprehensiveSR

        first = self.sources[0]
        evidence = [source.known for source in self.sources]
        evidence += {str(seg.SOPInstanceUID): seg for seg in self.segmentations.values()}.values()
        document, rest = self._document()
        report = ComprehensiveSR(
            evidence=evidence,
            content=document,
            sop_instance_uid=self._uid,
            **part10.series(self.content, "sr", first),
            **part10.equipment(self.content),
            is_complete=self.content.refusal is None,
            is_final=False,
            previous_versions=self._earlier(),
        )
        report.ContentSequence[-1].ContentSequence.extend(rest)
        if self.content.refusal is not None:
            report.CompletionFlagDescription = plain(f"{words.NOT_ANALYSED}: {self.content.refusal}")
        part10.copy_patient(report, first)
        return part10.finish(report, self.content, "sr", self.sources, "findings")

    @cached_property
    def _uid(self) -> str:
        return identity(self.content, "sr", [source.uid for source in self.sources])

    def _earlier(self) -> list[Dataset] | None:
        """The revisions that this one replaces (Predecessor Documents Sequence)."""
        from pydicom.dataset import Dataset

        found = []
        for uid in self.content.replaces:
            item = Dataset()
            item.SOPClassUID, item.SOPInstanceUID = COMPREHENSIVE, uid
            item.StudyInstanceUID = self.sources[0].study
            item.SeriesInstanceUID = part10.series(self.content, "sr", self.sources[0])["series_instance_uid"]
            found.append(item)
        return found or None

    def _document(self) -> tuple[Dataset, list[Dataset]]:
        """The report with what refers to each image and segmentation, and the other groups.

        highdicom copies a document and walks it several times, which takes most of the time for a cine.
        """
        from highdicom.sr import MeasurementReport

        told = self._told()
        first = [item for item in told if item[0] in self.segmentations and is_volume(item[1])]
        groups = [group for reading in first for group in self._groups(*reading)]
        report = MeasurementReport(
            observation_context=self._observer(),
            procedure_reported=words.coded(words.PROCEDURE),
            imaging_measurements=[self._analysis(), *groups],
        )
        root: Dataset = report[0]
        _insert_library(root, self.sources)
        rest = [group[0] for reading in told if reading not in first for group in self._groups(*reading)]
        return root, rest

    def _observer(self) -> Any:
        from highdicom import sr

        author = self.content.author
        device = sr.DeviceObserverIdentifyingAttributes(
            uid=uid_of("device", author.station, author.model),
            name=plain(author.model),
            manufacturer_name=words.MANUFACTURER,
            model_name=plain(author.version) or plain(author.model),
            serial_number=plain(author.station) or None,
        )
        kind = sr.CodedConcept("121007", "DCM", "Device")
        return sr.ObservationContext(sr.ObserverContext(kind, device))

    def _analysis(self) -> Any:
        """Whether there is an answer, by what algorithm, on what images, and what a reader must know."""
        content = self.content
        summary = words.SUCCEEDED if content.refusal is None else words.NOT_ATTEMPTED
        measurements = [_measurement(words.OOD, content.ood)] if content.ood is not None else []
        group = self._group(None, "analysis", None, measurements, [(words.ANALYSES, summary)], whole=True)
        for line in words.remarks(content) + self.notes:
            group[0].ContentSequence.append(_comment(line))
        return group

    def _told(self) -> list[tuple[int, Reading]]:
        """The readings that are written out: all of them, or those that matter most."""
        every = list(enumerate(self.content.readings))
        if sum(self._size(*item) for item in every) <= MAX_GROUPS:
            return every
        found = [item for item in every if any(score.found for score in item[1].scores)]
        rest = [item for item in every if item not in found]
        kept, room = [], MAX_GROUPS
        for item in found + rest:
            room -= self._size(*item)
            if room < 0:
                break
            kept.append(item)
        self.notes.append(f"{len(every) - len(kept)} of {len(every)} readings are left out here for their number.")
        self.notes += _extremes(self.content)
        return sorted(kept, key=lambda item: item[0])

    def _size(self, number: int, reading: Reading) -> int:
        parts = sum(region.reading == number for region in self.regions.every) if reading.labels is not None else 0
        return max(parts, len(reading.scores), 1)

    def _groups(self, number: int, reading: Reading) -> list[Any]:
        where = words.place(reading, self.sources)
        if reading.value is not None:
            name = words.private(reading.output)
            measurement = _measurement(name, reading.value, words.unit_of(reading))
            return [self._group(reading, f"{reading.output} {where}", None, [measurement], [])]
        if reading.labels is not None:
            return [g for k, s in enumerate(reading.scores) for g in self._drawn(number, reading, k, s)]
        return [self._judged(reading, score, where) for score in reading.scores]

    def _judged(self, reading: Reading, score: Score, where: str) -> Any:
        """One class: how probable it is, and whether the model takes it to be there."""
        presence = words.PRESENT if score.found else words.ABSENT
        concept = words.concept_of(score)
        measurements = []
        if reading.task != "segmentation":
            measurements.append(_measurement(words.PROBABILITY, score.value))
        if reading.threshold is not None:
            measurements.append(_measurement(words.THRESHOLD, reading.threshold))
        return self._group(
            reading, f"{reading.output} {score.name} {where}", concept, measurements, [(concept, presence)]
        )

    def _drawn(self, number: int, reading: Reading, label: int, score: Score) -> list[Any]:
        """One class of a segmentation: each of its parts on an image, or all that was drawn in a volume."""
        assert reading.labels is not None
        where = words.place(reading, self.sources)
        parts = self.regions.of(number, label)
        if not reading.labels[label].any():
            return [self._judged(reading, score, where)]
        if is_volume(reading):
            return [self._volume(number, reading, label, score, parts)]
        return [
            self._part(score, part, f"{reading.output} {score.name} {where} part {place + 1}")
            for place, part in enumerate(parts)
        ] or [self._judged(reading, score, where)]

    def _part(self, score: Score, part: Region, label: str) -> Any:
        from highdicom import sr

        spacing = self.sources[part.source].spacing
        area = (
            _measurement(words.AREA, part.pixels, words.PIXELS)
            if spacing is None
            else _measurement(words.AREA, part.pixels * spacing[0] * spacing[1], words.MM2)
        )
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=self._outlined(part),
            **self._common(label, words.concept_of(score), [area], [(words.concept_of(score), words.PRESENT)]),
        )

    def _volume(self, number: int, reading: Reading, label: int, score: Score, parts: list[Region]) -> Any:
        from highdicom import sr

        assert reading.labels is not None
        concept = words.concept_of(score)
        size = voxel_volume(self.content, self.sources)
        count = int(reading.labels[label].sum())
        volume = (
            _measurement(words.VOLUME, count, Concept("{voxels}", "UCUM", "Voxels"))
            if size is None
            else _measurement(words.VOLUME, count * size, words.MM3)
        )
        common = self._common(f"{reading.output} {score.name}", concept, [volume], [(concept, words.PRESENT)])
        segment = self._segment(number, label)
        if segment is not None:
            return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **common)
        outlined = [self._outlined(part) for part in parts]
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_regions=outlined, **common)

    def _segment(self, number: int, label: int) -> Any:
        """The segment that holds the mask."""
        from highdicom import sr

        seg = self.segmentations.get(number)
        if seg is None:
            return None
        seen = {index for index, _ in self.content.planes}
        images = [sr.SourceImageForSegmentation(self.sources[i].stand_in, self.sources[i].uid) for i in sorted(seen)]
        return sr.ReferencedSegment(seg.SOPClassUID, seg.SOPInstanceUID, label + 1, source_images=images)

    def _outlined(self, part: Region) -> Any:
        from highdicom import sr

        source = self.sources[part.source]
        image = sr.SourceImageForRegion(source.stand_in, source.uid, source.numbers(part.frame))
        return sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, part.points, image)

    def _group(
        self,
        reading: Reading | None,
        label: str,
        finding: Concept | None,
        measurements: list[Any],
        judgements: list[tuple[Concept, Concept]],
        *,
        whole: bool = False,
    ) -> Any:
        """TID 1501, of the images that a reading is about."""
        from highdicom import sr

        about = self.sources if reading is None or reading.source is None else [self.sources[reading.source]]
        frame = None if reading is None else reading.frame
        images = [
            sr.SourceImageForMeasurementGroup(source.stand_in, source.uid, source.numbers(frame)) for source in about
        ]
        return sr.MeasurementsAndQualitativeEvaluations(
            source_images=images, **self._common(label, finding, measurements, judgements, whole=whole)
        )

    def _common(
        self,
        label: str,
        finding: Concept | None,
        measurements: list[Any],
        judgements: list[tuple[Concept, Concept]],
        *,
        whole: bool = False,
    ) -> dict[str, Any]:
        """What all groups have; the algorithm's parameters stand in the first one."""
        from highdicom import sr

        self._count += 1
        author = self.content.author
        # by whom stands in the first group, and in each of a short report
        named = whole or len(self.content.readings) <= _FEW
        algorithm = sr.AlgorithmIdentification(
            plain(author.model), plain(author.version) or "1", words.parameters(author) if whole else None
        )
        return {
            "tracking_identifier": sr.TrackingIdentifier(uid_of(self._uid, self._count), plain(label, 1024)),
            "finding_type": words.coded(finding) if finding is not None else None,
            "algorithm_id": algorithm if named else None,
            "measurements": measurements or None,
            "qualitative_evaluations": [
                sr.QualitativeEvaluation(words.coded(name), words.coded(value)) for name, value in judgements
            ]
            or None,
        }


def voxel_volume(content: Content, sources: list[Source]) -> float | None:
    """mm³ of one voxel: the distance is that of the first and the last plane, by the gaps between them."""
    import numpy as np

    first, last = (_plane(sources[index], frame) for index, frame in (content.planes[0], content.planes[-1]))
    if first is None or last is None or first.spacing is None or first.normal is None:
        return None
    step = first.slice_spacing or first.thickness
    if len(content.planes) > 1:
        if first.position is None or last.position is None:
            return None
        reach = np.dot(np.subtract(last.position, first.position), first.normal)
        step = abs(float(reach)) / (len(content.planes) - 1)
    return first.spacing[0] * first.spacing[1] * step if step else None


def _plane(source: Source, frame: int) -> FrameAttributes | None:
    return None if source.opened is None else source.opened.attributes(frame)


def _extremes(content: Content) -> list[str]:
    """The highest probability of each class, and where: what of a long cine is left for the eye."""
    best: dict[tuple[str, str], tuple[float, Reading]] = {}
    for reading in content.readings:
        for score in reading.scores if reading.task != "segmentation" else ():
            key = (reading.output, score.name)
            if key not in best or score.value > best[key][0]:
                best[key] = score.value, reading
    return [
        f"{output}: highest probability of {name} is {value:.3f}"
        + (f", in frame {reading.frame + 1}." if reading.frame is not None else ".")
        for (output, name), (value, reading) in best.items()
    ]


def _measurement(name: Concept, value: float, unit: Concept = words.NO_UNIT) -> Any:
    from highdicom.sr import Measurement

    # six digits: a Numeric Value is a decimal string of 16 characters, and more would be no knowledge
    return Measurement(words.coded(name), float(f"{value:.6g}"), words.coded(unit))


def _comment(text: str) -> Any:
    from highdicom import sr

    contains = sr.RelationshipTypeValues.CONTAINS
    return sr.TextContentItem(words.coded(words.COMMENT), text, relationship_type=contains)


def _insert_library(root: Dataset, sources: list[Source]) -> None:
    """TID 1600 before the measurements; by hand, as highdicom's wants attributes that sloppy headers lack."""
    from highdicom import sr

    contains, context = sr.RelationshipTypeValues.CONTAINS, sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
    library = sr.ContainerContentItem(sr.CodedConcept("111028", "DCM", "Image Library"), relationship_type=contains)
    group = sr.ContainerContentItem(sr.CodedConcept("126200", "DCM", "Image Library Group"), relationship_type=contains)
    group.ContentSequence = sr.ContentSequence()
    for source in sources:
        purpose = sr.CodedConcept("260753009", "SCT", "Source")
        item = sr.ImageContentItem(purpose, source.sop_class, source.uid, relationship_type=contains)
        sizes = []
        for name, value in (("Rows", source.dataset.get("Rows")), ("Columns", source.dataset.get("Columns"))):
            if value is not None:
                number = sr.CodedConcept({"Rows": "110910", "Columns": "110911"}[name], "DCM", f"Pixel Data {name}")
                unit = sr.CodedConcept("{pixels}", "UCUM", "Pixels")
                sizes.append(sr.NumContentItem(number, value, unit, relationship_type=context))
        if sizes:  # an empty sequence is none
            item.ContentSequence = sr.ContentSequence(sizes)
        group.ContentSequence.append(item)
    library.ContentSequence = sr.ContentSequence([group])
    place = len(root.ContentSequence) - 1
    root.ContentSequence.insert(place, library)
