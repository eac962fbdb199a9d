"""Which models an object is for: the lines of `[[models]].match`, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgemed.base.errors import InputError
from edgemed.serve.config import Config
from edgemed.serve.config.models import Match, ModelSection


@dataclass(frozen=True)
class Traits:
    """Of an object: how it came, and what it shows. '' is never what a line asks for."""

    inlet: str
    peer: str = ""
    called: str = ""
    sop_class: str = ""
    modality: str = ""
    body_part: str = ""
    series_description: str = ""


def unmet(match: Match, traits: Traits) -> str | None:
    """The first line that an object does not meet, as words for people; `None` where it meets all."""
    from edgemed.imaging.dicom.describe import sop_class_uid

    if match.called and traits.called not in match.called:
        return "called AE title"
    if match.calling and traits.peer not in match.calling:
        return "calling AE title"
    if match.inlets and traits.inlet not in match.inlets:
        return "inlet"
    if match.sop_classes and traits.sop_class not in map(sop_class_uid, match.sop_classes):
        return "SOP class"
    if match.modalities and not _one_of(traits.modality, match.modalities):
        return "modality"
    if match.body_parts and not _one_of(traits.body_part, match.body_parts):
        return "body part"
    if match.series_description is not None and not _like(traits.series_description, match.series_description):
        return "series description"
    return None


def names_class(match: Match, sop_class: str) -> bool:
    """Whether a model asks for a SOP class by name: for what is no image unless somebody says so."""
    from edgemed.imaging.dicom.describe import sop_class_uid

    return sop_class in map(sop_class_uid, match.sop_classes)


def wanted_by(models: Sequence[ModelSection], traits: Traits) -> tuple[list[ModelSection], str]:
    """The models that an object is for; where there are none, why, as a sentence without a name or text of it."""
    reasons = {model.name: unmet(model.match, traits) for model in models}
    wanting = [model for model in models if reasons[model.name] is None]
    if wanting:
        return wanting, ""
    return [], "No model is for it: " + "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) + "."


def check_matches(config: Config) -> None:
    """See that what models ask for can be.

    Raises:
        InputError: a SOP class that does not exist, or an inlet that is not configured.
    """
    from edgemed.imaging.dicom.describe import sop_class_uid

    inlets = {"dicom", "stow", *(folder.name for folder in config.folders)}
    for model in config.models:
        for name in model.match.sop_classes:
            sop_class_uid(name)
        if unknown := set(model.match.inlets) - inlets:
            raise InputError(
                f"Model {model.name} is for what comes from {min(unknown)}, which is no inlet.",
                f"There are: {', '.join(sorted(inlets))}.",
            )


def _one_of(value: str, allowed: Sequence[str]) -> bool:
    return value.casefold() in (text.casefold() for text in allowed)


def _like(value: str, pattern: str) -> bool:
    """With * and ?; brackets are themselves."""
    return fnmatchcase(value.casefold(), pattern.casefold().replace("[", "[[]"))
