"""Whether images name somebody: what a bundle keeps of them, it keeps in plain view."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgemed.imaging.sources import Sample

if TYPE_CHECKING:
    from pydicom import Dataset

_LONGEST_ID = 64  # characters


@dataclass(frozen=True)
class Exposure:
    """What DICOM samples say of themselves.

    Attributes:
        dicom: how many samples are of DICOM files.
        named: how many of them do not say Patient Identity Removed.
        burned_in: how many of them may show a name in their pixels.
        reason: why the first of those may.
    """

    dicom: int
    named: int
    burned_in: int
    reason: str | None


def exposure(samples: Iterable[Sample]) -> Exposure:
    """Look at the header of the first DICOM file of each sample; other formats do not say.

    Raises:
        InputError: a file cannot be read.
    """
    from edgemed.imaging.deid.deidentify import silent_pydicom
    from edgemed.imaging.deid.regions import burned_in
    from edgemed.imaging.dicom import is_dicom
    from edgemed.imaging.dicom.file import refusals
    from edgemed.imaging.dicom.header import read_header

    dicom, named, reasons = 0, 0, []
    for sample in samples:
        found = next((path for path in sample.files if is_dicom(path)), None)
        if found is None:
            continue
        with refusals(found), silent_pydicom():
            dataset = read_header(found).dataset
            dicom += 1
            named += not _identity_removed(dataset)
            if (reason := burned_in(dataset)) is not None:
                reasons.append(reason)
    return Exposure(dicom, named, len(reasons), reasons[0] if reasons else None)


def pseudonym(sample: Sample) -> str | None:
    """Patient ID of a sample that was de-identified, which `edgemed calibrate` makes the patient's pseudonym.

    `None` where nothing says that the identity was removed: a Patient ID is then no matter for a manifest. Nor is one
    that no pseudonym looks like: longer than LO allows (PS3.5 6.2), or with controls in it.

    Raises:
        InputError: a file cannot be read.
    """
    from edgemed.imaging.deid.deidentify import silent_pydicom
    from edgemed.imaging.dicom import is_dicom, open_dicom

    for path in sample.files:
        if is_dicom(path):
            dataset = open_dicom(path).dataset
            with silent_pydicom():
                patient = str(dataset.get("PatientID", "") or "").strip()
            plausible = 0 < len(patient) <= _LONGEST_ID and patient.isprintable()
            return patient if plausible and _identity_removed(dataset) else None
    return None


def _identity_removed(dataset: Dataset) -> bool:
    return str(dataset.get("PatientIdentityRemoved", "")).strip().upper() == "YES"
