"""Entries as DICOM audit messages (PS3.15 A.5, schema of A.5.1): XML without line breaks, so that one fits a line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

from edgemed.base.text import printable
from edgemed.serve.audit.trail import AuditEvent, Kind, Result

_OUTCOMES: Final[dict[Result, str]] = {"success": "0", "minor": "4", "serious": "8", "major": "12"}
_MOST_INSTANCES: Final = 1000
_LONGEST: Final = 1024  # characters of a free text


@dataclass(frozen=True)
class Coded:
    """A code of CID 400 to 403 (PS3.16)."""

    value: str
    meaning: str
    system: str = "DCM"


@dataclass(frozen=True)
class Row:
    """How a kind of event is written.

    Attributes:
        event: EventID.
        type: EventTypeCode, where the event has one.
        action: EventActionCode: C create, R read, U update, D delete, E execute.
        user: the role of who is named: the peer that sends, the one that receives, or neither.
    """

    event: Coded
    type: Coded | None
    action: str
    user: Coded | None = None


_APPLICATION = Coded("110100", "Application Activity")
_TRANSFERRED = Coded("110104", "DICOM Instances Transferred")
_ALERT = Coded("110113", "Security Alert")
_SOURCE, _DESTINATION = Coded("110153", "Source Role ID"), Coded("110152", "Destination Role ID")
_LAUNCHER = Coded("110151", "Application Launcher")
_DAEMON = Coded("110150", "Application")
_OTHER_END: Final = {_SOURCE: _DESTINATION, _DESTINATION: _SOURCE}  # the role of the daemon itself

ROWS: Final[dict[Kind, Row]] = {
    "start": Row(_APPLICATION, Coded("110120", "Application Start"), "E", _LAUNCHER),
    "stop": Row(_APPLICATION, Coded("110121", "Application Stop"), "E", _LAUNCHER),
    "association": Row(_ALERT, Coded("110126", "Node Authentication"), "E"),
    "received": Row(_TRANSFERRED, None, "C", _SOURCE),
    "sent": Row(_TRANSFERRED, None, "R", _DESTINATION),
    "accessed": Row(Coded("110103", "DICOM Instances Accessed"), None, "R"),
    "login": Row(Coded("110114", "User Authentication"), Coded("110122", "Login"), "E"),
    "model": Row(_ALERT, Coded("110131", "Software Configuration"), "U"),
    "config": Row(_ALERT, Coded("110131", "Software Configuration"), "U"),
    "retry": Row(_ALERT, Coded("110132", "Use of Restricted Function"), "E"),
}


def message(event: AuditEvent, at: str, station: str) -> str:
    """The XML of one entry.

    Args:
        event: what happened.
        at: when, ISO 8601, UTC.
        station: name of this daemon.
    """
    row = ROWS[event.kind]
    root = Element("AuditMessage")
    outcome = _OUTCOMES[event.result]
    identification = SubElement(
        root,
        "EventIdentification",
        {"EventActionCode": row.action, "EventDateTime": at, "EventOutcomeIndicator": outcome},
    )
    _code(identification, "EventID", row.event)
    if row.type is not None:
        _code(identification, "EventTypeCode", row.type)
    if event.detail:
        SubElement(identification, "EventOutcomeDescription").text = _text(event.detail)
    _participant(root, station, requestor=not event.user, role=_ours(row))
    if event.user:
        _participant(root, event.user, requestor=True, role=row.user, address=event.address)
    SubElement(root, "AuditSourceIdentification", {"AuditSourceID": station})
    if event.study:
        _study(root, event)
    else:
        for name in event.instances[:_MOST_INSTANCES]:
            _file(root, name)
    return tostring(root, encoding="unicode")


def _ours(row: Row) -> Coded:
    return _DAEMON if row.user is None else _OTHER_END.get(row.user, _DAEMON)


def received_in(text: str) -> Iterator[str]:
    """Names of what an entry says to be received; none of another one.

    Raises:
        xml.etree.ElementTree.ParseError: it is none of ours.
    """
    if "<!" in text:  # ours have no document type, and no entities to expand
        return
    root = fromstring(text)  # noqa: S314 - see above
    code, identification = root.find("EventIdentification/EventID"), root.find("EventIdentification")
    row = ROWS["received"]
    if code is None or identification is None or code.get("csd-code") != row.event.value:
        return
    if identification.get("EventActionCode") == row.action:
        yield from (each.get("UID", "") for each in root.iter("Instance"))
        yield from (each.get("ParticipantObjectID", "") for each in root.iter("ParticipantObjectIdentification"))


def _participant(root: Element, user: str, *, requestor: bool, role: Coded | None = None, address: str = "") -> None:
    attributes = {"UserID": _text(user), "UserIsRequestor": str(requestor).lower()}
    if address:
        attributes |= {"NetworkAccessPointID": _text(address), "NetworkAccessPointTypeCode": "2"}  # an IP address
    participant = SubElement(root, "ActiveParticipant", attributes)
    if role is not None:
        _code(participant, "RoleIDCode", role)


def _study(root: Element, event: AuditEvent) -> None:
    study = SubElement(
        root,
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": _text(event.study),
            "ParticipantObjectTypeCode": "2",  # system object
            "ParticipantObjectTypeCodeRole": "3",  # report, which is where PS3.15 puts studies
        },
    )
    _code(study, "ParticipantObjectIDTypeCode", Coded("110180", "Study Instance UID"))
    if event.instances:
        description = SubElement(study, "ParticipantObjectDescription")
        classes = SubElement(description, "SOPClass", {"NumberOfInstances": str(len(event.instances))})
        for uid in event.instances[:_MOST_INSTANCES]:
            SubElement(classes, "Instance", {"UID": _text(uid)})


def _file(root: Element, name: str) -> None:
    """Something that is of no study: a picture that is no DICOM."""
    fields = {
        "ParticipantObjectID": _text(name),
        "ParticipantObjectTypeCode": "2",  # system object
        "ParticipantObjectTypeCodeRole": "3",
    }
    kind = Coded("12", "URI", "RFC-3881")
    _code(SubElement(root, "ParticipantObjectIdentification", fields), "ParticipantObjectIDTypeCode", kind)


def _code(parent: Element, name: str, code: Coded) -> None:
    SubElement(parent, name, {"csd-code": code.value, "codeSystemName": code.system, "originalText": code.meaning})


def _text(text: str) -> str:
    """What came from outside, without what XML or a line cannot hold."""
    return printable(text)[:_LONGEST]
