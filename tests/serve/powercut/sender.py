"""A process that takes images through the real intake and promises them, until it is killed.

`python sender.py STATE ACKS SEED [MUTATION]`. A line of ACKS is `UID SHA-256 VERDICT`, or
`trail ENTRIES -`. Mutations are cheaters that the
disk must catch: `no-file-sync`, `no-folder-sync`, `no-journal-sync`, `ack-first`, and `row-alone`, where nobody waits
for the file.
"""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import struct
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path

from edgemed.serve.adoption import take_in
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.chain import AuditLog
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.config import Config
from edgemed.serve.config.daemon import SpoolSection
from edgemed.serve.intake import Arrival, Intake
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.records import (
    NewResult,
    add_results,
    finish_if_delivered,
    move_delivery,
    move_object,
    move_task,
    open_task,
)
from edgemed.serve.journal.recovery import opened_journal
from edgemed.serve.metrics import Metrics
from edgemed.serve.spool import Spool
from edgemed.serve.states import Event

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
TOLD = "trail"  # begins the lines of ACKS that are about it


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\0" if vr in (b"UI", b"OB") else b" ") * (len(value) % 2)
    head = struct.pack("<HH2s", group, number, vr)
    return head + (struct.pack("<2xI", len(value)) if vr == b"OB" else struct.pack("<H", len(value))) + value


def encode(uid: str, content: bytes) -> tuple[bytes, str]:
    """A small Part 10 file, and the SHA-256 of its data set."""
    meta = element(2, 2, b"UI", CT.encode()) + element(2, 3, b"UI", uid.encode())
    meta += element(2, 0x10, b"UI", EXPLICIT.encode())
    data = element(8, 0x16, b"UI", CT.encode()) + element(8, 0x18, b"UI", uid.encode())
    data += element(0x20, 0xD, b"UI", b"1.2.3") + element(0x20, 0xE, b"UI", b"1.2.3.4")
    data += element(0x7FE0, 0x10, b"OB", content)
    return bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + data, sha256(
        data
    ).hexdigest()


def cheat(mutation: str) -> None:
    """Break the promise on purpose, in this process."""
    real = os.fsync

    def fsync(fd: int) -> None:
        folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        if folder != (mutation == "no-folder-sync"):
            real(fd)

    if mutation in ("no-file-sync", "no-folder-sync"):
        os.fsync = fsync
    if mutation == "row-alone":
        keep = Spool.keep

        def keep_later(spool: Spool, incoming: Path, name: str, note: str = "") -> str:
            threading.Timer(0.02, keep, (spool, incoming, name, note)).start()
            return Spool.place_of(name)

        Spool.keep = keep_later  # type: ignore[method-assign]


def unsynced(connection: sqlite3.Connection) -> None:
    """The same for the journal; SQLite takes that between transactions only."""
    connection.execute("COMMIT")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("SAVEPOINT one")


class Sender:
    """Sends without end: new images, repeats, and other content under a UID that is known."""

    def __init__(self, intake: Intake, acks: int, seed: str, mutation: str) -> None:
        self._intake, self._acks, self._mutation = intake, acks, mutation
        self._dice = random.Random(seed)
        self._seed = seed
        self.accepted: list[int] = []

    def run(self) -> None:
        sent: list[tuple[str, bytes]] = []
        number = 0
        while True:
            number += 1
            roll = self._dice.random()
            if sent and roll < 0.1:
                uid, content = self._dice.choice(sent)
            elif sent and roll < 0.15:
                uid, content = self._dice.choice(sent)[0], self._dice.randbytes(100)
            else:
                uid = f"2.25.{int(sha256(f'{self._seed}.{number}'.encode()).hexdigest()[:24], 16)}"
                content = self._dice.randbytes(self._dice.randrange(1, 6000))
            if self._send(uid, content):
                sent.append((uid, content))

    def _send(self, uid: str, content: bytes) -> bool:
        data, digest = encode(uid, content)
        file = self._intake.new_file()
        file.write_bytes(data)
        if self._mutation == "ack-first":
            self._promise(uid, digest, "accepted")
        arrival = Arrival(file, "dicom", "CT1", CT, uid, digest, len(data), syntax=EXPLICIT, called="EDGEMED")
        outcome = self._intake.accept(arrival)
        if outcome.success and self._mutation != "ack-first":
            self._promise(uid, digest, outcome.verdict)
        if outcome.verdict == "accepted" and outcome.number is not None:
            self.accepted.append(outcome.number)
        return outcome.success

    def _promise(self, uid: str, digest: str, verdict: str) -> None:
        os.write(self._acks, f"{uid} {digest} {verdict}\n".encode())


def work(spool: Spool, journal: Journal, sender: Sender) -> None:
    """What comes after: tasks, results, deliveries."""
    while True:
        if not sender.accepted:
            time.sleep(0.002)
            continue
        number = sender.accepted.pop(0)

        def enter(c, n=number):  # in one transaction, as the router does
            task = open_task(c, "chest", "instance", f"object {n}", [n])
            move_task(c, task, Event.COMPLETE)
            move_object(c, n, Event.ROUTE)
            return task

        task = journal.write(enter)
        journal.write(lambda c, t=task: move_task(c, t, Event.START))
        path = spool.write_result(task, "sr.dcm", b"result" * 100)
        new = NewResult("sr", path, sha256(b"result" * 100).hexdigest(), 600)

        def answer(c, t=task, new=new):
            numbers = add_results(c, t, [new], {"pacs": ("sr",)})
            move_task(c, t, Event.ANSWER)
            finish_if_delivered(c, t)
            return [
                row[0]
                for n in numbers
                for row in c.execute("SELECT id FROM delivery WHERE result = ?", (n,)).fetchall()
            ]

        for delivery in journal.write(answer):
            journal.write(lambda c, d=delivery: move_delivery(c, d, "delivered"))


def tell(audit: AuditLog, acks: int) -> None:
    """Entries of the audit trail, long ones, so that segments are closed; how many are promised is a line of ACKS."""
    event = AuditEvent("received", user="CT1", study="1.2.3", instances=tuple(f"1.2.3.{n}" for n in range(50)))
    while True:
        done = audit.record_all([event])
        if done is not None and done.wait(1):
            os.write(acks, f"{TOLD} {audit.written} -\n".encode())


def trail(root: Path, journal: Journal) -> AuditLog:
    """The trail of a state, with short segments."""
    config = {
        "daemon": {"name": "bedside", "state": root},
        "models": [{"name": "none", "bundle": root / "none.edgemed"}],
        "audit": {"segment": "64KiB"},
    }
    return AuditLog(Config.model_validate(config), Alarms(journal))


def main() -> None:
    root, acks, seed, mutation = (*sys.argv[1:], "")[:4]
    cheat(mutation)
    file = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    spool = Spool(Path(root))
    spool.make_root()
    spool.prepare()
    with opened_journal(spool) as (journal, _):
        take_in(spool, journal)
        journal.write(lambda c: c.execute("PRAGMA wal_autocheckpoint=40").fetchall())
        if mutation == "no-journal-sync":
            journal.write(unsynced)
        alarms = Alarms(journal)
        alarms.load()
        section = SpoolSection.model_validate({"reserve": "1MiB", "warn": "2MiB"})
        intake = Intake(section, spool, journal, alarms, Metrics())
        senders = [Sender(intake, file, f"{seed}.{n}", mutation) for n in range(3)]
        threads = [threading.Thread(target=sender.run, daemon=True) for sender in senders]
        threads.append(threading.Thread(target=tell, args=(trail(spool.root, journal), file), daemon=True))
        threads.append(threading.Thread(target=work, args=(spool, journal, senders[0]), daemon=True))
        for thread in threads:
            thread.start()
        sys.stdout.write("sending\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
