"""Structured report, TID 1500 (PS3.16): what was measured and judged, on which image and frame, by whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from edgemed.imaging.results import part10, tree, words
from edgemed.imaging.results.clean import plain
from edgemed.imaging.results.content import Concept, Content, Reading, ResultFile, Score
from edgemed.imaging.results.evidence import Source
from edgemed.imaging.results.items import Item
from edgemed.imaging.results.regions import Region, Regions, is_volume
from edgemed.imaging.results.request import requests
from edgemed.imaging.results.skeleton import skeleton
from edgemed.imaging.results.uids import identity, uid_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from edgemed.imaging.dicom.frames import FrameAttributes

MAX_GROUPS: Final = 256
"""Of measurements: half a megabyte, and seconds of work for whoever opens it. Of a longer cine frames with findings
come first; the JSON result has them all."""
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
        first, content = self.sources[0], self.content
        common = skeleton(content.author, complete=content.refusal is None)
        series, number, instance = part10.series(content, "sr", first).values()
        report = common.but(
            SOPInstanceUID=self._uid,
            SeriesInstanceUID=series,
            SeriesNumber=str(number),
            InstanceNumber=str(instance),
            ContentSequence=[*common.value("ContentSequence"), *self._tree()],
            **part10.patient(first),
            **self._evidence(),
        )
        if asked := requests(self.sources):
            report.put(ReferencedRequestSequence=asked)
        if content.replaces:
            earlier = [(first.study, series, COMPREHENSIVE, uid) for uid in content.replaces]
            report.put(PredecessorDocumentsSequence=tree.references(earlier))
        if content.refusal is not None:
            report.put(CompletionFlagDescription=plain(f"{words.NOT_ANALYSED}: {content.refusal}"))
        return part10.finish(report, content, "sr", self.sources, "findings")

    @cached_property
    def _uid(self) -> str:
        return identity(self.content, "sr", [source.uid for source in self.sources])

    def _evidence(self) -> dict[str, list[Item]]:
        """What the report refers to, of this study and of others (PS3.3 C.17.2.3)."""
        every: dict[str, tree.Reference] = {}
        for each in self.sources:
            every.setdefault(each.uid, (each.study, each.series, each.sop_class, each.uid))
        for seg in self.segmentations.values():
            uid = str(seg.SOPInstanceUID)
            every.setdefault(uid, (seg.StudyInstanceUID, seg.SeriesInstanceUID, seg.SOPClassUID, uid))
        here = self.sources[0].study
        others = [each for each in every.values() if each[0] != here]
        current = [each for each in every.values() if each[0] == here]
        found = {"CurrentRequestedProcedureEvidenceSequence": tree.references(current)}
        return found | ({"PertinentOtherEvidenceSequence": tree.references(others)} if others else {})

    def _tree(self) -> list[Item]:
        """The images and what was measured on them."""
        told = self._told()
        first = [item for item in told if item[0] in self.segmentations and is_volume(item[1])]
        groups = [group for reading in first for group in self._groups(*reading)]
        analysis = self._analysis()
        groups += [group for reading in told if reading not in first for group in self._groups(*reading)]
        return [tree.library(map(_listed, self.sources)), tree.measurements([analysis, *groups])]

    def _analysis(self) -> Item:
        """Whether there is an answer, by what algorithm, on what images, and what a reader must know."""
        content = self.content
        summary = words.SUCCEEDED if content.refusal is None else words.NOT_ATTEMPTED
        measurements = [_measurement(words.OOD, content.ood)] if content.ood is not None else []
        found = self._found(measurements, [(words.ANALYSES, summary)], whole=True)
        remarks = [tree.text(words.COMMENT, line) for line in words.remarks(content) + self.notes]
        return self._group("analysis", None, found, [*self._images(None), *remarks])

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

    def _groups(self, number: int, reading: Reading) -> list[Item]:
        where = words.place(reading, self.sources)
        if reading.value is not None:
            measurement = _measurement(words.private(reading.output), reading.value, words.unit_of(reading))
            found = self._found([measurement], [])
            return [self._group(f"{reading.output} {where}", None, found, self._images(reading))]
        if reading.labels is not None:
            return [g for k, s in enumerate(reading.scores) for g in self._drawn(number, reading, k, s)]
        return [self._judged(reading, score, where) for score in reading.scores]

    def _judged(self, reading: Reading, score: Score, where: str) -> Item:
        """One class: how probable it is, and whether the model takes it to be there."""
        presence = words.PRESENT if score.found else words.ABSENT
        concept = words.concept_of(score)
        measurements = []
        if reading.task != "segmentation":
            measurements.append(_measurement(words.PROBABILITY, score.value))
        if reading.threshold is not None:
            measurements.append(_measurement(words.THRESHOLD, reading.threshold))
        found = self._found(measurements, [(concept, presence)])
        return self._group(f"{reading.output} {score.name} {where}", concept, found, self._images(reading))

    def _drawn(self, number: int, reading: Reading, label: int, score: Score) -> list[Item]:
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

    def _part(self, score: Score, part: Region, label: str) -> Item:
        spacing = self.sources[part.source].spacing
        area = (
            _measurement(words.AREA, part.pixels, words.PIXELS)
            if spacing is None
            else _measurement(words.AREA, part.pixels * spacing[0] * spacing[1], words.MM2)
        )
        concept = words.concept_of(score)
        found = self._found([area], [(concept, words.PRESENT)])
        return self._group(label, concept, found, [self._outlined(part)], tree.PLANAR)

    def _volume(self, number: int, reading: Reading, label: int, score: Score, parts: list[Region]) -> Item:
        assert reading.labels is not None
        concept = words.concept_of(score)
        size = voxel_volume(self.content, self.sources)
        count = int(reading.labels[label].sum())
        volume = (
            _measurement(words.VOLUME, count, Concept("{voxels}", "UCUM", "Voxels"))
            if size is None
            else _measurement(words.VOLUME, count * size, words.MM3)
        )
        where = self._segment(number, label) or [self._outlined(part) for part in parts]
        found = self._found([volume], [(concept, words.PRESENT)])
        return self._group(f"{reading.output} {score.name}", concept, found, where, tree.VOLUMETRIC)

    def _segment(self, number: int, label: int) -> list[Item]:
        """The segment that holds the mask."""
        seg = self.segmentations.get(number)
        if seg is None:
            return []
        seen = [self.sources[index] for index in sorted({index for index, _ in self.content.planes})]
        images = [tree.image(tree.SEGMENTED, source.sop_class, source.uid) for source in seen]
        return tree.segment(seg.SOPClassUID, seg.SOPInstanceUID, label + 1, images)

    def _outlined(self, part: Region) -> Item:
        source = self.sources[part.source]
        return tree.outline(part.points, source.sop_class, source.uid, source.numbers(part.frame))

    def _images(self, reading: Reading | None) -> list[Item]:
        """Those that a reading is about."""
        about = self.sources if reading is None or reading.source is None else [self.sources[reading.source]]
        frame = None if reading is None else reading.frame
        return [
            tree.image(tree.MEASURED, source.sop_class, source.uid, **tree.frames(source.numbers(frame)))
            for source in about
        ]

    def _found(
        self, measurements: list[Item], judgements: list[tuple[Concept, Concept]], *, whole: bool = False
    ) -> list[Item]:
        """By what, how much, and what it means; the algorithm's parameters stand in the first group."""
        author, found = self.content.author, []
        if whole or len(self.content.readings) <= _FEW:  # by whom stands in the first group, and in each of a few
            parameters = words.parameters(author) if whole else []
            found = tree.algorithm(plain(author.model), plain(author.version) or "1", parameters)
        return [*found, *measurements, *(tree.code(name, value) for name, value in judgements)]

    def _group(
        self, label: str, finding: Concept | None, found: list[Item], where: list[Item], template: str = tree.IMAGES
    ) -> Item:
        """A group with the next of the report's tracking UIDs."""
        self._count += 1
        return tree.group(uid_of(self._uid, self._count), plain(label, 1024), finding, found, where, template)


def _listed(source: Source) -> tuple[str, str, int | None, int | None]:
    """For the image library; by hand, as highdicom's wants attributes that sloppy headers lack."""
    return source.sop_class, source.uid, source.dataset.get("Rows"), source.dataset.get("Columns")


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


def _measurement(name: Concept, value: float, unit: Concept = words.NO_UNIT) -> Item:
    # six digits: a Numeric Value is a decimal string of 16 characters, and more would be no knowledge
    return tree.number(name, float(f"{value:.6g}"), unit)
