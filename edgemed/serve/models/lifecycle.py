"""The versions of one model: which one answers, and what a new one goes through before it does.

propose → hashes, signature, rollback protection, a copy of our own → CANDIDATE → loaded beside the active one, golden
vectors → SHADOW, live inputs → the switch → PROBATION → ACTIVE; what fails is REJECTED, and the one before answers on.
Each step is in the journal before it has an effect: a restart comes up with what the journal says.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edgemed.base.errors import EdgemedError, InputError, IntegrityError
from edgemed.base.store import write_atomic
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.serve.config.models import ModelSection
from edgemed.serve.models.archive import Archive
from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.models.releases import ANSWERS, WAITS, Happening, Stage, Version
from edgemed.serve.models.room import room_for
from edgemed.serve.models.tally import Tally
from edgemed.serve.models.trial import Trial, slower
from edgemed.serve.readiness import Finding

log = logging.getLogger(__name__)

_LEAST_TIMES: Final = 20  # requests before a median says anything
_DOWN_NS: Final = 15_000_000_000  # longer than a rebuild: a version on probation that does not answer is taken back
_UNUSED_NS: Final = 5_000_000_000  # whoever has begun with a version ends with it
_SCAN_NS: Final = 1_000_000_000

Make = Callable[[ModelSection, Bundle, str], HostedModel]


class Line:
    """See the module.

    Args:
        archive: what is known of its versions.
        make: makes a version, not loaded yet.
    """

    def __init__(self, archive: Archive, make: Make) -> None:
        self.section, self.name = archive.section, archive.name
        self._archive, self._make = archive, make
        self.active: HostedModel
        self.previous: HostedModel | None = None  # while the active one is on probation
        self.candidate: HostedModel | None = None
        self.trial: Trial | None = None
        self.hot: HostedModel | None = None  # the smaller one, while it answers in the active one's place
        self._closing: list[HostedModel] = []
        self._watch_until_ns: int | None = None
        self._down_ns: int | None = None
        self._lost = 0  # workers of the active version before it was switched to
        self._back: tuple[str, str] | None = None  # why, and who asked
        self._scan_ns = 0
        self._told = ""

    # -- at the start ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Come up with the version that answered when the daemon ended; the first time, with the configured bundle.

        Raises:
            InputError: there is no version yet, and no bundle.
            IntegrityError: the only version there is is damaged, or not trusted.
        """
        version = self._archive.start()
        path = self._archive.store.path(version.digest)
        self.active = self._make(self.section, open_bundle(path), version.version)
        self.active.announced = True
        try:
            self._archive.opened(version)
        except IntegrityError as error:  # what comes in is kept until there is a version that may run
            self.active.forbid(error)
        if version.stage is Stage.PROBATION:
            self._watch_until_ns = time.monotonic_ns() + self.section.trial.watch_ns
        self._archive.sweep()
        self.reconfigured(self.section.bundle)

    def reconfigured(self, path: Path) -> None:
        """The configuration names this bundle: propose it, unless it is known. What is wrong with it is an alarm."""
        try:
            digest = open_bundle(path).digest
            known = next((version for version in self._archive.versions if version.digest == digest), None)
            if known is None:
                self.propose(path, user="configuration")
            elif known.stage not in ANSWERS:
                log.warning("%s: the configured bundle is version %s: %s", self.name, known.version, known.stage.value)
        except EdgemedError as error:
            log.warning("the bundle that is configured for %s is not taken: %s", self.name, error.what)

    def check_trust(self) -> None:
        """The lists of keys may have changed: what may not run any more does not."""
        try:
            self._archive.opened(self._version(self.active))
        except IntegrityError as error:
            if self._archive.before() is not None:
                self._back = (f"It may not run any more. {error.what}", "")
            else:
                self.active.forbid(error)

    # -- proposals -------------------------------------------------------------------------------------------------

    def propose(self, path: Path, *, older: bool = False, user: str = "") -> str:
        """Take a new version; what it goes through comes later, by `step`.

        Args:
            path: of the bundle; it is copied.
            older: its sequence may be lower than one that has answered here.
            user: who wants it.

        Returns:
            Its version.

        Raises:
            InputError: no bundle, an assumed recipe, or it cannot be compared with the active version.
            IntegrityError: damaged, not trusted, or older.
            ResourceError: the disk did not take it.
        """
        return self._archive.propose(path, self.active, older=older, user=user)

    # -- step by step ----------------------------------------------------------------------------------------------

    @property
    def finding(self) -> Finding | None:
        """Why what answers is not ready, or worse than usual."""
        hot = self.hot
        if hot is None:
            return self.active.finding
        found = hot.finding
        worse = Finding(self.name, "The smaller model answers: the device throttles.", stops=False)
        return found if found is not None and found.stops else worse

    @property
    def loaded(self) -> list[HostedModel]:
        """All that have workers."""
        models = (self.hot, self.active, self.previous, self.candidate, *self._closing)
        return [model for model in models if model is not None]

    def step(self, now_ns: int) -> None:
        """Go on with what is under way; a few times a second."""
        if self._back is not None:
            self._roll_back(*self._back)
            self._back = None
        for model in self._closing[:]:
            if not len(model.scheduler) and now_ns - model.used_ns > _UNUSED_NS:
                model.close()
                self._closing.remove(model)
        if now_ns >= self._scan_ns:
            self._scan_ns = now_ns + _SCAN_NS
            self._take_dropped()
        if self._watch_until_ns is not None:
            self._watch(now_ns, self._watch_until_ns)
        elif self.candidate is None:
            self._begin()
        elif self.trial is None:
            self._check_golden(self.candidate)
        elif self.trial.done:
            self._judge(self.candidate, self.trial)

    def _take_dropped(self) -> None:
        path = self._archive.store.settled()
        if path is None:
            return
        try:
            self.propose(path, user="candidates")
        except EdgemedError as error:
            log.error("a candidate of %s was refused: %s", self.name, error)
            self._archive.store.put_aside(path)
        else:
            shutil.rmtree(path, ignore_errors=True)

    def _begin(self) -> None:
        """Load the oldest version that waits, where there is room beside the active one."""
        version = next((version for version in self._archive.versions if version.stage in WAITS), None)
        if version is None:
            return
        lacking = room_for(self.active)
        if lacking is not None:
            self._say(f"version {version.version} of {self.name} waits: {lacking}")
            return
        try:
            self.candidate = self._make(self.section, self._archive.opened(version), version.version)
        except EdgemedError as error:
            self._reject(version, error.what)
            return
        self.candidate.load()
        log.info("version %s of %s is loaded beside the active one", version.version, self.name)

    def _check_golden(self, candidate: HostedModel) -> None:
        version = self._version(candidate)
        if candidate.given_up or candidate.wrong:
            found = candidate.finding
            self._reject(version, found.reason if found is not None else "Its worker was given up.")
        elif candidate.finding is None:
            if not self.section.trial.inputs or self.active.given_up:
                self._switch(candidate, "Its golden vectors were answered rightly.")
                return
            if version.stage is Stage.CANDIDATE:
                self._archive.move(version, Happening.TRY, "Its golden vectors were answered rightly.")
            self.trial = Trial(self.active, candidate, self.section.trial)

    def _judge(self, candidate: HostedModel, trial: Trial) -> None:
        trial.close()
        report = trial.report()
        self.trial = None
        text = report.model_dump_json(by_alias=True, indent=2)
        write_atomic(self._archive.store.report(candidate.bundle.digest), text.encode() + b"\n")
        if report.passed:
            self._switch(candidate, f"It agreed on {report.inputs - report.disagreed} of {report.inputs} live inputs.")
        else:
            self._reject(self._version(candidate), " ".join(report.reasons))

    def _switch(self, candidate: HostedModel, reason: str) -> None:
        """The journal first, then one assignment: who asks from now on is answered by the new version."""
        version = self._version(candidate)
        try:
            self._archive.switch(version, reason)
        except IntegrityError as error:  # a newer one has answered since it was proposed
            self._reject(version, error.what)
            return
        candidate.tally = Tally()
        self._lost = candidate.rebuilds
        self._answer_by(candidate)
        self.candidate = None
        self._watch_until_ns, self._down_ns = time.monotonic_ns() + self.section.trial.watch_ns, None

    def _answer_by(self, model: HostedModel) -> None:
        """The one assignment; alarms and figures are about that version from here on."""
        before = self.active
        before.announced, model.announced = False, True
        self.active, self.previous = model, before

    # -- probation -------------------------------------------------------------------------------------------------

    def _watch(self, now_ns: int, until_ns: int) -> None:
        why = self._fails(now_ns)
        if why is not None:
            self._roll_back(why, "")
        elif now_ns >= until_ns:
            self._watch_until_ns = None
            version = self._version(self.active)
            self._archive.move(version, Happening.SETTLE, "It answered well while it was watched.")
            self._retire_previous()

    def _fails(self, now_ns: int) -> str | None:
        active, rules = self.active, self.section.trial
        if active.wrong:
            return "It answered its golden vectors wrongly."
        if active.given_up:
            return "Its worker was given up."
        self._down_ns = (self._down_ns or now_ns) if active.stopped else None
        if self._down_ns is not None and now_ns - self._down_ns > _DOWN_NS:
            return "It does not answer."
        lost = active.rebuilds - self._lost
        if active.tally.failed + lost >= rules.failures:
            return f"{active.tally.failed} requests failed, and {lost} workers were lost."
        ours = self.previous.tally.median_ns(_LEAST_TIMES) if self.previous is not None else None
        theirs = active.tally.median_ns(_LEAST_TIMES)
        if ours is not None and theirs is not None and slower(theirs, ours, rules.slower):
            return f"It takes {theirs / 1e6:.1f} ms where the version before took {ours / 1e6:.1f} ms."
        return None

    def roll_back(self, user: str) -> None:
        """Somebody wants the previous version back; the next step does it.

        Raises:
            InputError: there is none that may run.
        """
        if self._archive.before() is None:
            raise InputError(f"There is no version of {self.name} to go back to.", "Propose one.")
        self._back = ("Somebody asked for it.", user)

    def _roll_back(self, reason: str, user: str) -> None:
        """The journal first; where that does not take it, the next step tries again."""
        before = self._archive.before()
        if before is None:
            self._watch_until_ns = None
            self._archive.no_way_back(reason)
            return
        if self.previous is None or self.previous.bundle.digest != before.digest:
            self._retire_previous()
            self.previous = self._make(self.section, self._archive.opened(before), before.version)
            self.previous.load()
        self._archive.roll_back(reason, user)
        self._watch_until_ns = None
        self._answer_by(self.previous)
        if self.trial is not None:  # it compares with a version that goes
            self.trial.close()
            self.trial = None
        self._retire_previous()
        self._archive.sweep()

    def _retire_previous(self) -> None:
        """The one before needs no worker any more; its bytes stay."""
        if self.previous is not None:
            self._closing.append(self.previous)
            self.previous = None

    # -- small things ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all workers."""
        if self.trial is not None:
            self.trial.close()
        for model in self.loaded:
            model.close()

    def describe(self) -> dict[str, Any]:
        """For pages and programs: JSON."""
        return {
            "versions": [
                {
                    "version": version.version,
                    "digest": version.digest,
                    "sequence": version.sequence,
                    "state": version.stage.value,
                    "reason": version.reason,
                    "changed": version.changed,
                }
                for version in self._archive.versions
            ],
            "candidate": None if self.candidate is None else self.candidate.version,
            "compared": None if self.trial is None else [self.trial.inputs, self.section.trial.inputs],
            "on_probation": self._watch_until_ns is not None,
        }

    def _reject(self, version: Version, reason: str) -> None:
        self._archive.move(version, Happening.FAIL, reason)
        if self.candidate is not None:
            self._closing.append(self.candidate)
            self.candidate = None
        self._archive.sweep()
        self._archive.refused(f"Version {version.version} of {self.name} did not pass: {reason}")

    def _version(self, model: HostedModel) -> Version:
        return next(version for version in self._archive.versions if version.digest == model.bundle.digest)

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            log.warning("%s", text)
