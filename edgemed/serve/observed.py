"""The daemon in a process of its own, which tells its parent when each input reached each stage.

It is given a `Config` as one line of JSON on its standard input. Lines of JSON come back: `ready`, then each task as it
ends. `finish` and a number of seconds on the input asks for the rest; the end of the input ends it. UIDs go through
this pipe, and into no log.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final, TextIO

from edgemed.base.child import die_with_parent
from edgemed.base.errors import EdgemedError
from edgemed.base.quantity import SECOND
from edgemed.serve.config import Config
from edgemed.serve.daemon import Daemon
from edgemed.serve.dicom.inlet import DicomInlet
from edgemed.serve.journal.records import FORWARD
from edgemed.serve.logs import configure
from edgemed.serve.services import Services
from edgemed.serve.states import ENDS
from edgemed.serve.timeline import Timeline

READY_S: Final = 300
"""For models to load and to pass their golden inferences, in seconds."""

_POLL_S: Final = 0.05
_HEAR_NS: Final = 5 * SECOND
_ENDED: Final = tuple(sorted(state.value for state in ENDS))


@dataclass(frozen=True)
class _Voice:
    """Writes lines; from one thread at a time."""

    to: TextIO
    lock: threading.Lock

    def say(self, **told: Any) -> None:
        line = json.dumps(told, separators=(",", ":"))
        with self.lock:
            self.to.write(line + "\n")
            self.to.flush()


def main(parent: int) -> int:
    """Run until the input ends; gives the exit code."""
    die_with_parent(parent)
    voice = _Voice(os.fdopen(os.dup(1), "w", encoding="utf-8"), threading.Lock())
    os.dup2(2, 1)  # whatever a library prints goes to the log
    config = Config.model_validate_json(sys.stdin.readline())
    configure(config.log)
    try:
        with Daemon(config) as daemon:
            _serve(daemon, voice)
    except EdgemedError as error:
        voice.say(error=error.what, hint=error.hint, code=error.exit_code)
        return error.exit_code
    return 0


def _serve(daemon: Daemon, voice: _Voice) -> None:
    services = daemon.services
    ended: SimpleQueue[Timeline | None] = SimpleQueue()
    services.timelines.on_ended.append(ended.put)
    told: set[int] = set()
    teller = threading.Thread(target=_tell, args=(services, ended, voice, told), name="teller")
    teller.start()
    try:
        if not _ready(services):
            why = services.readiness.findings
            voice.say(error="The daemon did not become ready.", hint=why[0].reason if why else "", code=3)
            return
        inlet = daemon.part("dicom")
        assert isinstance(inlet, DicomInlet)
        voice.say(ready=True, port=inlet.port, models=_models(services))
        for line in sys.stdin:
            command, _, seconds = line.partition(" ")
            if command == "finish":
                _settle(services, float(seconds))
                _hear(services, told)
                voice.say(**_rest(services))
    finally:
        ended.put(None)
        teller.join()


def _ready(services: Services) -> bool:
    end_ns = time.monotonic_ns() + READY_S * 1_000_000_000
    while time.monotonic_ns() < end_ns:
        if services.readiness.ready:
            return True
        time.sleep(_POLL_S)
    return False


def _models(services: Services) -> dict[str, dict[str, str | None]]:
    """Who answers for each model."""
    found = {}
    for name in services.models.names():
        info = services.models.get(name).info
        found[name] = {
            "backend": info.backend,
            "precision": info.precision,
            "device": info.device,
            "bundle_digest": info.bundle_digest,
        }
    return found


def _tell(services: Services, ended: SimpleQueue[Timeline | None], voice: _Voice, told: set[int]) -> None:
    while (line := ended.get()) is not None:
        with services.journal.read() as connection:
            row = connection.execute("SELECT subject, revision, state FROM task WHERE id = ?", (line.task,)).fetchone()
        voice.say(
            task=line.task,
            model=line.model,
            subject=row["subject"],
            revision=row["revision"],
            state=row["state"],
            points=line.points,
            spans=[(span.name, span.start_ns, span.end_ns) for span in line.spans],
        )
        told.add(line.task)


def _settle(services: Services, seconds: float) -> None:
    """Wait until every input has its end, or for so long."""
    marks = ", ".join("?" * len(_ENDED))
    end_ns = time.monotonic_ns() + int(seconds * 1e9)
    while time.monotonic_ns() < end_ns:
        with services.journal.read() as connection:
            (left,) = connection.execute(
                f"SELECT (SELECT count(*) FROM object WHERE state NOT IN ({marks}))"  # noqa: S608 - only question marks
                f" + (SELECT count(*) FROM task WHERE state NOT IN ({marks}))",
                (*_ENDED, *_ENDED),
            ).fetchone()
        if not left:
            return
        time.sleep(_POLL_S)


def _hear(services: Services, told: set[int]) -> None:
    """Wait until what has ended is told, but not for long: its end is in the journal a moment before."""
    end_ns = time.monotonic_ns() + _HEAR_NS
    with services.journal.read() as connection:
        rows = connection.execute("SELECT id, state FROM task WHERE model <> ?", (FORWARD,))
        ended = {row["id"] for row in rows if row["state"] in _ENDED}
    while not ended <= told and time.monotonic_ns() < end_ns:
        time.sleep(_POLL_S)


def _rest(services: Services) -> dict[str, Any]:
    """All tasks as they stand, and how many objects stand where."""
    with services.journal.read() as connection:
        tasks = connection.execute("SELECT id, model, subject, revision, state FROM task ORDER BY id").fetchall()
        objects = connection.execute("SELECT state, reason, count(*) FROM object GROUP BY 1, 2").fetchall()
    return {
        "tasks": [list(row) for row in tasks],
        "objects": [list(row) for row in objects],
        "models": _models(services),
    }


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
