"""Whether images name somebody: what a bundle keeps of them, it keeps in plain view."""

from __future__ import annotations

from dataclasses import dataclass

from edgemed.imaging.sources import Sample

_LONGEST_ID = 64  # characters


@dataclass(frozen=True)
class Declaration:
    """What the header of a DICOM image says of its patient.

    Attributes:
        removed: Patient Identity Removed is YES.
        pseudonym: Patient ID of an image whose identity was removed, which `edgemed calibrate` makes the patient's
            pseudonym. `None` elsewhere: a Patient ID is then no matter for a manifest. Nor is one that no pseudonym
            looks like: longer than LO allows (PS3.5 6.2), or with controls in it.
        burned_in: why its pixels may show a name; `None` where nothing speaks for it.
    """

    removed: bool
    pseudonym: str | None
    burned_in: str | None


def declaration(sample: Sample) -> Declaration | None:
    """What the first DICOM file of a sample says; other formats do not say.

    Raises:
        InputError: the file cannot be read.
    """
    from edgemed.imaging.deid.deidentify import silent_pydicom
    from edgemed.imaging.deid.regions import burned_in
    from edgemed.imaging.dicom import is_dicom
    from edgemed.imaging.dicom.file import refusals
    from edgemed.imaging.dicom.header import read_header

    found = next((path for path in sample.files if is_dicom(path)), None)
    if found is None:
        return None
    with refusals(found), silent_pydicom():
        dataset = read_header(found).dataset
        removed = str(dataset.get("PatientIdentityRemoved", "")).strip().upper() == "YES"
        patient = str(dataset.get("PatientID", "") or "").strip()
        plausible = 0 < len(patient) <= _LONGEST_ID and patient.isprintable()
        return Declaration(removed, patient if removed and plausible else None, burned_in(dataset))


def pseudonym(sample: Sample) -> str | None:
    """The pseudonym that a sample declares; raises what `declaration` raises."""
    found = declaration(sample)
    return None if found is None else found.pseudonym
