"""The journal held against the archives: what it calls delivered is there.

PACS are asked by C-FIND, DICOMweb services by QIDO-RS; what was delivered elsewhere (webhooks, HL7, folders) cannot be
asked for.
"""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgemed.base.errors import ResourceError
from edgemed.serve.audit.left import Leaver
from edgemed.serve.audit.trail import Audit, AuditEvent
from edgemed.serve.clock import stamp
from edgemed.serve.config import Config
from edgemed.serve.config.destinations import Destination
from edgemed.serve.journal.file import beside
from edgemed.serve.journal.recovery import JOURNAL
from edgemed.serve.outlets.courier import Unavailable

Step = Callable[[], None]

_DELIVERED = """
SELECT delivery.id, delivery.destination, result.id AS result, result.task, result.kind, result.sop_instance,
       result.path,
       coalesce((SELECT object.study FROM part JOIN object ON object.id = part.object
                 WHERE part.task = result.task ORDER BY object.id LIMIT 1), '') AS study
FROM delivery JOIN result ON result.id = delivery.result
WHERE delivery.state = 'delivered' AND delivery.destination = ? AND result.sop_instance <> '' ORDER BY delivery.id
"""


@dataclass(frozen=True)
class Delivered:
    """A result that the journal calls delivered.

    Attributes:
        delivery: its number.
        destination: where to.
        result: its number.
        task: whose it is.
        kind: of the result.
        sop_instance: UID.
        study: UID; '' where it is not known.
        file: of the result in the spool; `None` where it was deleted after its time.
    """

    delivery: int
    destination: str
    result: int
    task: int
    kind: str
    sop_instance: str
    study: str
    file: Path | None


@dataclass(frozen=True)
class Query:
    """What is asked of an archive.

    Attributes:
        subject: SOP class of the query, or the URL of the service.
        data: the data set, or the path with its query.
        syntax: of the data set; '' of a path.
    """

    subject: str
    data: bytes
    syntax: str = ""


class Archive(Protocol):
    """Somebody who can be asked what he has."""

    def query(self, one: Delivered) -> Query:
        """How it will be asked, for the audit trail."""
        ...

    def has(self, one: Delivered) -> bool:
        """Whether it is there.

        Raises:
            Unavailable: that was not to be learnt.
        """
        ...


@dataclass
class Comparison:
    """What the archives say.

    Attributes:
        asked: results asked for, by destination.
        missing: of these, what is not there.
    """

    asked: dict[str, int] = field(default_factory=dict)
    missing: list[Delivered] = field(default_factory=list)


def hold_against(config: Config, step: Step = lambda: None) -> Comparison:
    """Ask every archive of a configuration for everything that it has taken.

    Args:
        config: of the daemon, which may run.
        step: called for each result that was asked for.

    Raises:
        InputError: a certificate or token cannot be used.
        ResourceError: an archive cannot be asked, or the journal not read.
    """
    found = Comparison()
    for destination in config.destinations:
        if destination.kind not in ("dicom", "dicomweb"):
            continue
        results = _delivered(config, destination)
        found.asked[destination.name] = len(results)
        if not results:
            continue
        try:
            with Leaver(config.daemon.state) as audit, _archive(config, destination) as archive:
                for one in results:
                    _enter(audit, destination.name, archive.query(one))
                    if not archive.has(one):
                        found.missing.append(one)
                    step()
        except Unavailable as error:
            raise ResourceError(
                f"{destination.name} cannot be asked what it has: {error.reason}",
                "Let it answer queries of this machine, and try again.",
            ) from error
    return found


def _enter(audit: Audit, name: str, query: Query) -> None:
    """PS3.15 A.5.3.10: that it was asked, whatever is answered."""
    asked, at = b64encode(query.data).decode(), f"Asked at {stamp()}."
    audit.record(AuditEvent("queried", user=name, detail=at, subject=query.subject, query=asked, syntax=query.syntax))


def _archive(config: Config, destination: Destination) -> AbstractContextManager[Archive]:
    if destination.kind == "dicom":
        from edgemed.serve.dicom.find import Finder

        return Finder(config, destination)
    assert destination.kind == "dicomweb"
    from edgemed.serve.outlets.qido import QidoClient

    return closing(QidoClient(destination))


def _delivered(config: Config, destination: Destination) -> Sequence[Delivered]:
    root = config.daemon.state
    with beside(root / JOURNAL, read_only=True) as connection:
        return list(_rows(connection, root, destination.name))


def _rows(connection: sqlite3.Connection, root: Path, destination: str) -> Iterator[Delivered]:
    for row in connection.execute(_DELIVERED, (destination,)):
        yield Delivered(
            delivery=row["id"],
            destination=row["destination"],
            result=row["result"],
            task=row["task"],
            kind=row["kind"],
            sop_instance=row["sop_instance"],
            study=row["study"],
            file=root / row["path"] if row["path"] else None,
        )
