"""What all reports of a model at this bedside have in common: highdicom makes it, once."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from edgemed.imaging.results import clean, part10, words
from edgemed.imaging.results.content import Author
from edgemed.imaging.results.items import Item, plain
from edgemed.imaging.results.uids import uid_of


def skeleton(author: Author, *, complete: bool) -> Item:
    """A report without images and measurements; not to be changed.

    Args:
        author: where and how its model runs is no part of it, which may change from one answer to the next.
        complete: whether something was analysed.
    """
    return _made(replace(author, digest="", precision="", backend="", device="", intended_use=""), complete)


@lru_cache(maxsize=64)
def _made(author: Author, complete: bool) -> Item:
    from highdicom import sr
    from pydicom.dataset import Dataset

    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid_of("image")
    image.StudyInstanceUID, image.SeriesInstanceUID = uid_of("study"), uid_of("series")
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(image, keyword, "")
    image.StudyDate = image.StudyTime = image.ReferringPhysicianName = ""
    tracking = sr.TrackingIdentifier(uid_of("group"), "group")
    document = sr.MeasurementReport(
        observation_context=_observer(author),
        procedure_reported=words.coded(words.PROCEDURE),
        imaging_measurements=[sr.MeasurementsAndQualitativeEvaluations(tracking)],
    )
    made = plain(
        sr.ComprehensiveSR(
            evidence=[image],
            content=document[0],
            series_instance_uid=uid_of("report"),
            series_number=1,
            sop_instance_uid=uid_of("report", 1),
            instance_number=1,
            **part10.made_by(author),
            is_complete=complete,
            is_final=False,
        )
    )
    made.put(ContentSequence=made.value("ContentSequence")[:-1])
    return made


def _observer(author: Author) -> Any:
    """The model at this bedside (TID 1004)."""
    from highdicom import sr

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of("device", author.station, author.model),
        name=clean.plain(author.model),
        manufacturer_name=words.MANUFACTURER,
        model_name=clean.plain(author.version) or clean.plain(author.model),
        serial_number=clean.plain(author.station) or None,
    )
    return sr.ObservationContext(sr.ObserverContext(sr.CodedConcept("121007", "DCM", "Device"), device))
