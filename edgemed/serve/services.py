"""What the parts of the daemon share. A part is given this, and nothing of another part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.trail import Trail
from edgemed.serve.config import Config
from edgemed.serve.intake import Intake
from edgemed.serve.journal.database import Journal
from edgemed.serve.live.board import Board
from edgemed.serve.loops import Loops
from edgemed.serve.metrics import Metrics
from edgemed.serve.models.served import Models
from edgemed.serve.privacy import Pseudonyms
from edgemed.serve.readiness import Readiness
from edgemed.serve.spool import Spool
from edgemed.serve.timeline import Timelines


@dataclass(frozen=True)
class Services:
    """Shared by all parts of one daemon."""

    config: Config
    spool: Spool
    journal: Journal
    alarms: Alarms
    metrics: Metrics
    readiness: Readiness
    loops: Loops
    intake: Intake
    models: Models
    board: Board
    audit: Trail
    pseudonyms: Pseudonyms
    timelines: Timelines


class Part(Protocol):
    """Something that starts and stops with the daemon: an inlet, a loop, an outlet."""

    name: str

    def start(self) -> None:
        """Begin; what cannot work is an `EdgemedError`, and the daemon does not start."""
        ...

    def drain(self) -> None:
        """Take nothing new; what is under way goes on."""
        ...

    def stop(self) -> None:
        """End. Called once, in the opposite order of the starts."""
        ...


@runtime_checkable
class Reloads(Protocol):
    """A part that can read its files again while it works."""

    def reload(self) -> None:
        """Take what has changed; what is wrong with it is an alarm, and the old stays."""
        ...


@runtime_checkable
class Reachable(Protocol):
    """A part that listens."""

    def addresses(self) -> list[str]:
        """Where, one line each: `http://127.0.0.1:8000`."""
        ...
