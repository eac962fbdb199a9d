"""Settings of a site with their defaults, as the schema of `bedside.toml` has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgemed.serve.config import daemon, destinations, inlets, network
from scripts.conformance.tables import duration, size, table

_SECTIONS: Final[dict[str, type[BaseModel]]] = {
    "dicom": inlets.DicomSection,
    "peer": inlets.Peer,
    "tls": network.Tls,
    "dicom_destination": destinations.DicomDestination,
    "dicomweb_destination": destinations.DicomWebDestination,
    "hl7_destination": destinations.Hl7Destination,
    "retry": destinations.Retry,
    "http": inlets.HttpSection,
    "spool": daemon.SpoolSection,
    "audit": daemon.AuditSection,
}


def settings(section: type[BaseModel]) -> str:
    """Every key of a section."""
    return table(
        ("key", "default", "meaning"),
        [
            (f"`{field.alias or name}`", _default(name, field), (field.description or "").replace("None:", "none:"))
            for name, field in section.model_fields.items()
        ],
    )


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    return _written(name, field.default)


def _written(name: str, value: Any) -> str:
    if value is None or value in ((), ""):
        return "none"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if name.endswith("_ns"):
        return duration(value)
    if name.endswith("_bytes"):
        return size(value)
    if isinstance(value, tuple):
        return ", ".join(f"`{each}`" for each in value)
    return f"`{value}`"


FILLS: Final[dict[str, Callable[[], str]]] = {
    f"settings_{name}": lambda section=section: settings(section)  # type: ignore[misc]
    for name, section in _SECTIONS.items()
}
