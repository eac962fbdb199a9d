"""Entries as DICOM audit messages (PS3.15 A.5, schema of A.5.1): XML without line breaks, so that one fits a line."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

from edgemed.base.text import printable
from edgemed.serve.audit.trail import AuditEvent, Kind, Result

_OUTCOMES: Final[dict[Result, str]] = {"success": "0", "minor": "4", "serious": "8", "major": "12"}
_MOST_INSTANCES: Final = 1000
_LONGEST: Final = 1024  # characters of a free text
NOBODY: Final = "UNKNOWN"
"""Patient ID in every message: its tables demand a patient, and what the daemon keeps names none."""


@dataclass(frozen=True)
class Coded:
    """A code of CID 400 to 405 (PS3.16), or of PS3.15 A.5.1.2.4, which has those of RFC 3881."""

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
        asks: whether who is named is the requestor; else the daemon is.
        patient: whether the event's table has a patient.
        media: of what was imported.
    """

    event: Coded
    type: Coded | None
    action: str
    user: Coded | None = None
    asks: bool = True
    patient: bool = False
    media: Coded | None = None


_APPLICATION = Coded("110100", "Application Activity")
_TRANSFERRED = Coded("110104", "DICOM Instances Transferred")
_IMPORT = Coded("110107", "Import")
_ALERT = Coded("110113", "Security Alert")
_SOURCE, _DESTINATION = Coded("110153", "Source Role ID"), Coded("110152", "Destination Role ID")
_MEDIA = Coded("110155", "Source Media")
_LAUNCHER = Coded("110151", "Application Launcher")
_DAEMON = Coded("110150", "Application")
_STUDY, _CLASS = Coded("110180", "Study Instance UID"), Coded("110181", "SOP Class UID")
_PATIENT, _URI = Coded("2", "Patient Number", "RFC-3881"), Coded("12", "URI", "RFC-3881")
_PERSON, _SYSTEM = "1", "2"  # ParticipantObjectTypeCode
# ParticipantObjectTypeCodeRole; PS3.15 has studies and queries among the reports
_IS_PATIENT, _IS_REPORT, _IS_SECURITY = "1", "3", "13"
_OTHER_END: Final = {_SOURCE: _DESTINATION, _DESTINATION: _SOURCE, _MEDIA: _DESTINATION}  # the daemon's own role

ROWS: Final[dict[Kind, Row]] = {
    "start": Row(_APPLICATION, Coded("110120", "Application Start"), "E", _LAUNCHER),
    "stop": Row(_APPLICATION, Coded("110121", "Application Stop"), "E", _LAUNCHER),
    "association": Row(_ALERT, Coded("110126", "Node Authentication"), "E", asks=False),
    "received": Row(_TRANSFERRED, None, "C", _SOURCE, patient=True),
    "imported": Row(_IMPORT, None, "C", _MEDIA, asks=False, patient=True, media=Coded("110037", "URI")),
    "sent": Row(_TRANSFERRED, None, "R", _DESTINATION, asks=False, patient=True),
    "queried": Row(Coded("110112", "Query"), None, "E", _DESTINATION, asks=False),
    "consulted": Row(Coded("110101", "Audit Log Used"), None, "R"),
    "accessed": Row(Coded("110103", "DICOM Instances Accessed"), None, "R", patient=True),
    "login": Row(Coded("110114", "User Authentication"), Coded("110122", "Login"), "E"),
    "model": Row(_ALERT, Coded("110131", "Software Configuration"), "U"),
    "config": Row(_ALERT, Coded("110131", "Software Configuration"), "U"),
    "retry": Row(_ALERT, Coded("110132", "Use of Restricted Function"), "E"),
}


_RECEIVED: Final = {(ROWS[kind].event.value, ROWS[kind].action) for kind in ("received", "imported")}


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
    asks = bool(event.user) and row.asks
    _participant(root, station, requestor=not asks, role=_ours(row))
    if event.user:
        other = _participant(root, event.user, requestor=asks, role=row.user, address=event.address)
        if row.media is not None:
            _code(SubElement(other, "MediaIdentifier"), "MediaType", row.media)
    SubElement(root, "AuditSourceIdentification", {"AuditSourceID": station})
    if event.study:
        _study(root, event)
    else:
        for name in event.instances[:_MOST_INSTANCES]:  # pictures that are no DICOM are of no study
            _object(root, name, _URI, _SYSTEM, _IS_REPORT, name="Picture")
    if row.patient:
        _object(root, NOBODY, _PATIENT, _PERSON, _IS_PATIENT, name=NOBODY)
    if event.kind == "consulted":
        _object(root, event.subject, _URI, _SYSTEM, _IS_SECURITY, name="Security Audit Log")
    if event.query:
        _query(root, event)
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
    if code is None or identification is None:
        return
    if (code.get("csd-code"), identification.get("EventActionCode")) in _RECEIVED:
        yield from (each.get("UID", "") for each in root.iter("Instance"))
        objects = (each.get("ParticipantObjectID", "") for each in root.iter("ParticipantObjectIdentification"))
        yield from (name for name in objects if name != NOBODY)


def _participant(root: Element, user: str, *, requestor: bool, role: Coded | None = None, address: str = "") -> Element:
    attributes = {"UserID": _text(user), "UserIsRequestor": str(requestor).lower()}
    if address:
        attributes |= {"NetworkAccessPointID": _text(address), "NetworkAccessPointTypeCode": "2"}  # an IP address
    participant = SubElement(root, "ActiveParticipant", attributes)
    if role is not None:
        _code(participant, "RoleIDCode", role)
    return participant


def _object(root: Element, value: str, kind: Coded, type_code: str, role: str, *, name: str = "") -> Element:
    """A participant object; the schema wants a name where there is no query."""
    attributes = {
        "ParticipantObjectID": _text(value),
        "ParticipantObjectTypeCode": type_code,
        "ParticipantObjectTypeCodeRole": role,
    }
    made = SubElement(root, "ParticipantObjectIdentification", attributes)
    _code(made, "ParticipantObjectIDTypeCode", kind)
    if name:
        SubElement(made, "ParticipantObjectName").text = name
    return made


def _query(root: Element, event: AuditEvent) -> None:
    asked = _object(root, event.subject, _CLASS if event.syntax else _URI, _SYSTEM, _IS_REPORT)
    SubElement(asked, "ParticipantObjectQuery").text = event.query
    if event.syntax:
        value = b64encode(event.syntax.encode()).decode()
        SubElement(asked, "ParticipantObjectDetail", {"type": "TransferSyntax", "value": value})


def _study(root: Element, event: AuditEvent) -> None:
    study = _object(root, event.study, _STUDY, _SYSTEM, _IS_REPORT, name="Study")
    if event.instances:
        description = SubElement(study, "ParticipantObjectDescription")
        classes = SubElement(description, "SOPClass", {"NumberOfInstances": str(len(event.instances))})
        for uid in event.instances[:_MOST_INSTANCES]:
            SubElement(classes, "Instance", {"UID": _text(uid)})


def _code(parent: Element, name: str, code: Coded) -> None:
    SubElement(parent, name, {"csd-code": code.value, "codeSystemName": code.system, "originalText": code.meaning})


def _text(text: str) -> str:
    """What came from outside, without what XML or a line cannot hold."""
    return printable(text)[:_LONGEST]
