"""An image in which every text names the patient."""

from __future__ import annotations

from pydicom.dataset import Dataset

from tests.serve import kit

MARK = "CANARYZQX"


def marked(level: int, **attributes: object) -> Dataset:
    """An image whose every text holds the mark, where its kind does not decide what is done with it."""
    ds = kit.image(level=level, **attributes)
    for keyword in ("PatientName", "PatientID", "ReferringPhysicianName", "AccessionNumber", "StudyID", "Manufacturer"):
        setattr(ds, keyword, MARK)
    for keyword, value in {
        "InstitutionName": MARK,
        "OperatorsName": f"{MARK}^{MARK}",
        "PatientComments": MARK,
        "StudyDescription": MARK,
        "SeriesDescription": MARK,
        "StationName": MARK,
        "ProtocolName": MARK,
        "ImageComments": MARK,
        "PatientAddress": MARK,
        "BodyPartExamined": MARK,
    }.items():
        setattr(ds, keyword, value)
    return ds
