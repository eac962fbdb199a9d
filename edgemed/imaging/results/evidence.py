"""The files that a result is about: their headers, put right, as the base of what is written."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgemed.base.errors import InputError
from edgemed.base.hashing import sha256_file
from edgemed.imaging.results import clean
from edgemed.imaging.results.uids import uid_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from edgemed.imaging.dicom import DicomFile

# Identifiers are copied whole, however long: a result must be found beside its image.
_WHOLE: Final = 1024
_ULTRASOUND: Final = "1.2.840.10008.5.1.4.1.1.3.1"
_CT: Final = "1.2.840.10008.5.1.4.1.1.2"
_ONE_FRAME: Final = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}"
    for end in (
        *("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "2", "4", "6", "6.1", "7", "128"),
        *("77.1.1", "77.1.2", "77.1.3", "77.1.4"),
    )
)
"""CR, DX, mammography, intra-oral, CT, MR, ultrasound, secondary capture, PET, visible light: classes of one frame."""
_SIDES: Final = ("L", "R", "B", "U")


@dataclass(frozen=True, eq=False)
class Source:
    """One file.

    Attributes:
        path: of it.
        header: as it is.
        dataset: of the patient, study, series and image what results repeat, each element as the standard wants it:
            type 1 filled, type 2 there.
        opened: the file, where its pixels can be read.
    """

    path: Path
    header: Dataset = field(repr=False)
    dataset: Dataset = field(repr=False)
    opened: DicomFile | None = field(repr=False)

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return str(self.dataset.SOPInstanceUID)

    @property
    def sop_class(self) -> str:
        """SOP Class UID."""
        return str(self.dataset.SOPClassUID)

    @property
    def series(self) -> str:
        """Series Instance UID."""
        return str(self.dataset.SeriesInstanceUID)

    @property
    def study(self) -> str:
        """Study Instance UID."""
        return str(self.dataset.StudyInstanceUID)

    @property
    def frames(self) -> int:
        """How many it holds; 1 where that cannot be read."""
        return self.opened.frames if self.opened is not None else 1

    @property
    def multiframe(self) -> bool:
        """Whether references to it name frames: it is of a class that has some, and says how many."""
        return "NumberOfFrames" in self.dataset and self.sop_class not in _ONE_FRAME

    @property
    def unnamed(self) -> bool:
        """Whether it has frames that no reference can name, being of a class that has one: what is sloppy."""
        return self.frames > 1 and not self.multiframe

    @property
    def stand_in(self) -> str:
        """A class with as many frames that highdicom knows: it refuses those that are retired, private or new.

        `part10.finish` puts the real one into references.
        """
        return _ULTRASOUND if self.multiframe else _CT

    @cached_property
    def known(self) -> Dataset:
        """`dataset`, of a class that highdicom knows."""
        made = deepcopy(self.dataset)  # data sets share their elements, even when copied
        made.SOPClassUID = self.stand_in
        return made

    @cached_property
    def spacing(self) -> tuple[float, float] | None:
        """mm between rows and between columns, where it is known."""
        return self.opened.attributes(0).spacing if self.opened is not None else None

    def numbers(self, frame: int | None) -> list[int] | None:
        """Frame numbers of a reference, from 1; `None`: the whole file."""
        return [frame + 1] if frame is not None and self.multiframe else None


def read_source(path: Path) -> Source | None:
    """The file, `None` where it is no DICOM; one whose pixels cannot be read has a header all the same."""
    from edgemed.imaging.dicom import open_dicom
    from edgemed.imaging.dicom.header import read_header
    from edgemed.imaging.dicom.values import quiet

    opened = None
    try:
        opened = open_dicom(path)
        header = opened.dataset
    except InputError:
        try:
            with quiet():
                header = read_header(path).dataset
        except InputError:
            return None
    with quiet():
        return Source(path, header, _cleaned(header, opened, path), opened)


def _cleaned(header: Dataset, opened: DicomFile | None, path: Path) -> Dataset:
    from pydicom.dataset import Dataset

    made = Dataset()
    meta = header.file_meta
    made.SOPClassUID = clean.uid(header, "SOPClassUID") or clean.uid(meta, "MediaStorageSOPClassUID")
    made.SOPInstanceUID = clean.uid(header, "SOPInstanceUID") or clean.uid(meta, "MediaStorageSOPInstanceUID")
    if not made.SOPClassUID or not made.SOPInstanceUID:  # nothing can refer to it: it has at least a name of its own
        made.SOPClassUID = made.SOPClassUID or "1.2.840.10008.5.1.4.1.1.7"
        made.SOPInstanceUID = made.SOPInstanceUID or uid_of("instance", sha256_file(path))
    _patient(header, made)
    _study(header, made)
    _series(header, made)
    _image(header, made, opened)
    return made


def _patient(header: Dataset, made: Dataset) -> None:
    """Patient and Patient Study (PS3.3 C.7.1.1, C.7.2.2)."""
    made.PatientName = clean.name(header, "PatientName")
    made.PatientID = clean.text(header, "PatientID", _WHOLE)
    made.PatientBirthDate = clean.date(header, "PatientBirthDate")
    made.PatientSex = clean.word(header, "PatientSex", ("M", "F", "O"))
    clean.copy(header, made, ("IssuerOfPatientID",), clean.text, limit=_WHOLE)
    if clean.age(header):
        made.PatientAge = clean.age(header)
    if clean.word(header, "PatientIdentityRemoved", ("YES", "NO")):
        made.PatientIdentityRemoved = clean.word(header, "PatientIdentityRemoved")
        if made.PatientIdentityRemoved == "YES":
            made.DeidentificationMethod = clean.text(header, "DeidentificationMethod") or "as the source image"


def _study(header: Dataset, made: Dataset) -> None:
    """General Study (PS3.3 C.7.2.1)."""
    made.StudyInstanceUID = clean.uid(header, "StudyInstanceUID") or uid_of("study", made.SOPInstanceUID)
    made.StudyDate, made.StudyTime = clean.date(header, "StudyDate"), clean.time(header, "StudyTime")
    made.ReferringPhysicianName = clean.name(header, "ReferringPhysicianName")
    made.StudyID = clean.text(header, "StudyID", 16)
    made.AccessionNumber = clean.text(header, "AccessionNumber", _WHOLE)
    clean.copy(header, made, ("StudyDescription",), clean.text)
    if clean.zone(header):
        made.TimezoneOffsetFromUTC = clean.zone(header)


def _series(header: Dataset, made: Dataset) -> None:
    made.SeriesInstanceUID = clean.uid(header, "SeriesInstanceUID") or uid_of("series", made.SOPInstanceUID)
    made.Modality = clean.word(header, "Modality") or "OT"
    made.SeriesNumber = clean.whole(header, "SeriesNumber")
    clean.copy(header, made, ("BodyPartExamined",), clean.word)
    side = clean.word(header, "ImageLaterality", _SIDES) or clean.word(header, "Laterality", _SIDES)
    if side:
        made.Laterality = side


def _image(header: Dataset, made: Dataset, opened: DicomFile | None) -> None:
    made.InstanceNumber = clean.whole(header, "InstanceNumber")
    made.PatientOrientation = _orientation(header)
    clean.copy(header, made, ("BurnedInAnnotation",), clean.word, allowed=("YES", "NO"))
    clean.copy(header, made, ("FrameOfReferenceUID",), clean.uid)
    if opened is None:
        return
    made.Rows, made.Columns = opened.module.rows, opened.module.columns
    if opened.frames > 1 or clean.whole(header, "NumberOfFrames") is not None:
        made.NumberOfFrames = opened.frames


def _orientation(header: Dataset) -> list[str] | str:
    parts = clean.text(header, "PatientOrientation", _WHOLE).upper().split()
    right = len(parts) == 2 and all(part.strip("LRAPHF") == "" and 1 <= len(part) <= 3 for part in parts)
    return parts if right else ""
