"""Modality performed procedure steps, as the one who is told (PS3.4 annex F.7): N-CREATE and N-SET.

Success means that the step is in the journal. Of its data set the status and the UIDs of study, series and images are
kept, and nothing else: no name, no date, no description.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from edgemed.base.errors import EdgemedError, InputError
from edgemed.imaging.dicom.syntaxes import Syntax
from edgemed.imaging.dicom.values import items, quiet, text, value
from edgemed.serve.dicom import commands
from edgemed.serve.dicom.association import Asked
from edgemed.serve.dicom.reports import parse_data_set
from edgemed.serve.dicom.store import INVALID_INSTANCE, NOT_AUTHORIZED, SUCCESS, Status
from edgemed.serve.journal.steps import Refusal, Series, StepState, create_step, set_step
from edgemed.serve.routing import LOOP as ROUTER
from edgemed.serve.services import Services

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

log = logging.getLogger(__name__)

INVALID_VALUE: Final = 0x0106
PROCESSING_FAILURE: Final = 0x0110
DUPLICATE_INSTANCE: Final = 0x0111
NO_SUCH_INSTANCE: Final = 0x0112
MISSING_ATTRIBUTE: Final = 0x0120
MISSING_VALUE: Final = 0x0121
RESOURCE_LIMITATION: Final = 0x0213
MAY_NO_LONGER_BE_UPDATED: Final = 0xA710  # Error ID of PS3.4 table F.7.2-2

_STATES: Final = ("IN PROGRESS", "COMPLETED", "DISCONTINUED")
AT_CREATION: Final = (  # of type 1 there (PS3.4 table F.7.2-1), besides what is read below
    "PerformedProcedureStepID",
    "PerformedStationAETitle",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "Modality",
)
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_UID: Final = 64
_ANSWERS: Final[dict[Refusal, Status]] = {
    "duplicate": Status(DUPLICATE_INSTANCE, "There is a step of that UID."),
    "unknown": Status(NO_SUCH_INSTANCE, "There is no step of that UID."),
    "foreign": Status(NOT_AUTHORIZED, "Another application entity has created this step."),
    "ended": Status(
        PROCESSING_FAILURE, "Performed Procedure Step Object may no longer be updated", MAY_NO_LONGER_BE_UPDATED
    ),
    "empty": Status(MISSING_VALUE, "PerformedSeriesSequence is empty."),
    "full": Status(RESOURCE_LIMITATION, "There are too many steps of this peer, or images of them."),
}


class Refused(Exception):
    """A data set that is no step: `status` says why."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.status = Status(code, why)


@dataclass(frozen=True)
class Step:
    """What is read of a data set.

    Attributes:
        state: `None` where it does not say.
        study: '' where it does not say, or names several.
        series: `None` where it does not say; else all of them.
    """

    state: StepState | None
    study: str
    series: Series | None


def take_step(services: Services, asked: Asked) -> Status:
    """Answer an N-CREATE or N-SET."""
    command, peer = asked.command, asked.guest.ae_title
    if not command.sop_instance:
        return Status(INVALID_INSTANCE, "The request does not say which step it is about.")
    creating = command.field == commands.N_CREATE
    try:
        step = read_step(asked.data, asked.context.syntax, creating=creating)
    except Refused as refused:
        return refused.status
    uid = command.sop_instance
    work = (
        partial(create_step, uid=uid, peer=peer, study=step.study, series=step.series or {})
        if creating
        else partial(set_step, uid=uid, peer=peer, state=step.state or "IN PROGRESS", series=step.series)
    )
    try:
        refusal = services.journal.write(work)
    except EdgemedError as error:
        return Status(PROCESSING_FAILURE, error.what)
    if refusal is not None:
        return _ANSWERS[refusal]
    log.info("%s tells of a procedure step: %s", peer, (step.state or "IN PROGRESS").lower())
    services.loops.wake(ROUTER)
    return Status(SUCCESS)


def read_step(data: bytes, syntax: Syntax, *, creating: bool) -> Step:
    """Read the data set of an N-CREATE (`creating`) or N-SET.

    Raises:
        Refused: it does not say what it must; no value of it is in the text.
    """
    with quiet():
        try:
            dataset = parse_data_set(data, syntax)
        except ValueError as error:
            raise Refused(PROCESSING_FAILURE, str(error)) from error
        if creating:
            for keyword in AT_CREATION:
                _needed(dataset, keyword)
        state = _state(dataset, creating=creating)
        study = _study(dataset) if creating else ""
        return Step(state, study, _series(dataset))


def _state(dataset: Dataset, *, creating: bool) -> StepState | None:
    keyword = "PerformedProcedureStepStatus"
    if not creating and keyword not in dataset:
        return None
    _needed(dataset, keyword)
    found = _text(dataset, keyword)
    if found not in (_STATES[:1] if creating else _STATES):
        raise Refused(INVALID_VALUE, f"{keyword} cannot be that here.")
    return cast(StepState, found)


def _study(dataset: Dataset) -> str:
    keyword = "ScheduledStepAttributesSequence"
    _needed(dataset, keyword)
    studies = {_uid(item, "StudyInstanceUID") for item in _items(dataset, keyword)}
    return studies.pop() if len(studies) == 1 else ""


def _series(dataset: Dataset) -> Series | None:
    keyword = "PerformedSeriesSequence"
    if keyword not in dataset:
        return None
    found: dict[str, set[str]] = {}
    for item in _items(dataset, keyword):
        images = found.setdefault(_uid(item, "SeriesInstanceUID"), set())
        images.update(_uid(each, "ReferencedSOPInstanceUID") for each in _items(item, "ReferencedImageSequence"))
    return found


def _needed(dataset: Dataset, keyword: str) -> None:
    """An attribute must be there, with a value."""
    if keyword not in dataset:
        raise Refused(MISSING_ATTRIBUTE, f"{keyword} is missing.")
    try:
        found = value(dataset, keyword)
    except InputError as error:
        raise Refused(INVALID_VALUE, f"{keyword} cannot be read.") from error
    if found is None:
        raise Refused(MISSING_VALUE, f"{keyword} has no value.")


def _uid(dataset: Dataset, keyword: str) -> str:
    _needed(dataset, keyword)
    found = _text(dataset, keyword)
    if len(found) > _LONGEST_UID or not _UID.fullmatch(found):
        raise Refused(INVALID_VALUE, f"{keyword} is no UID.")
    return found


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        return text(dataset, keyword) or ""
    except InputError as error:
        raise Refused(INVALID_VALUE, f"{keyword} is no text.") from error


def _items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    try:
        return items(dataset, keyword)
    except InputError as error:
        raise Refused(INVALID_VALUE, f"{keyword} is no sequence.") from error
