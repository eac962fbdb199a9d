"""An answer, or the reason why there is none, becomes files in the spool and rows in the journal, at once."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Final

from edgemed import __version__
from edgemed.base.hashing import sha256_bytes
from edgemed.base.runner import RunnerInfo
from edgemed.imaging.results.content import Author, Content, ResultFile
from edgemed.serve.config import Config
from edgemed.serve.config.models import ModelSection
from edgemed.serve.journal.records import NewResult, add_results, finish_if_delivered, move_task
from edgemed.serve.models.served import Served
from edgemed.serve.outlets.plan import made, makes_dicom, wanted
from edgemed.serve.services import Services
from edgemed.serve.states import Event, State

log = logging.getLogger(__name__)

NOTICE: Final = ("sr", "json")
"""What says that something is not analysed."""


def kinds_of(section: ModelSection, *, answered: bool) -> tuple[str, ...]:
    """Kinds of results that are made of an answer, or of the reason why there is none."""
    if answered:
        return made(section)
    return NOTICE if section.notify_refusals else ()


def destinations_of(config: Config, section: ModelSection, kinds: Sequence[str]) -> dict[str, Sequence[str]]:
    """Which of them go where."""
    return {
        destination.name: tuple(kind for kind in wanted(destination) if kind in kinds)
        for destination in config.destinations
        if destination.name in section.send_to
    }


def deliver(services: Services, section: ModelSection, task: int, content: Content, digest: str) -> State | None:
    """Write the results, then tell the journal in one change; the task is answered when this returns.

    What was written before a crash in between is written again, under the same names.

    Returns:
        Where the task has ended, if it has: nothing of it is to be delivered. `None` while it goes on.

    Raises:
        EdgemedError: the disk or the journal did not take it.
    """
    from edgemed.imaging.results import make_results

    kinds = kinds_of(section, answered=content.refusal is None)
    files = make_results(content, kinds) if kinds else []
    new = [_written(services, task, file) for file in files]
    where = destinations_of(services.config, section, kinds)
    event, reason = (Event.ANSWER, "") if content.refusal is None else (Event.DECLINE, content.refusal)

    def enter(connection: sqlite3.Connection) -> State | None:
        add_results(connection, task, new, where)
        move_task(connection, task, event, reason, digest=digest)
        return finish_if_delivered(connection, task)

    return services.journal.write(enter)


def author_of(services: Services, served: Served, info: RunnerInfo | None = None) -> Author:
    """Who says it: the model as it answered, or as it would answer now."""
    info = info or served.info
    manifest, daemon = served.bundle.manifest, services.config.daemon
    return Author(
        model=served.name,
        version=f"{manifest.name} {manifest.created}",
        digest=served.bundle.digest,
        precision=info.precision,
        backend=info.backend,
        device=info.device,
        station=daemon.name,
        software=f"edgemed {__version__}",
        intended_use=manifest.intended_use,
        research_only=daemon.research_use_only,
    )


def warm(services: Services) -> None:
    """Write results of each model for nobody: the first patient need not wait a second for what libraries load.

    Where a model's answers are no DICOM objects, nothing is loaded for them.
    What goes wrong is logged: whatever it is, the first task will show it.
    """
    from edgemed.imaging.results.rehearsal import rehearse

    for name in services.models.names():
        served = services.models.get(name)
        if not makes_dicom(served.section):
            continue
        answer, notice = (kinds_of(served.section, answered=answered) for answered in (True, False))
        try:
            rehearse(author_of(services, served), answer, notice, services.spool.new())
        except Exception as error:
            log.warning("results of %s could not be rehearsed: %s", name, type(error).__name__)


def _written(services: Services, task: int, file: ResultFile) -> NewResult:
    path = services.spool.write_result(task, file.name, file.data)
    return NewResult(file.kind, path, sha256_bytes(file.data), len(file.data), file.sop_class, file.sop_instance)
