"""A modality that tells of its procedure steps: pynetdicom as the SCU, over a real association."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE

from tests.serve import kit
from tests.serve.canary import MARK
from tests.serve.dicom import rig
from tests.waiting import wait_for

MPPS = "1.2.840.10008.3.1.2.3.3"
MODALITY = {**rig.MODALITY, "may": ("echo", "store", "mpps")}


def begun(*studies: str, **attributes: Any) -> Dataset:
    """The data set of an N-CREATE, with all that a modality tells of a patient."""
    ds = Dataset()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = f"{MARK}^A", MARK, "19700101", "F"
    ds.PerformedProcedureStepID, ds.PerformedStationAETitle, ds.PerformedStationName = MARK, "CT1", MARK
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = "20261127", "101112"
    ds.PerformedProcedureStepEndDate = ds.PerformedProcedureStepEndTime = ""
    ds.PerformedProcedureStepStatus, ds.PerformedProcedureStepDescription = "IN PROGRESS", MARK
    ds.Modality, ds.StudyID, ds.PerformedSeriesSequence = "CT", MARK, []
    ds.ScheduledStepAttributesSequence = []
    for study in studies or ("1.1",):
        item = Dataset()
        item.StudyInstanceUID, item.AccessionNumber, item.RequestedProcedureDescription = study, MARK, MARK
        ds.ScheduledStepAttributesSequence.append(item)
    return changed(ds, attributes)


def ended(series: dict[str, list[str]], status: str = "COMPLETED", **attributes: Any) -> Dataset:
    """The data set of the last N-SET."""
    ds = Dataset()
    ds.PerformedProcedureStepStatus = status
    ds.PerformedProcedureStepEndDate, ds.PerformedProcedureStepEndTime = "20261127", "111213"
    ds.PerformedSeriesSequence = []
    for uid, images in series.items():
        item = Dataset()
        item.SeriesInstanceUID, item.SeriesDescription, item.ProtocolName, item.OperatorsName = uid, MARK, MARK, MARK
        item.ReferencedImageSequence = []
        for image in images:
            reference = Dataset()
            reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = kit.CT, image
            item.ReferencedImageSequence.append(reference)
        ds.PerformedSeriesSequence.append(item)
    return changed(ds, attributes)


def changed(ds: Dataset, attributes: dict[str, Any]) -> Dataset:
    """Without those that are `None`."""
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


class Modality:
    """The SCU of steps."""

    def __init__(self, port: int, calling: str = "CT1", *classes: str) -> None:
        ae = AE(calling)
        for uid in (MPPS, *classes):
            ae.add_requested_context(uid, rig.EXPLICIT)

        def associated() -> Any:  # again where pynetdicom misses the answer, as it may on a busy machine
            association = ae.associate("127.0.0.1", port, ae_title="EDGEMED")
            return association if association.is_established else None

        self.association = wait_for(associated, "an association")

    def __enter__(self) -> Modality:
        return self

    def __exit__(self, *_: object) -> None:
        self.association.release()

    def create(self, uid: str | None, ds: Dataset | None = None) -> Dataset:
        status: Dataset = self.association.send_n_create(begun() if ds is None else ds, MPPS, uid)[0]
        return status

    def set(self, uid: str, ds: Dataset) -> Dataset:
        status: Dataset = self.association.send_n_set(ds, MPPS, uid)[0]
        return status
