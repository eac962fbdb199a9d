"""Which results go where: what a destination can carry, what a model makes, and what the site wants of it.

The JSON form is made of every answer, whatever `results` says: it is small, and webhooks, HL7 and folders live on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgemed.serve.config import Config
from edgemed.serve.config.destinations import Destination
from edgemed.serve.config.models import ModelSection

DICOM: Final = ("sr", "seg", "sc", "gsps")
IMAGE: Final = "image"
"""Kind of an input that is sent on, byte for byte, to destinations with `forward = true`."""

_CARRIES: Final[dict[str, tuple[str, ...]]] = {
    "dicom": DICOM,
    "dicomweb": DICOM,
    "webhook": ("json",),
    "hl7": ("json",),
    "folder": (*DICOM, "json"),
}
_FORWARDS: Final = ("dicom", "dicomweb", "folder")


def made(model: ModelSection) -> tuple[str, ...]:
    """Kinds of results that are made of each answer of a model: those of its section, and always JSON."""
    return tuple(dict.fromkeys((*model.results, "json")))


def makes_dicom(model: ModelSection) -> bool:
    """Whether answers of a model become DICOM objects."""
    return not set(DICOM).isdisjoint(made(model))


def destinations(config: Config, model: ModelSection) -> dict[str, Sequence[str]]:
    """Kinds of results by the destination that takes them: what `records.add_results` wants.

    Args:
        config: of the daemon.
        model: whose results they are.
    """
    kinds = made(model)
    return {
        destination.name: tuple(kind for kind in wanted(destination) if kind in kinds)
        for destination in config.destinations
        if destination.name in model.send_to
    }


def wanted(destination: Destination) -> tuple[str, ...]:
    """Kinds of results that a destination takes; images aside."""
    carries = _CARRIES[destination.kind]
    return carries if destination.results is None else tuple(kind for kind in carries if kind in destination.results)


def problem(config: Config) -> str | None:
    """What of a configuration could never be delivered, as a sentence; `None` where all can."""
    by_name = {destination.name: destination for destination in config.destinations}
    for destination in config.destinations:
        carries = _CARRIES[destination.kind]
        if never := sorted(set(destination.results or ()) - set(carries)):
            return f"destination {destination.name} is of kind {destination.kind}, which cannot carry {never[0]}"
        if destination.forward and destination.kind not in _FORWARDS:
            return f"destination {destination.name} is of kind {destination.kind}, which cannot carry images"
    for model in config.models:
        kinds = made(model)
        for name in model.send_to:
            if not set(wanted(by_name[name])) & set(kinds):
                return f"model {model.name} makes {', '.join(kinds)}, none of which destination {name} takes"
    return None
