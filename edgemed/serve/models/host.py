"""The models of a daemon: each a line of versions, one of which answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemed.base.errors import EdgemedError, InputError
from edgemed.bundle.read import Bundle
from edgemed.bundle.trust import Trust
from edgemed.device.sysfs import Tree
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.trail import Audit
from edgemed.serve.config import Config
from edgemed.serve.config.models import ModelSection
from edgemed.serve.journal.database import Journal
from edgemed.serve.loops import Beat, Loops
from edgemed.serve.metrics import Metrics
from edgemed.serve.models.archive import Archive, Keepers
from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.models.hot import HotStandby, standby_of
from edgemed.serve.models.lifecycle import Line
from edgemed.serve.models.served import Served
from edgemed.serve.models.shadow import PrecisionShadow
from edgemed.serve.models.store import BundleStore
from edgemed.serve.models.trusted import trust_of
from edgemed.serve.readiness import Finding, Readiness
from edgemed.serve.thermal import Heat, Thermal

_OF_MODELS = (
    *("not-ready", "model-lost", "model-rejected", "model-rolled-back"),
    *("deadline-missed", "distribution-shift"),
)
_TICK_S = 0.25
_HEAT_S = 2.0
_LIMIT_NS = 120_000_000_000  # large bundles are copied and hashed between two beats


class ModelHost:
    """See `Models`."""

    name = "models"
    tree = Tree()  # where sensors are read

    def __init__(
        self,
        config: Config,
        journal: Journal,
        alarms: Alarms,
        metrics: Metrics,
        readiness: Readiness,
        loops: Loops,
        audit: Audit,
    ) -> None:
        self._config = config
        self._journal, self._alarms, self._metrics = journal, alarms, metrics
        self._readiness, self._loops = readiness, loops
        self._trusted = Trust()
        self._keepers = keepers = Keepers(journal, alarms, audit)
        self._lines: dict[str, Line] = {}
        for section in config.models:
            store = BundleStore(config.daemon.state, section.name)
            self._lines[section.name] = Line(Archive(section, store, self._trust, keepers), self._make)
        self._hot: dict[str, HotStandby] = {}
        self.thermal = Thermal(config.thermal, alarms, metrics, self._warmed, self.tree)
        self._shadows = {
            section.name: PrecisionShadow(section, config.golden, alarms, metrics)
            for section in config.models
            if section.shadow is not None
        }

    def start(self) -> None:
        """Verify every bundle now; load them in the background, for what comes in is kept meanwhile.

        Raises:
            InputError: there is no bundle, or its recipe was assumed.
            IntegrityError: one is damaged, or not trusted.
        """
        self._trusted = trust_of(self._config.trust)
        self._alarms.keep(_OF_MODELS, {*self._lines, *(f"hot {name}" for name in self._lines)})
        self._alarms.keep(("shadow-disagrees",), self._shadows)
        for line in self._lines.values():
            line.open()
            self._readiness.register(f"model {line.name}", _finding_of(line))
            self._readiness.register(f"worker {line.name}", _stuck_of(line), live=True)
            if line.section.hot is not None:
                store = BundleStore(self._config.daemon.state, line.name, "hot")
                standby = standby_of(line, store, self._make, self._trust, self._keepers)
                if standby is not None:
                    self._hot[line.name] = standby
        self._loops.start("models", self._tend, limit_ns=_LIMIT_NS)
        self._loops.start("releases", self._release, limit_ns=_LIMIT_NS)
        self._loops.start("thermal", self._watch_heat)

    def drain(self) -> None:
        """Nothing to do: who asks is drained."""

    def stop(self) -> None:
        for shadow in self._shadows.values():
            shadow.close()
        for standby in self._hot.values():
            standby.close()
        for line in self._lines.values():
            line.close()

    def names(self) -> list[str]:
        return list(self._lines)

    def get(self, name: str, version: str | None = None) -> Served:
        line = self._line(name)
        for model in line.loaded:  # what answers comes first
            if version in (None, model.version):
                return model
        raise InputError(f"There is no version {version} of {name}.", f"Version {line.active.version} answers.")

    # -- for operators ---------------------------------------------------------------------------------------------

    def propose(self, name: str, path: Path, *, older: bool = False, user: str = "") -> str:
        """Take a new version of a model: it is checked and copied now, and goes through the rest by itself.

        Args:
            name: of the model.
            path: of the bundle.
            older: its sequence may be lower than one that has answered here.
            user: who wants it; stands in the audit trail.

        Returns:
            Its version. What becomes of it is told by `describe`, alarms, and the audit trail.

        Raises:
            InputError: no such model, no bundle, an assumed recipe, or one that cannot be compared.
            IntegrityError: damaged, not trusted, or older.
            ResourceError: the disk did not take it.
        """
        version = self._line(name).propose(path, older=older, user=user)
        self._loops.wake("releases")
        return version

    def roll_back(self, name: str, user: str = "") -> None:
        """Let the previous version of a model answer again.

        Raises:
            InputError: no such model, or there is none to go back to.
        """
        self._line(name).roll_back(user)
        self._loops.wake("releases")

    def reload(self) -> None:
        """Read keys, revocations and configured bundles again: what is new is proposed, what was revoked stops."""
        try:
            self._trusted = trust_of(self._config.trust)
        except EdgemedError as error:
            what = f"Keys and revocations cannot be read, and stay as they were: {error.what}"
            self._alarms.raise_("model-rejected", what, "trust")
            return
        self._alarms.keep(_OF_MODELS, {*self._lines, *(f"hot {name}" for name in self._lines)})
        self._alarms.keep(("shadow-disagrees",), self._shadows)
        for line in self._lines.values():
            line.check_trust()
            line.reconfigured(line.section.bundle)
        for standby in self._hot.values():
            standby.check_trust()
        self._loops.wake("releases")

    def describe(self, name: str) -> dict[str, Any]:
        """How a model stands, for pages and programs: JSON."""
        line = self._line(name)
        active, shadow = line.active, self._shadows.get(name)
        info, found, status = active.info, active.finding, active.status
        return {
            "name": name,
            "version": active.version,
            "digest": active.bundle.digest,
            "bundle": active.bundle.manifest.name,
            "backend": info.backend,
            "precision": info.precision,
            "device": info.device,
            "why_not_tensorrt": active.why,
            "state": active.progress,
            "ready": found is None or not found.stops,
            "reason": "" if found is None else found.reason,
            "rebuilds": 0 if status is None else status.model.rebuilds,
            "waiting": len(active.scheduler),
            "heat": self.thermal.climate.heat.value,
            "smaller_model": line.hot is not None,
            "golden": self.golden(name),
            "shadow": None if shadow is None else shadow.describe(),
            **line.describe(),
        }

    def golden(self, name: str, most: int = 100) -> list[dict[str, Any]]:
        """The last golden inferences of a model, newest first."""
        with self._journal.read() as connection:
            rows = connection.execute(
                "SELECT at, digest, backend, passed, worst, reason FROM golden WHERE model = ?"
                " ORDER BY id DESC LIMIT ?",
                (name, most),
            ).fetchall()
        return [{**dict(row), "passed": bool(row["passed"])} for row in rows]

    # -- loops -----------------------------------------------------------------------------------------------------

    def _tend(self, beat: Beat) -> None:
        for line in self._lines.values():
            if line.active.status is None:  # else this loop had failed, and is here again
                line.active.load()
            beat()
        while beat.wait(_TICK_S):
            for line in self._lines.values():
                self._tend_line(line, time.monotonic_ns())

    def _tend_line(self, line: Line, now_ns: int) -> None:
        for model in line.loaded:
            if model not in (line.candidate, line.hot):  # a candidate that fails is rejected, not tried again
                model.tend(now_ns)
        line.active.rest(self.thermal.climate.heat is not Heat.NORMAL)  # also one that answers since it became warm
        if line.name in self._shadows:
            self._shadows[line.name].follow(line.active)
        if line.name in self._hot:
            self._hot[line.name].tend(now_ns)
        if self._config.thermal.idle_ns is not None:
            line.active.keep_awake(now_ns, self._config.thermal.idle_ns)

    def _watch_heat(self, beat: Beat) -> None:
        self.thermal.step(time.monotonic_ns())
        while beat.wait(_HEAT_S):
            self.thermal.step(time.monotonic_ns())

    def _warmed(self, heat: Heat) -> None:
        for line in self._lines.values():
            line.active.rest(heat is not Heat.NORMAL)
            if line.name in self._hot:
                self._hot[line.name].heat(heat)
            if heat is not Heat.THROTTLED and line.hot is None:
                line.active.check()  # it may have been throttled: is it still right?

    def _release(self, beat: Beat) -> None:
        while beat.wait(_TICK_S):
            for line in self._lines.values():
                line.step(time.monotonic_ns())
                beat()

    def _line(self, name: str) -> Line:
        line = self._lines.get(name)
        if line is None:
            raise InputError(f"There is no model {name}.", f"There are: {', '.join(self._lines)}.")
        return line

    def _trust(self) -> Trust:
        return self._trusted

    def _make(self, section: ModelSection, bundle: Bundle, version: str) -> HostedModel:
        return HostedModel(self._config, section, bundle, version, self._journal, self._alarms, self._metrics)


def _stuck_of(line: Line) -> Callable[[], Finding | None]:
    """Only a daemon that is started anew can mend it: systemd's watchdog asks this."""

    def check() -> Finding | None:
        answers = line.hot or line.active
        return answers.finding if answers.stuck else None

    return check


def _finding_of(line: Line) -> Callable[[], Finding | None]:
    """Of whichever version answers when it is asked."""
    return lambda: line.finding
