"""Power cuts by the dozen: senders are killed, and at random moments of their logs the power goes."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgemed.base.errors import EdgemedError
from edgemed.bundle.keys import read_public_key
from edgemed.imaging.dicom.part10 import hash_dataset, read_meta
from edgemed.serve.adoption import take_in
from edgemed.serve.audit.segments import FOLDER, PUBLIC
from edgemed.serve.audit.verify import verify_trail
from edgemed.serve.journal.database import Journal
from edgemed.serve.journal.recovery import opened_journal
from edgemed.serve.reconcile import reconcile
from edgemed.serve.spool import Spool
from tests.serve.powercut.disk import Disk, read_log
from tests.serve.powercut.sender import TOLD, trail
from tests.serve.store import in_memory

HERE: Final = Path(__file__).resolve().parent
_PROMISES: Final = 60
_SYNC_US: Final = "3000"
_LINE: Final = 100  # bytes of a line of promises
_START_NS: Final = 60_000_000_000


@dataclass
class Outcome:
    """What a campaign saw.

    Attributes:
        cuts: of power.
        kills: of processes, without a power cut.
        promised: images that were acknowledged before a cut; each counts at each cut.
        lost: of them, those without a row or a file afterwards.
        changed: of them, those whose bytes are other ones.
        rowless: of them, those that were found only because the spool was held against the journal.
        unaccounted: what `edgemed reconcile` would name.
        remade: journals that had to be made anew.
        arrived: rows that did not say yet that their files are there; they were.
        vanished: rows whose files had not come to the disk, and that nobody was promised.
        told: entries of the audit trail that were on the disk before a cut; each counts at each cut.
        untold: of them, those that are missing afterwards; all of a trail that does not verify.
    """

    cuts: int = 0
    kills: int = 0
    promised: int = 0
    lost: int = 0
    changed: int = 0
    rowless: int = 0
    unaccounted: int = 0
    remade: int = 0
    arrived: int = 0
    vanished: int = 0
    told: int = 0
    untold: int = 0
    notes: list[str] = field(default_factory=list)


def build_shim(folder: Path) -> Path:
    """Compile the shim."""
    shim = folder / "powercut.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", shim, HERE / "shim.c", "-ldl"], check=True)
    return shim


def run(disks: int, cuts_each: int, seed: int, mutation: str = "", *, lives: int = 2, seconds: float = 0.5) -> Outcome:
    """Run senders, kill them, cut the power.

    Args:
        disks: how many are filled.
        cuts_each: moments of each disk's log at which power goes.
        seed: of moments and of what survives.
        mutation: of the sender, see `sender.py`.
        lives: of processes, one after the other, on a disk: what a killed one wrote, the next one believes.
        seconds: that a sender lives, at most, after it has promised something.
    """
    outcome = Outcome()
    dice = random.Random(seed)
    with in_memory() as folder:
        shim = build_shim(folder)
        for number in range(disks):
            state = folder / f"state{number}"
            state.mkdir()
            disk = Disk(state)
            for life in range(lives):
                promises = _PROMISES if life == lives - 1 else dice.choice((0, 10, _PROMISES))
                wait = promises, dice.uniform(0, 1) * seconds
                _live(shim, folder, state, f"{seed}.{number}.{life}", mutation, wait)
                outcome.kills += 1
            _cut(folder, disk, cuts_each, dice, outcome)
            shutil.rmtree(state)
            (folder / "log").unlink()
    return outcome


def _live(shim: Path, folder: Path, state: Path, seed: str, mutation: str, wait: tuple[int, float]) -> None:
    """A sender, from its start to its violent end: after so many promises, and so many seconds."""
    acks = folder / "acks"
    before = acks.stat().st_size if acks.exists() else 0
    environment = os.environ | {
        "LD_PRELOAD": str(shim),
        "POWERCUT_ROOT": str(state),
        "POWERCUT_LOG": str(folder / "log"),
        "POWERCUT_ACKS": str(folder / "acks"),
        "POWERCUT_SYNC_US": _SYNC_US,
        "PYTHONPATH": str(HERE.parents[2]),
    }
    command = [sys.executable, str(HERE / "sender.py"), str(state), str(folder / "acks"), seed, mutation]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"sending\n":
            raise RuntimeError("the sender did not start")
        end_ns = time.monotonic_ns() + _START_NS
        while acks.stat().st_size < before + wait[0] * _LINE and time.monotonic_ns() < end_ns:
            time.sleep(0.005)
        time.sleep(wait[1])
        process.kill()


def _cut(folder: Path, disk: Disk, count: int, dice: random.Random, outcome: Outcome) -> None:
    records = list(read_log(folder / "log"))
    moments = sorted(dice.randrange(len(records) + 1) for _ in range(count))
    done = 0
    for moment in moments:
        for record in records[done:moment]:
            disk.replay(record)
        done = moment
        after = folder / "after"
        after.mkdir()
        disk.rebuild(after, dice.choice((0.0, 0.0, 0.5, 0.9, 1.0)), dice)
        _judge(after, disk.acknowledged, outcome)
        shutil.rmtree(after)


def _judge(state: Path, lines: list[str], outcome: Outcome) -> None:
    """Start on what is left, and look for everything that was promised."""
    outcome.cuts += 1
    promised = {uid: digest for uid, digest, _ in (line.split() for line in lines) if uid != TOLD}
    entries = max((int(line.split()[1]) for line in lines if line.startswith(TOLD)), default=0)
    outcome.promised += len(promised)
    spool = Spool(state)
    spool.make_root()
    spool.prepare()
    with opened_journal(spool) as (journal, damage):
        outcome.remade += damage is not None
        if damage is not None:
            outcome.notes.append(damage.reason)
        outcome.rowless += len(promised.keys() - _rows(journal).keys())
        found = take_in(spool, journal)
        outcome.arrived += found.arrived
        outcome.vanished += found.vanished
        rows = _rows(journal)
        outcome.told += entries
        outcome.untold += max(0, entries - _verified(spool.root, journal, outcome))
    troubles = reconcile(state).troubles
    outcome.unaccounted += len(troubles)
    outcome.notes += [f"{trouble.code}: {trouble.what}: {trouble.text}" for trouble in troubles]
    for uid, digest in promised.items():
        row = rows.get(uid)
        if row is None or not spool.path(row[1]).exists():
            outcome.lost += 1
        elif row[0] != digest or row[2] == "failed" or _hash(spool.path(row[1])) != digest:
            outcome.changed += 1


def _verified(state: Path, journal: Journal, outcome: Outcome) -> int:
    """Entries of the audit trail, after a start; 0 where it does not verify."""
    try:
        trail(state, journal).close()
        folder = state / FOLDER
        return verify_trail([folder], read_public_key(folder / PUBLIC)).end
    except EdgemedError as error:
        outcome.notes.append(error.what)
        return 0


def _rows(journal: Journal) -> dict[str, tuple[str, str, str]]:
    with journal.read() as connection:
        found = connection.execute("SELECT * FROM object WHERE state <> 'refused'").fetchall()
    return {row["sop_instance"]: (row["sha256"], row["path"], row["state"]) for row in found}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        try:
            return hash_dataset(file, read_meta(file).offset)
        except Exception:
            return hashlib.sha256(path.read_bytes()).hexdigest()
