"""Softcopy presentation state (PS3.3 A.33): outlines and words that a viewer lays over the image itself."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from edgemed.base.errors import InputError
from edgemed.imaging.results import items, part10, tree, words
from edgemed.imaging.results.clean import plain
from edgemed.imaging.results.content import Content, Reading, ResultFile
from edgemed.imaging.results.evidence import Source
from edgemed.imaging.results.items import Item
from edgemed.imaging.results.overlay import PLAIN, RGB, WARNING, color_of
from edgemed.imaging.results.regions import Region, Regions
from edgemed.imaging.results.shades import levels
from edgemed.imaging.results.uids import identity, uid_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_ANNOTATIONS: Final = 2000
"""Of one presentation state: viewers build them all before they show one."""
_WORDS: Final = "WORDS"
_REMARKS: Final = "REMARKS"
_BOX: Final = (0.01, 0.70, 0.99, 0.88)  # of the displayed area: left, top, right, bottom
_LOWEST: Final = (0.01, 0.89, 0.99, 0.99)


@dataclass(eq=False)
class Presentation:
    """The presentation state of images that are shown alike."""

    content: Content
    sources: list[Source]
    regions: Regions
    used: list[int]
    index: int

    def make(self) -> ResultFile:
        """The file."""
        from highdicom import pr

        first = self.sources[self.used[0]]
        images = {number: _image(self.sources[number]) for number in self.used}
        uid = identity(self.content, "gsps", [self.sources[number].uid for number in self.used], self.index)
        common: dict[str, Any] = {
            "referenced_images": list(images.values()),
            "sop_instance_uid": uid,
            **part10.series(self.content, "gsps", first),
            **part10.made_by(self.content.author),
            "content_label": "EDGEMED",
            "content_description": plain(f"Findings of {self.content.author.model}"),
            "graphic_layers": self._layers(),
        }
        if images[self.used[0]].SamplesPerPixel > 1:
            made: Dataset = pr.ColorSoftcopyPresentationState(**common, icc_profile=_srgb())
        else:
            made = pr.GrayscaleSoftcopyPresentationState(**common, **self._gray(first, images))
        part10.copy_patient(made, first)
        part10.copy_side(made, first)
        # highdicom looks each image of each annotation up in its tables, which takes most of the time for a cine
        item = items.plain(made).but(GraphicAnnotationSequence=list(self._annotations(uid))[:MAX_ANNOTATIONS])
        return part10.finish(item, self.content, "gsps", [self.sources[number] for number in self.used], "overlay")

    def _layers(self) -> list[Any]:
        from highdicom.pr import GraphicLayer

        classes = max((len(r.scores) for r in self.content.readings if r.labels is not None), default=0)
        colors: dict[str, RGB] = {_layer(number): color_of(number) for number in range(classes)}
        colors |= {_WORDS: PLAIN, _REMARKS: WARNING}
        every = enumerate(colors.items(), 1)
        return [GraphicLayer(name, order, display_color=_lab(color)) for order, (name, color) in every]

    def _annotations(self, uid: str) -> Iterator[Item]:
        """Remarks on all images, words on those that they are about, outlines on their frames."""
        remarks = words.remarks(self.content)
        if remarks:
            yield self._annotation(self.used, _REMARKS, TextObjectSequence=[_text(remarks[:4], _LOWEST)])
        told: dict[tuple[int | None, int | None], list[Reading]] = {}
        for reading in self.content.readings:
            if reading.source is None or (reading.source in self.used and self._names(reading)):
                told.setdefault((reading.source, reading.frame), []).append(reading)
        for (source, frame), readings in told.items():
            about, of = (self.used, None) if source is None else ([source], frame)
            lines = [line for reading in readings for line in words.lines(reading)]
            yield self._annotation(about, _WORDS, of, TextObjectSequence=[_text(lines[:12], _BOX)])
        yield from self._outlines(uid)

    def _names(self, reading: Reading) -> bool:
        """Whether a reference can name the frame that a reading is about."""
        return reading.frame is None or reading.source is None or not self.sources[reading.source].unnamed

    def _outlines(self, uid: str) -> Iterator[Item]:
        grouped: dict[tuple[int, int | None, int], list[Region]] = {}
        for region in self.regions.every:
            if region.source in self.used:
                grouped.setdefault((region.source, region.frame, region.label), []).append(region)
        for number, ((source, frame, label), regions) in enumerate(grouped.items()):
            name = plain(self.content.readings[regions[0].reading].scores[label].name)
            objects = [
                _outline(region, name, uid_of(uid, "outline", number, place)) for place, region in enumerate(regions)
            ]
            yield self._annotation([source], _layer(label), frame, GraphicObjectSequence=objects)

    def _annotation(self, about: list[int], layer: str, frame: int | None = None, **drawn: list[Item]) -> Item:
        """Something on a frame of an image, or on whole images (PS3.3 C.10.5)."""
        images = [
            Item(
                ReferencedSOPClassUID=source.sop_class,
                ReferencedSOPInstanceUID=source.uid,
                **tree.frames(source.numbers(frame)),
            )
            for source in (self.sources[number] for number in about)
        ]
        return Item(GraphicLayer=layer, ReferencedImageSequence=images, **drawn)

    def _gray(self, first: Source, images: dict[int, Dataset]) -> dict[str, Any]:
        """How gray values are shown: as the file says, else so that something is seen."""
        from highdicom import ModalityLUTTransformation, PresentationLUTTransformation
        from highdicom.content import ReferencedImageSequence
        from highdicom.pr import SoftcopyVOILUTTransformation

        assert first.opened is not None
        windows: dict[tuple[float, float], list[int]] = {}
        for number in self.used:
            windows.setdefault(_window(self.sources[number]), []).append(number)
        inverse = first.opened.module.photometric == "MONOCHROME1"
        found: dict[str, Any] = {
            "voi_lut_transformations": [
                SoftcopyVOILUTTransformation(
                    center, width, referenced_images=ReferencedImageSequence([images[number] for number in numbers])
                )
                for (center, width), numbers in windows.items()
            ],
            "presentation_lut_transformation": PresentationLUTTransformation(
                presentation_lut_shape="INVERSE" if inverse else "IDENTITY"
            ),
        }
        modality = first.opened.attributes(0).modality
        unit = "HU" if first.dataset.Modality == "CT" else "US"
        found["modality_lut_transformation"] = ModalityLUTTransformation(modality.intercept, modality.slope, unit)
        return found


def make_presentations(content: Content, sources: list[Source], regions: Regions) -> tuple[list[ResultFile], list[str]]:
    """One for all images that are shown alike, and what could not be made; nothing about what was not analysed."""
    if content.refusal is not None:
        return [], []
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, source in enumerate(sources):
        groups.setdefault(_manner(source), []).append(number)
    files: list[ResultFile] = []
    notes = []
    for manner, used in groups.items():
        if not manner:
            notes.append("Some images have no presentation state: a table shows them, they are a line, or unreadable.")
            continue
        try:
            files.append(Presentation(content, sources, regions, used, len(files)).make())
        except InputError:  # a damaged frame, which the analysis did not meet
            notes.append("Some images have no presentation state: their pixels cannot be read.")
    return files, notes


def _manner(source: Source) -> tuple[object, ...]:
    """What images of one presentation state have in common; () for those that have none."""
    if source.opened is None:
        return ()
    module, modality = source.opened.module, source.opened.attributes(0).modality
    if 1 in (module.rows, module.columns):  # validators take the corners of the displayed area for one pixel's
        return ()
    if not source.opened.is_color and (modality.table is not None or module.is_float):
        return ()
    return (
        *(source.study, source.series, module.rows, module.columns, module.samples, module.photometric),
        *(modality.slope, modality.intercept),
    )


def _image(source: Source) -> Dataset:
    """What highdicom reads of an image."""
    assert source.opened is not None
    made = deepcopy(source.known)
    made.SamplesPerPixel = 3 if source.opened.is_color else 1
    return made


def _srgb() -> bytes | None:
    """The colours of a screen, as a profile: the one that highdicom itself gives to pseudo-colour."""
    return pkgutil.get_data("highdicom", "_icc_profiles/sRGB_v4_ICC_preference.icc")


def _window(source: Source) -> tuple[float, float]:
    """Centre and width, in stored values after the Modality LUT: of the file, else of what the first frame holds."""
    assert source.opened is not None
    low, high = levels(source.opened.frame(0))
    if source.opened.module.photometric == "MONOCHROME1":  # an Image has it turned over within its range
        span = source.opened.stored_range(0) or (low, high)
        low, high = sum(span) - high, sum(span) - low
    width = max(high - low + 1, 1.0)  # PS3.3 C.11.2.1.2.1: the ends are shown black and white
    return float(f"{(low + high + 1) / 2:.8g}"), float(f"{width:.8g}")


def _layer(label: int) -> str:
    return f"CLASS_{label + 1}"


def _text(lines: list[str], box: tuple[float, float, float, float]) -> Item:
    text = "\r\n".join(plain(line, 200) for line in lines)
    return Item(
        UnformattedTextValue=text[:1024] or " ",
        BoundingBoxAnnotationUnits="DISPLAY",
        BoundingBoxTopLeftHandCorner=list(box[:2]),
        BoundingBoxBottomRightHandCorner=list(box[2:]),
        BoundingBoxTextHorizontalJustification="LEFT",
    )


def _outline(region: Region, name: str, uid: str) -> Item:
    return Item(
        GraphicDimensions=2,
        GraphicType="POLYLINE",
        GraphicAnnotationUnits="PIXEL",
        NumberOfGraphicPoints=len(region.points),
        GraphicData=region.points.ravel().tolist(),
        GraphicFilled="N",
        TrackingID=name,
        TrackingUID=uid,
    )


@lru_cache
def _lab(color: RGB) -> Any:
    import numpy as np
    from highdicom.color import CIELabColor
    from skimage import color as convert

    to_lab: Any = convert.rgb2lab
    lightness, a, b = to_lab(np.array(color, np.float64)[None, None] / 255)[0, 0]
    return CIELabColor(min(float(lightness), 100.0), float(a), float(b))
