"""The daemon put together: what is shared, the parts in their order, and how it ends."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from edgemed.base.errors import EdgemedError, IntegrityError
from edgemed.base.quantity import SECOND
from edgemed.base.store import write_atomic
from edgemed.serve.adoption import take_in, tell
from edgemed.serve.alarms import Alarms
from edgemed.serve.config import Config
from edgemed.serve.intake import Intake
from edgemed.serve.journal.recovery import mark, opened_journal
from edgemed.serve.live.board import Board
from edgemed.serve.lock import state_lock
from edgemed.serve.loops import Beat, Loops
from edgemed.serve.metrics import Metrics
from edgemed.serve.privacy import Pseudonyms
from edgemed.serve.readiness import Readiness
from edgemed.serve.services import Part, Reachable, Reloads, Services
from edgemed.serve.spool import Spool
from edgemed.serve.systemd import Notifier, Patience
from edgemed.serve.timeline import Timelines

log = logging.getLogger(__name__)


class Daemon:
    """Entered, it serves; left, it has drained and stopped.

    The disk comes first, then who answers, then outlets, and inlets last: nothing is taken that could not be kept. The
    end goes the other way.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ended = threading.Event()
        self._stack = ExitStack()
        self._parts: list[Part] = []
        self._loops: Loops | None = None
        self._reload = threading.Event()
        self._patience = Patience(Notifier())
        self._damage: IntegrityError | None = None

    def __enter__(self) -> Daemon:
        """Start.

        Raises:
            EdgemedError: something cannot work: the state, a bundle, a port; what had started is stopped.
        """
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def part(self, name: str) -> Part:
        """One that has started, by its name: 'dicom', 'http', …"""
        return next(part for part in self._parts if part.name == name)

    def wait(self) -> None:
        """Until somebody calls `stop`.

        Raises:
            IntegrityError: the journal was found to be damaged. The next start makes it anew from the spool.
        """
        self.ended.wait()
        if self._damage is not None:
            raise self._damage

    def stop(self) -> None:
        """Let `wait` return; safe in a signal handler."""
        self.ended.set()

    def reload(self) -> None:
        """Let every part that can look at its files again: certificates, tokens, bundles. Safe in a signal handler."""
        if self._loops is not None:
            self._reload.set()
            self._loops.wake("reload")

    def addresses(self) -> list[str]:
        """Where it can be reached, for people."""
        return [line for part in self._parts if isinstance(part, Reachable) for line in part.addresses()]

    def _reloads(self, beat: Beat) -> None:
        while beat.wait(3600):
            if self._reload.is_set():
                self._reload.clear()
                for part in self._parts:
                    if isinstance(part, Reloads):
                        part.reload()
                log.info("files were read again")

    def _start(self) -> None:
        self.services = self._services()
        for part in self._all_parts(self.services):
            self._patience()
            part.start()
            self._parts.append(part)
            log.info("%s started", part.name)
        self.services.loops.start("reload", self._reloads)

    def _services(self) -> Services:
        from edgemed.serve.audit.chain import AuditLog
        from edgemed.serve.audit.memory import missed, remember
        from edgemed.serve.audit.received import Received
        from edgemed.serve.models.host import ModelHost

        config = self.config
        self._patience()
        spool = Spool(config.daemon.state)
        spool.make_root()
        self._stack.enter_context(state_lock(spool.root))
        spool.prepare()
        journal, damage = self._stack.enter_context(opened_journal(spool))
        journal.on_damage = self._damaged
        alarms = Alarms(journal)
        alarms.load()
        tell(take_in(spool, journal, self._patience), damage, spool, alarms)
        audit = AuditLog(config, alarms)
        missed(journal, audit, alarms)
        self._stack.callback(remember, journal, audit)
        self._stack.callback(audit.close)
        metrics = Metrics(sorted({model.deadline_ns / SECOND for model in config.models}))
        intake = Intake(config.spool, spool, journal, alarms, metrics)
        folders = {folder.name: folder.path.absolute().as_uri() for folder in config.folders}
        received = Received(journal, audit, intake, folders)
        self._stack.callback(received.close)
        readiness = Readiness()
        loops = self._loops = Loops(lambda name, error: alarms.raise_("loop-failed", _why(name, error), name))
        received.start(loops)
        return Services(
            config=config,
            spool=spool,
            journal=journal,
            alarms=alarms,
            metrics=metrics,
            readiness=readiness,
            loops=loops,
            intake=intake,
            models=ModelHost(config, journal, alarms, metrics, readiness, loops, audit),
            board=Board(),
            audit=audit,
            pseudonyms=Pseudonyms(_key(config.daemon.state / "pseudonyms.key")),
            timelines=Timelines(),
        )

    def _damaged(self, error: IntegrityError) -> None:
        """Nothing can be promised any more: end, so that whoever watches starts us again."""
        if self._damage is None:
            self._damage = error
            try:
                mark(Spool(self.config.daemon.state), error)
            finally:
                self.ended.set()

    def _all_parts(self, services: Services) -> Sequence[Part]:
        """In the order in which they start."""
        from edgemed.serve.analysis.analyst import Analyst
        from edgemed.serve.dicom.inlet import DicomInlet
        from edgemed.serve.folder import FolderInlets
        from edgemed.serve.housekeeping import Housekeeping
        from edgemed.serve.http.server import HttpServer
        from edgemed.serve.live.sources import LiveSources
        from edgemed.serve.models.host import ModelHost
        from edgemed.serve.outlets.outlets import Outlets
        from edgemed.serve.routing import Router
        from edgemed.serve.watch import Watch

        assert isinstance(services.models, ModelHost)
        makers = (Housekeeping, Outlets, Analyst, Router, LiveSources, HttpServer, DicomInlet, FolderInlets, Watch)
        return [services.models, *(maker(services) for maker in makers)]

    def _end(self) -> None:
        for part in reversed(self._parts):
            _quietly(part, part.drain)
        if self._loops is not None:
            late = self._loops.stop(self.config.daemon.drain_ns if self._damage is None else SECOND)
            if late:
                log.warning("not ended in time: %s", ", ".join(late))
        for part in reversed(self._parts):
            _quietly(part, part.stop)
        self._parts.clear()
        self._stack.close()


def _quietly(part: Part, step: object) -> None:
    """One part that fails at its end must not keep the others from theirs."""
    try:
        step()  # type: ignore[operator]
    except Exception:
        log.exception("%s did not end well", part.name)


def _why(name: str, error: Exception) -> str:
    what = error.what if isinstance(error, EdgemedError) else type(error).__name__
    return f"The loop {name} failed and was started again: {what}"


def _key(path: Path) -> bytes:
    """A secret of this machine, made at the first start."""
    if not path.exists():
        write_atomic(path, secrets.token_bytes(32))
    return path.read_bytes()
