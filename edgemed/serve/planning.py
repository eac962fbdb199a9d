"""From the header of an object to what is to be done with it. Nothing is changed here."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgemed.base.errors import InputError
from edgemed.serve.config import Config
from edgemed.serve.config.destinations import Destination, DicomDestination, FolderDestination
from edgemed.serve.config.models import Level, ModelSection
from edgemed.serve.journal.routes import Route, Want
from edgemed.serve.matching import Traits, names_class, wanted_by

if TYPE_CHECKING:
    from edgemed.imaging.dicom.describe import Described

MANUFACTURER: Final = "edgemed"
"""Of our results. One that comes back, from here or from another bedside, is not analysed again."""


class Planner:
    """By the rules of one configuration."""

    def __init__(self, config: Config) -> None:
        self._models = config.models
        self._forwards = [destination for destination in config.destinations if destination.forward]

    def plan(self, row: sqlite3.Row, path: Path, found: Described | None = None) -> Route:
        """What an object of the journal is for.

        Args:
            row: of the table `object`.
            path: of its file.
            found: what it says of itself; it is read where nobody has.

        Raises:
            InputError: its bytes make no sense; the text has no value of them.
            OSError: it cannot be read.
        """
        if not row["sop_class"]:
            return self._plan_picture(row, path)
        from edgemed.imaging.dicom.describe import describe

        forward = tuple(to.name for to in self._forwards if not _came_from(row, to))
        try:
            found = found or describe(path)
        except InputError as error:
            if not forward:
                raise
            reason = f"It cannot be read: {error.what} It is only sent on."
            return Route(row["id"], forward=forward, reason=reason, unreadable=True)
        if (found.sop_instance, found.sop_class) != (row["sop_instance"], row["sop_class"]):
            raise InputError("it is not the object that it was sent as.", "Correct the file.")
        models, reason = self._wanting(found, row)
        uids: dict[Level, str] = {"instance": found.sop_instance, "series": found.series, "study": found.study}
        counts: dict[Level, int | None] = {"instance": None, "series": found.in_series, "study": found.in_study}
        wants = tuple(
            Want(model.name, model.level, uids[model.level], model.completeness.reopen, counts[model.level])
            for model in models
            if uids[model.level]
        )
        if models and not wants:
            reason = f"It has no UID of its {models[0].level}."
        return Route(row["id"], found.study, found.series, found.syntax, wants, forward, reason)

    def _wanting(self, found: Described, row: sqlite3.Row) -> tuple[list[ModelSection], str]:
        """Models that a DICOM object is for; where there are none, why."""
        from edgemed.imaging.dicom.describe import DERIVED

        if not found.has_pixels:
            return [], "It is no image: it holds no pixels."
        if found.manufacturer == MANUFACTURER:
            return [], "It is a result of edgemed, not an image of a patient."
        traits = Traits(
            inlet=row["inlet"],
            peer=row["peer"],
            called=row["called"],
            sop_class=found.sop_class,
            modality=found.modality,
            body_part=found.body_part,
            series_description=found.series_description,
        )
        models, reason = wanted_by(self._models, traits)
        if found.sop_class in DERIVED:
            models = [model for model in models if names_class(model.match, found.sop_class)]
            reason = "" if models else f"It is {DERIVED[found.sop_class]}, not an image of a patient."
        return models, reason

    def _plan_picture(self, row: sqlite3.Row, path: Path) -> Route:
        """PNG and the like belong to no series, and say nothing that a line could ask for but where they came from."""
        path.stat()
        models, reason = wanted_by(self._models, Traits(row["inlet"], row["peer"], row["called"]))
        alone = [model for model in models if model.level == "instance"]
        wants = tuple(Want(model.name, model.level, row["sop_instance"]) for model in alone)
        if models and not alone:
            reason = "It is no DICOM file: it belongs to no series."
        forward = tuple(to.name for to in self._forwards if isinstance(to, FolderDestination))
        return Route(row["id"], wants=wants, forward=forward, reason=reason)


def _came_from(row: sqlite3.Row, to: Destination) -> bool:
    """What a PACS sends here to have it analysed, it has."""
    return isinstance(to, DicomDestination) and row["peer"] == to.ae_title
