"""How the page says things: times, ages, the light, an entry of the audit trail."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET

_LIGHTS: Final = {"ready": "Ready", "degraded": "Ready, with a reservation", "not-ready": "Not analysing"}
_OUTCOMES: Final = {"0": "success", "4": "minor failure", "8": "serious failure", "12": "major failure"}


def when(stamp: str | None) -> str:
    """A moment of the journal: day and time to the second, UTC."""
    return "" if not stamp else stamp[:19].replace("T", " ")


def age(seconds: float) -> str:
    """A time that has passed, in one unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def ms(value: float | None) -> str:
    """Milliseconds, to three digits."""
    if value is None:
        return "n/a"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def light(name: str) -> str:
    """What stands beside the light: colour is never the only sign."""
    return _LIGHTS[name]


def entry(message: str) -> dict[str, str]:
    """An audit message as a row; what is none is an empty one."""
    row = dict.fromkeys(("at", "event", "kind", "outcome", "user", "address", "detail"), "")
    try:
        if "<!" in message:  # ours have no document type, and no entities to expand
            return row
        root = ET.fromstring(message)  # noqa: S314 - see above
    except ET.ParseError:
        return row
    identification = root.find("EventIdentification")
    if identification is None:
        return row
    row["at"] = when(identification.get("EventDateTime"))
    row["outcome"] = _OUTCOMES.get(identification.get("EventOutcomeIndicator", ""), "")
    row["event"] = _attribute(identification.find("EventID"), "originalText")
    row["kind"] = _attribute(identification.find("EventTypeCode"), "originalText")
    row["detail"] = identification.findtext("EventOutcomeDescription", "")
    for user in root.iter("ActiveParticipant"):  # ourselves, then who else took part
        row["user"], row["address"] = user.get("UserID", ""), user.get("NetworkAccessPointID", "")
    return row


def _attribute(element: ET.Element | None, name: str) -> str:
    return "" if element is None else element.get(name, "")
