"""The result as JSON: what other programs read. No pixels; masks as their boxes and sizes."""

from __future__ import annotations

from datetime import timezone
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edgemed.imaging.results import clean
from edgemed.imaging.results.content import Author, Concept, Content, Reading, ResultFile
from edgemed.imaging.results.content import Score as ContentScore
from edgemed.imaging.results.evidence import Source
from edgemed.imaging.results.regions import planes_of
from edgemed.imaging.results.report import voxel_volume
from edgemed.imaging.results.uids import identity

SCHEMA: Final = "edgemed/result/1"
Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class Code(_Strict):
    """A coded concept (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str

    @classmethod
    def of(cls, concept: Concept | None) -> Code | None:
        """The record of a concept."""
        return None if concept is None else cls(value=concept.value, scheme=concept.scheme, meaning=concept.meaning)


class Input(_Strict):
    """An image that the result is about; of files that are no DICOM only the name is known."""

    file: str | None = Field(description="of what is no DICOM")
    sop_class: str | None
    sop_instance: str | None
    series: str | None
    study: str | None
    frames: Count | None


class Patient(_Strict):
    """Whose images they are, and what was ordered: as the first input says it, '' where it does not."""

    id: str
    issuer: str
    name: str = Field(description="as DICOM writes it: family^given^middle^prefix^suffix, groups between =")
    birth_date: str = Field(description="YYYYMMDD")
    sex: str
    accession: str
    placer_order: str
    filler_order: str
    study_id: str
    study_description: str
    referring: str


class Model(_Strict):
    """Who says it."""

    name: str
    version: str
    digest: str = Field(description="SHA-256 of the bundle")
    precision: str
    backend: str
    device: str
    intended_use: str


class Score(_Strict):
    """Of one class."""

    name: str
    code: Code | None
    value: float = Field(description="probability, 0 to 1")
    found: bool = Field(description="the model's decision")


class Mask(_Strict):
    """Of one class: where it lies. Boxes count from 0 and end before the last number."""

    name: str
    code: Code | None
    pixels: Count
    area_mm2: float | None = Field(description="on an image whose spacing is known")
    volume_mm3: float | None = Field(description="in a volume whose spacing is known")
    rows: tuple[Count, Count] | None = Field(description="None where nothing was drawn")
    columns: tuple[Count, Count] | None
    planes: tuple[Count, Count] | None = Field(description="of a volume")


class Answer(_Strict):
    """What one output says of one image, one frame, or one volume."""

    output: str
    task: Literal["binary", "multiclass", "multilabel", "segmentation", "regression"]
    input: Count | None = Field(description="index into `inputs`; None: all of them, as a volume")
    frame: Count | None = Field(description="from 0; None: the whole")
    scores: tuple[Score, ...]
    threshold: float | None
    value: float | None = Field(description="of a regression")
    unit: str = Field(description="UCUM code of `value`")
    masks: tuple[Mask, ...]


class Result(_Strict):
    """What a model found in an image, a series or a study, or why it was not analysed."""

    schema_: Literal["edgemed/result/1"] = Field(alias="schema")
    uid: str = Field(description="the same when the result is made again")
    revision: Annotated[int, Field(ge=1)]
    analysed: str = Field(description="UTC, ISO 8601")
    station: str
    software: str
    research_only: bool = Field(description="not for diagnosis")
    model: Model
    patient: Patient | None = Field(description="None where no input is DICOM")
    inputs: tuple[Input, ...]
    refusal: str | None = Field(description="why it was not analysed; None where it was")
    notes: tuple[str, ...]
    ood: float | None = Field(description="out-of-distribution score")
    readings: tuple[Answer, ...]


def make_document(content: Content, sources: list[Source | None]) -> ResultFile:
    """The file; `sources` are those of the content, `None` where it is no DICOM."""
    record = describe(content, sources)
    data = record.model_dump_json(by_alias=True, indent=1).encode() + b"\n"
    return ResultFile("json", f"json-{record.uid}.json", data, "", record.uid)


def describe(content: Content, sources: list[Source | None]) -> Result:
    """The result as a record."""
    author = content.author
    when = content.analysed if content.analysed.tzinfo is not None else content.analysed.replace(tzinfo=timezone.utc)
    names = [s.uid if s is not None else path.name for s, path in zip(sources, content.sources, strict=True)]
    return Result(
        schema_=SCHEMA,
        uid=identity(content, "json", names),
        revision=content.revision,
        analysed=when.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        station=author.station,
        software=author.software,
        research_only=author.research_only,
        model=_model(author),
        patient=_patient(next((source for source in sources if source is not None), None)),
        inputs=tuple(_input(s, path.name) for s, path in zip(sources, content.sources, strict=True)),
        refusal=content.refusal,
        notes=content.notes,
        ood=content.ood,
        readings=tuple(_answer(content, reading, sources) for reading in content.readings),
    )


def _model(author: Author) -> Model:
    return Model(name=author.model, **{name: getattr(author, name) for name in Model.model_fields if name != "name"})


def _patient(source: Source | None) -> Patient | None:
    if source is None:
        return None
    said = source.dataset
    return Patient(
        id=said.PatientID,
        issuer=said.get("IssuerOfPatientID", ""),
        name=str(said.PatientName),
        birth_date=said.PatientBirthDate,
        sex=said.PatientSex,
        accession=said.AccessionNumber,
        placer_order=clean.text(source.header, "PlacerOrderNumberImagingServiceRequest"),
        filler_order=clean.text(source.header, "FillerOrderNumberImagingServiceRequest"),
        study_id=said.StudyID,
        study_description=said.get("StudyDescription", ""),
        referring=str(said.ReferringPhysicianName),
    )


def _input(source: Source | None, name: str) -> Input:
    if source is None:
        return Input(file=name, sop_class=None, sop_instance=None, series=None, study=None, frames=None)
    return Input(
        file=None,
        sop_class=source.sop_class,
        sop_instance=source.uid,
        series=source.series,
        study=source.study,
        frames=source.frames,
    )


def _answer(content: Content, reading: Reading, sources: list[Source | None]) -> Answer:
    return Answer(
        output=reading.output,
        task=reading.task,
        input=reading.source,
        frame=reading.frame,
        scores=tuple(_score(score) for score in reading.scores),
        threshold=reading.threshold,
        value=reading.value,
        unit=reading.unit,
        masks=_masks(content, reading, sources),
    )


def _score(score: ContentScore) -> Score:
    return Score(name=score.name, code=Code.of(score.concept), value=score.value, found=score.found)


def _masks(content: Content, reading: Reading, sources: list[Source | None]) -> tuple[Mask, ...]:
    if reading.labels is None:
        return ()
    area = volume = None
    if reading.labels.ndim == 4:
        known = [source for source in sources if source is not None]
        volume = voxel_volume(content, known) if len(known) == len(sources) else None
    else:
        source = sources[planes_of(content, reading)[0][0]]
        spacing = source.spacing if source is not None else None
        area = spacing[0] * spacing[1] if spacing is not None else None
    return tuple(_mask(score, mask, area, volume) for score, mask in zip(reading.scores, reading.labels, strict=True))


def _mask(score: ContentScore, mask: Any, area: float | None, volume: float | None) -> Mask:
    count = int(np.count_nonzero(mask))
    boxes: list[tuple[int, int]] = []
    for axis in range(mask.ndim) if count else ():
        inside = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        boxes.append((int(inside[0]), int(inside[-1]) + 1))
    return Mask(
        name=score.name,
        code=Code.of(score.concept),
        pixels=count,
        area_mm2=None if area is None else count * area,
        volume_mm3=None if volume is None else count * volume,
        rows=boxes[-2] if boxes else None,
        columns=boxes[-1] if boxes else None,
        planes=boxes[0] if len(boxes) == 3 else None,
    )
