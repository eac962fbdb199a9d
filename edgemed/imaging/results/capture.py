"""Secondary capture (PS3.3 A.8): the image with the findings drawn in, for every viewer that shows pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import InputError
from edgemed.imaging.results import part10, words
from edgemed.imaging.results.content import Concept, Content, Reading, ResultFile
from edgemed.imaging.results.evidence import Source
from edgemed.imaging.results.overlay import PLAIN, WARNING, Line, Strip, color_of, tint, warm
from edgemed.imaging.results.regions import planes_of
from edgemed.imaging.results.shades import shown
from edgemed.imaging.results.uids import identity

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SINGLE: Final = "1.2.840.10008.5.1.4.1.1.7"
MULTIFRAME: Final = "1.2.840.10008.5.1.4.1.1.7.4"
MAX_FRAMES: Final = 1200
"""Of one capture, 40 s of video; of a longer one every second, third, ... frame is taken."""
MAX_RAW_BYTES: Final = 32 << 20
"""Of pixels that are written as they are; more are compressed by JPEG, which every viewer reads."""
_QUALITY: Final = 90
_LARGEST: Final = 1536  # pixels on a side: what a screen shows
_SMALLEST: Final = 512  # that words find room below
_LINES: Final = 10

Slide = tuple[int, int]  # source, frame


@dataclass(eq=False)
class Capture:
    """One capture as it is put together."""

    content: Content
    sources: list[Source]

    def make(self) -> ResultFile:
        """The file."""
        first = self.sources[self.slides[0][0]]
        several = len(self.slides) > 1
        made = _new(MULTIFRAME if several else SINGLE, identity(self.content, "sc", [s.uid for s in self.sources]))
        self._describe(made, first)
        rows, columns = self._canvas[0] + self._strip.height, self._canvas[1]
        made.Rows, made.Columns = rows, columns
        if several:
            made.NumberOfFrames = len(self.slides)
            self._pace(made, first)
        self._write(made, rows * columns * 3 * len(self.slides))
        what = "findings in the images" if several else "findings in the image"
        return part10.finish(made, self.content, "sc", self.sources, what)

    @cached_property
    def slides(self) -> list[Slide]:
        """What is shown: the planes of a volume, else all frames; of a refusal one image in the middle."""
        if self.content.planes:
            every = list(self.content.planes)
        else:
            shown = [(i, source) for i, source in enumerate(self.sources) if source.opened is not None]
            every = [(i, frame) for i, source in shown for frame in range(source.frames)]
        if self.content.refusal is not None:
            return every[len(every) // 2 :][:1]
        return every[:: max(1, -(-len(every) // MAX_FRAMES))]

    @property
    def notes(self) -> list[str]:
        """What it leaves out."""
        every = len(self.content.planes) or sum(source.frames for source in self.sources)
        step = -(-every // MAX_FRAMES)
        said = [f"The secondary capture shows one of {step} frames."] if step > 1 else []
        if any(source.opened is None for source in self.sources):
            said.append("The secondary capture leaves out images whose pixels cannot be read.")
        return said

    @cached_property
    def _size(self) -> tuple[int, int]:
        """Of the largest image."""
        used = [self.sources[index].dataset for index in dict.fromkeys(index for index, _ in self.slides)]
        return max(d.Rows for d in used), max(d.Columns for d in used)

    @cached_property
    def _scale(self) -> float:
        """Small images are enlarged by whole pixels, large ones made smaller."""
        longest = max(self._size)
        if longest > _LARGEST:
            return _LARGEST / longest
        return float(max(1, -(-_SMALLEST // self._size[1]))) if longest * 2 <= _LARGEST else 1.0

    @cached_property
    def _canvas(self) -> tuple[int, int]:
        """Rows and columns of the picture; even, as JPEG halves them."""
        rows, columns = (max(1, round(side * self._scale)) for side in self._size)
        columns = max(columns, _SMALLEST // 2)
        return rows + rows % 2, columns + columns % 2

    @cached_property
    def _strip(self) -> Strip:
        size = min(28, max(13, self._canvas[1] // 32))
        return Strip(self._canvas[1], size, [self._words(slide) for slide in self.slides])

    def _words(self, slide: Slide) -> list[Line]:
        """The strip of one picture."""
        author = self.content.author
        said = [Line(f"{author.model} ({author.precision})")]
        for reading in self._readings(slide):
            for label, text in enumerate(words.lines(reading)):
                said.append(Line(text, color_of(label) if reading.labels is not None else PLAIN))
        if len(said) > _LINES:
            said = [*said[: _LINES - 1], Line(f"and {len(said) - _LINES + 1} more: see the report")]
        return said + [Line(text, WARNING) for text in words.remarks(self.content)]

    def _readings(self, slide: Slide) -> Iterator[Reading]:
        for reading in self.content.readings:
            if reading.source in (None, slide[0]) and reading.frame in (None, slide[1]):
                yield reading

    def _picture(self, slide: Slide) -> NDArray[np.uint8]:
        """One picture with its strip."""
        from PIL import Image

        opened = self.sources[slide[0]].opened
        assert opened is not None
        pixels = shown(opened.frame(slide[1]))
        rows, columns = (max(1, round(side * self._scale)) for side in pixels.shape[:2])
        how = Image.Resampling.NEAREST if self._scale >= 1 else Image.Resampling.BOX
        picture = np.array(Image.fromarray(pixels).resize((columns, rows), how))
        for reading in self._readings(slide):
            self._draw(picture, reading, slide)
        canvas = np.zeros((*self._canvas, 3), np.uint8)
        canvas[:rows, :columns] = picture
        return np.concatenate([canvas, self._strip.draw(self._words(slide))])

    def _draw(self, picture: NDArray[np.uint8], reading: Reading, slide: Slide) -> None:
        size = picture.shape[:2]
        if reading.heat is not None and reading.heat.ndim == 2:
            warm(picture, _smooth(np.asarray(reading.heat, np.float32), size))
        if reading.labels is None:
            return
        plane = 0
        if reading.labels.ndim == 4:
            places = planes_of(self.content, reading)
            if slide not in places:
                return
            plane = places.index(slide)
        stack = reading.labels if reading.labels.ndim == 4 else reading.labels[:, None]
        for label, mask in enumerate(stack[:, plane]):
            tint(picture, _resized(mask, size), color_of(label))

    def _describe(self, made: Dataset, first: Source) -> None:
        """Patient, study, series, equipment and image, but its pixels."""
        part10.copy_patient(made, first)
        series, equipment = part10.series(self.content, "sc", first), part10.made_by(self.content.author)
        made.SeriesInstanceUID, made.SeriesNumber = series["series_instance_uid"], series["series_number"]
        made.InstanceNumber = series["instance_number"]
        made.Modality = "OT"
        made.Manufacturer, made.ManufacturerModelName = equipment["manufacturer"], equipment["manufacturer_model_name"]
        made.SoftwareVersions = list(equipment["software_versions"])
        made.DeviceSerialNumber = equipment["device_serial_number"]
        made.SecondaryCaptureDeviceManufacturer = words.MANUFACTURER
        made.ConversionType = "WSD"
        made.ContentDate = made.ContentTime = made.DateOfSecondaryCapture = made.TimeOfSecondaryCapture = ""
        made.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        made.PatientOrientation = first.dataset.PatientOrientation
        part10.copy_side(made, first)
        self._derive(made)
        self._burned_in(made)

    def _derive(self, made: Dataset) -> None:
        """From what images it comes (PS3.3 C.7.6.1, C.12.4)."""
        from pydicom.dataset import Dataset

        made.DerivationDescription = "Findings of a model drawn into the image, and written below it"
        frames: dict[int, list[int]] = {}
        for index, frame in self.slides:
            frames.setdefault(index, []).append(frame + 1)
        items = []
        for index, numbers in frames.items():
            source, item = self.sources[index], Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.sop_class, source.uid
            if source.multiframe and len(numbers) < source.frames:
                item.ReferencedFrameNumber = numbers
            purpose = Concept("121322", "DCM", "Source image for image processing operation")
            item.PurposeOfReferenceCodeSequence = [_item(purpose)]
            items.append(item)
        made.SourceImageSequence = items

    def _burned_in(self, made: Dataset) -> None:
        """Our words name nobody, but the image under them may: what the sources do not deny is taken to be so."""
        said = {source.dataset.get("BurnedInAnnotation") for source in self.sources}
        if said == {"NO"}:
            made.BurnedInAnnotation = "NO"
        elif "YES" in said or len(self.slides) > 1:  # type 1 in a multi-frame capture, else type 3
            made.BurnedInAnnotation = "YES"

    def _pace(self, made: Dataset, first: Source) -> None:
        """How fast frames follow each other: as in the cine; pages, where it is none (PS3.3 C.8.6.3)."""
        time = first.opened.facts.frame_time_ms if first.opened is not None else None
        if time is None or len({index for index, _ in self.slides}) > 1 or self.content.planes:
            made.FrameIncrementPointer = 0x00182001
            made.PageNumberVector = list(range(1, len(self.slides) + 1))
            return
        step = self.slides[1][1] - self.slides[0][1]
        made.FrameIncrementPointer = 0x00181063
        made.FrameTime = f"{time * step:.6g}"

    def _write(self, made: Dataset, size: int) -> None:
        from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

        made.SamplesPerPixel, made.PlanarConfiguration = 3, 0
        made.BitsAllocated = made.BitsStored = 8
        made.HighBit, made.PixelRepresentation = 7, 0
        lossy = self.sources[0].header.get("LossyImageCompression") == "01"
        if size <= MAX_RAW_BYTES:
            made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            made.PhotometricInterpretation = "RGB"
            made.PixelData = b"".join(self._picture(slide).tobytes() for slide in self.slides)
            made["PixelData"].VR = "OB"
            made.LossyImageCompression = "01" if lossy else "00"
            return
        made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        made.PhotometricInterpretation = "YBR_FULL_422"
        self._compress(made, size)

    def _compress(self, made: Dataset, size: int) -> None:
        from pydicom.encaps import encapsulate

        frames = [_jpeg(self._picture(slide)) for slide in self.slides]
        made.PixelData = encapsulate(frames)
        made["PixelData"].VR = "OB"
        made["PixelData"].is_undefined_length = True
        made.LossyImageCompression = "01"
        made.LossyImageCompressionRatio = f"{size / sum(map(len, frames)):.2f}"
        made.LossyImageCompressionMethod = "ISO_10918_1"


def make_captures(content: Content, sources: list[Source]) -> tuple[list[ResultFile], list[str]]:
    """One capture of all that was looked at, and what a reader must know of it; none where pixels cannot be read."""
    capture = Capture(content, sources)
    if not capture.slides or any(sources[index].opened is None for index, _ in capture.slides):
        return [], ["There is no secondary capture: the pixels of an image cannot be read."]
    try:
        return [capture.make()], capture.notes
    except InputError:  # a damaged frame, which the analysis did not meet or refused
        return [], ["There is no secondary capture: the pixels of an image cannot be read."]


def _new(sop_class: str, uid: str) -> Dataset:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.SOPClassUID, made.SOPInstanceUID = UID(sop_class), UID(uid)
    return made


def _item(concept: Concept) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = concept.value, concept.scheme
    item.CodeMeaning = concept.meaning
    return item


def _resized(plane: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """The nearest value for each pixel of another size."""
    rows = (np.arange(size[0]) + 0.5) * plane.shape[0] / size[0]
    columns = (np.arange(size[1]) + 0.5) * plane.shape[1] / size[1]
    resized: NDArray[Any] = plane[rows.astype(int)[:, None], columns.astype(int)]
    return resized


def _smooth(heat: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Interpolated: the edges of a coarse map would look like findings."""
    from PIL import Image

    return np.asarray(Image.fromarray(heat).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY, subsampling="4:2:2")
    return buffer.getvalue()
