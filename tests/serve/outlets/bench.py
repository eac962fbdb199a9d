"""What tests of outlets need: services without a model, results that wait, and a courier that does as it is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from edgemed.base.hashing import sha256_bytes
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.config import Config
from edgemed.serve.config.destinations import Retry
from edgemed.serve.intake import Intake
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.records import (
    NewObject,
    NewResult,
    add_object,
    add_results,
    move_object,
    move_task,
    open_task,
)
from edgemed.serve.live.board import Board
from edgemed.serve.loops import Loops
from edgemed.serve.metrics import Metrics
from edgemed.serve.outlets.courier import Done, Outcome, Parcel, Pulse
from edgemed.serve.privacy import Pseudonyms
from edgemed.serve.readiness import Readiness
from edgemed.serve.services import Services
from edgemed.serve.spool import Spool
from edgemed.serve.states import Event
from edgemed.serve.timeline import Timelines
from tests.serve import kit
from tests.serve.store import rows

STUDY = "1.2.826.0.1.3680043.9.1"
PACS = {"kind": "dicom", "name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}


@dataclass
class Trail:
    """An audit trail in memory."""

    events: list[AuditEvent] = field(default_factory=list)

    def record(self, event: AuditEvent) -> None:
        self.events.append(event)


@contextmanager
def services(root: Path, *destinations: dict[str, Any], **sections: Any) -> Iterator[Services]:
    """All that lanes use: real journal, spool, alarms, metrics, loops; no model."""
    config: Config = kit.bedside(
        root,
        bundle=root / "none.edgemed",
        models=[{"name": "chest", "bundle": root / "none.edgemed", "send_to": [d["name"] for d in destinations]}],
        destinations=list(destinations),
        **sections,
    )
    spool = Spool(config.daemon.state)
    spool.root.mkdir(parents=True, exist_ok=True)
    spool.prepare()
    with Journal(config.daemon.state / "journal.sqlite3") as journal:
        alarms = Alarms(journal)
        alarms.load()
        metrics = Metrics()
        loops = Loops(lambda name, error: alarms.raise_("loop-failed", f"{name}: {error}", name))
        made = Services(
            config=config,
            spool=spool,
            journal=journal,
            alarms=alarms,
            metrics=metrics,
            readiness=Readiness(),
            loops=loops,
            intake=Intake(config.spool, spool, journal, alarms, metrics),
            models=None,  # type: ignore[arg-type]
            board=Board(),
            audit=Trail(),
            pseudonyms=Pseudonyms(b"0" * 32),
            timelines=Timelines(),
        )
        try:
            yield made
        finally:
            assert loops.stop(10_000_000_000) == []


def add_task(
    services: Services, results: Sequence[tuple[str, str, bytes]], *, sop_class: str = kit.CT, subject: str = ""
) -> int:
    """A task that is delivering: results as (kind, SOP Instance UID, bytes of the file), for all destinations.

    Of an image, the bytes are a whole Part 10 file, and its hash is that of the data set, as inlets write it.
    """
    with services.journal.read() as connection:
        (before,) = connection.execute("SELECT count(*) FROM object").fetchone()
    subject = subject or f"1.2.3.{before + 1}"
    new = NewObject("dicom", "CT1", sop_class, subject, "0" * 64, 1, f"objects/{subject}", study=STUDY)
    number = services.journal.write(lambda c: add_object(c, new))
    task = services.journal.write(lambda c: open_task(c, "chest", "instance", subject, [number]))
    services.journal.write(lambda c: move_object(c, number, Event.ROUTE))
    services.journal.write(lambda c: move_task(c, task, Event.COMPLETE))
    _answer(services, task, results, sop_class)
    return task


def again(services: Services, task: int, results: Sequence[tuple[str, str, bytes]]) -> None:
    """Somebody asked for another try of a task that has failed: it was analysed once more."""
    services.journal.write(lambda c: move_task(c, task, Event.RETRY))
    _answer(services, task, results, kit.CT)


def _answer(services: Services, task: int, results: Sequence[tuple[str, str, bytes]], sop_class: str) -> None:
    entered = []
    for kind, uid, data in results:
        path = services.spool.write_result(task, f"{kind}-{uid}"[:100], data)
        digest = sha256_bytes(data[_offset(data) :]) if kind == "image" else sha256_bytes(data)
        entered.append(NewResult(kind, path, digest, len(data), "" if kind == "json" else sop_class, uid))
    takers = {d.name: ("sr", "sc", "seg", "gsps", "json", "image") for d in services.config.destinations}

    def work(connection: sqlite3.Connection) -> None:
        for event in (Event.START, Event.ANSWER):
            move_task(connection, task, event)
        add_results(connection, task, entered, takers)

    services.journal.write(work)


def _offset(data: bytes) -> int:
    import io

    from edgemed.imaging.dicom.part10 import read_meta

    return read_meta(io.BytesIO(data)).offset


def states(services: Services, table: str = "delivery") -> list[str]:
    return [row["state"] for row in rows(services.journal, f"SELECT state FROM {table} ORDER BY id")]


def reasons(services: Services) -> list[str]:
    return [row["reason"] for row in rows(services.journal, "SELECT reason FROM delivery ORDER BY id")]


def alarms(services: Services) -> set[str]:
    return {alarm.code for alarm in services.alarms.standing}


def always() -> bool:
    return True


class Clock:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_ns = 10**15

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


FAST = Retry(first_ns=1_000_000_000, cap_ns=60_000_000_000, give_up_ns=3_600_000_000_000)


class Scripted:
    """A courier whose answers are given by a function of the parcel; it remembers what it was asked to carry."""

    address = "test"

    def __init__(self, answer: Callable[[Parcel], Outcome], most: int = 4, within_ns: int = 60_000_000_000) -> None:
        self.answer = answer
        self.most = most
        self.within_ns = within_ns
        self.carried: list[Parcel] = []
        self.requests: list[tuple[str, list[Parcel]]] = []
        self.on_confirm: Callable[[str, Sequence[Parcel]], None] = lambda transaction, parcels: None

    def carry(self, parcels: Sequence[Parcel], done: Done, pulse: Pulse) -> None:
        for parcel in parcels:
            self.carried.append(parcel)
            done(parcel, self.answer(parcel))

    def confirm(self, parcels: Sequence[Parcel], transaction: str, pulse: Pulse) -> None:
        self.requests.append((transaction, list(parcels)))
        self.on_confirm(transaction, parcels)

    def close(self) -> None: ...


def report(transaction: str, kept: list[str], failed: list[str] | None = None) -> Dataset:
    """What a PACS reports of a storage commitment."""

    def items(uids: list[str], **more: int) -> list[Dataset]:
        found = []
        for uid in uids:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kit.CT, uid
            for name, value in more.items():
                setattr(item, name, value)
            found.append(item)
        return found

    ds = Dataset()
    ds.TransactionUID = transaction
    ds.ReferencedSOPSequence = items(kept)
    if failed:
        ds.FailedSOPSequence = items(failed, FailureReason=0x0112)
    return ds
