"""The versions of one model: which one answers, and what a new one goes through before it does.

propose → hashes, signature, rollback protection, a copy of our own → CANDIDATE → loaded beside the active one, golden
vectors → SHADOW, live inputs → the switch → PROBATION → ACTIVE; what fails is REJECTED, and the one before answers on.
Each step is in the journal before it has an effect: a restart comes up with what the journal says.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgemed.base.errors import EdgemedError, InputError, IntegrityError
from edgemed.base.store import write_atomic
from edgemed.bundle.model import specs_of
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.bundle.trust import Trust, open_trusted
from edgemed.recipe.schema import load_recipe
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.trail import Audit, AuditEvent, Result
from edgemed.serve.config import ModelSection
from edgemed.serve.journal.database import Journal
from edgemed.serve.models import releases
from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.models.releases import ANSWERS, STORED, WAITS, Happening, Stage, Version
from edgemed.serve.models.room import room_for
from edgemed.serve.models.store import BundleStore
from edgemed.serve.models.tally import Tally
from edgemed.serve.models.trial import Trial, slower
from edgemed.serve.readiness import Finding

log = logging.getLogger(__name__)

_LEAST_TIMES: Final = 20  # requests before a median says anything
_DOWN_NS: Final = 15_000_000_000  # longer than a rebuild: a version on probation that does not answer is taken back
_UNUSED_NS: Final = 5_000_000_000  # whoever has begun with a version ends with it
_SCAN_NS: Final = 1_000_000_000

Make = Callable[[ModelSection, Bundle, str], HostedModel]


@dataclass(frozen=True)
class Keepers:
    """What a line writes to."""

    journal: Journal
    alarms: Alarms
    audit: Audit


class Line:
    """See the module.

    Args:
        section: of the model.
        store: its bundles.
        trust: whose bundles may run; asked anew each time, for the list of what was revoked grows.
        keepers: journal, alarms, audit trail.
        make: makes a version, not loaded yet.
    """

    def __init__(
        self, section: ModelSection, store: BundleStore, trust: Callable[[], Trust], keepers: Keepers, make: Make
    ) -> None:
        self.section, self.store = section, store
        self.name = section.name
        self._trust, self._keepers, self._make = trust, keepers, make
        self._lock = threading.Lock()  # of proposals, which come from many threads
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
        self.store.prepare()
        version = self._first() if releases.answering(self.versions) is None else self._answering()
        path = self.store.path(version.digest)
        self.active = self._make(self.section, open_bundle(path), version.version)
        self.active.announced = True
        try:
            open_trusted(path, self._trust())
        except IntegrityError as error:  # what comes in is kept until there is a version that may run
            self.active.forbid(error)
        if version.stage is Stage.PROBATION:
            self._watch_until_ns = time.monotonic_ns() + self.section.trial.watch_ns
        self._sweep()
        self.reconfigured(self.section.bundle)

    def _first(self) -> Version:
        """The configured bundle, or the one that answered before the journal was lost."""
        digest, _ = self.store.remembered()
        kept = None if digest is None else self.store.path(digest)
        source = kept if kept is not None and kept.is_dir() else self.section.bundle
        bundle, signed = self.store.add(source, self._trust())
        sequence = signed.release.sequence if signed is not None else None

        def work(connection: sqlite3.Connection) -> None:
            self._check_sequence(connection, sequence)
            number = releases.propose(connection, self.name, bundle.digest, self._relative(bundle.digest), sequence)
            releases.switch(connection, self.name, number, "It is the first version here.")

        self._keepers.journal.write(work)
        self.store.remember(bundle.digest, sequence or 0)
        self._audit("success", f"{self.name}: {bundle.digest} is the first version.")
        version = releases.answering(self.versions)
        assert version is not None, "written above"
        return version

    def _answering(self) -> Version:
        """The one of the journal; the one before, where it may not run any more."""
        version = releases.answering(self.versions)
        assert version is not None, "asked for above"
        try:
            open_trusted(self.store.path(version.digest), self._trust())
        except EdgemedError as error:
            before = None if self._mended(version) else self._before()
            if before is not None:
                self._write_roll_back(f"It may not run any more. {error.what}")
                return before
        return version

    def _mended(self, version: Version) -> bool:
        """Whether the configured bundle is the same one, and whole: it is copied again."""
        try:
            same = open_bundle(self.section.bundle).digest == version.digest
            return same and self.store.add(self.section.bundle, self._trust())[0].digest == version.digest
        except EdgemedError:
            return False

    def _before(self) -> Version | None:
        """The previous version, where it may run."""
        before = next((version for version in self.versions if version.stage is Stage.PREVIOUS), None)
        if before is not None:
            try:
                open_trusted(self.store.path(before.digest), self._trust())
            except EdgemedError as error:
                log.error("the previous version of %s may not run: %s", self.name, error.what)
                return None
        return before

    def reconfigured(self, path: Path) -> None:
        """The configuration names this bundle: propose it, unless it is known. What is wrong with it is an alarm."""
        try:
            digest = open_bundle(path).digest
            known = next((version for version in self.versions if version.digest == digest), None)
            if known is None:
                self.propose(path, user="configuration")
            elif known.stage not in ANSWERS:
                log.warning("%s: the configured bundle is version %s: %s", self.name, known.version, known.stage.value)
        except EdgemedError as error:
            log.warning("the bundle that is configured for %s is not taken: %s", self.name, error.what)

    def check_trust(self) -> None:
        """The lists of keys may have changed: what may not run any more does not."""
        try:
            open_trusted(self.store.path(self.active.bundle.digest), self._trust())
        except IntegrityError as error:
            if self._before() is not None:
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
        with self._lock:
            try:
                return self._propose(path, older, user)
            except EdgemedError as error:
                self._refused(f"A new version of {self.name} was not taken: {error.what}", user)
                raise

    def _propose(self, path: Path, older: bool, user: str) -> str:
        bundle, signed = self.store.add(path, self._trust())
        known = next((version for version in self.versions if version.digest == bundle.digest), None)
        if known is not None and known.stage in (*ANSWERS, Stage.SHADOW):
            return known.version
        self._check_comparable(bundle)
        sequence = signed.release.sequence if signed is not None else None

        def work(connection: sqlite3.Connection) -> None:
            if not older:
                self._check_sequence(connection, sequence)
            path = self._relative(bundle.digest)
            releases.propose(connection, self.name, bundle.digest, path, sequence, f"Proposed by {user or 'somebody'}.")

        self._keepers.journal.write(work)
        version = next(version for version in self.versions if version.digest == bundle.digest)
        self._audit("success", f"{self.name}: version {version.version} was proposed ({bundle.digest}).", user)
        return version.version

    def _check_sequence(self, connection: sqlite3.Connection, sequence: int | None) -> None:
        highest = max(releases.highest(connection, self.name), self.store.remembered()[1])
        if sequence is not None and sequence < highest:
            raise IntegrityError(
                f"It is older than what has run here: sequence {sequence}, after {highest}.",
                "Take the newest one; an operator may allow an older one.",
            )

    def _check_comparable(self, bundle: Bundle) -> None:
        """A trial gives both the same feeds: they have to mean the same to both."""
        if not self.section.trial.inputs:
            return
        ours, theirs = (load_recipe(b.file(b.manifest.recipe.path)).input for b in (self.active.bundle, bundle))
        if specs_of(bundle) != self.active.specs or ours != theirs:
            raise InputError(
                "It takes or gives other tensors than the active version, or its recipe makes other inputs: on live"
                " inputs the two cannot be compared.",
                "Switch without a trial (inputs = 0 in [models.trial]), or give it a name of its own.",
            )

    # -- step by step ----------------------------------------------------------------------------------------------

    @property
    def versions(self) -> list[Version]:
        """All that the journal knows, oldest first."""
        with self._keepers.journal.read() as connection:
            return releases.versions(connection, self.name)

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
            (why, user), self._back = self._back, None
            self._roll_back(why, user)
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
        path = self.store.settled()
        if path is None:
            return
        try:
            self.propose(path, user="candidates")
        except EdgemedError as error:
            log.error("a candidate of %s was refused: %s", self.name, error)
            self.store.put_aside(path)
        else:
            shutil.rmtree(path, ignore_errors=True)

    def _begin(self) -> None:
        """Load the oldest version that waits, where there is room beside the active one."""
        version = next((version for version in self.versions if version.stage in WAITS), None)
        if version is None:
            return
        lacking = room_for(self.active)
        if lacking is not None:
            self._say(f"version {version.version} of {self.name} waits: {lacking}")
            return
        try:
            bundle, _ = open_trusted(self.store.path(version.digest), self._trust())
            self.candidate = self._make(self.section, bundle, version.version)
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
                self._move(version, Happening.TRY, "Its golden vectors were answered rightly.")
            self.trial = Trial(self.active, candidate, self.section.trial)

    def _judge(self, candidate: HostedModel, trial: Trial) -> None:
        trial.close()
        report = trial.report()
        self.trial = None
        text = report.model_dump_json(by_alias=True, indent=2)
        write_atomic(self.store.report(candidate.bundle.digest), text.encode() + b"\n")
        if report.passed:
            self._switch(candidate, f"It agreed on {report.inputs - report.disagreed} of {report.inputs} live inputs.")
        else:
            self._reject(self._version(candidate), " ".join(report.reasons))

    def _switch(self, candidate: HostedModel, reason: str) -> None:
        """The journal first, then one assignment: who asks from now on is answered by the new version."""
        version = self._version(candidate)
        self._keepers.journal.write(lambda c: releases.switch(c, self.name, version.number, reason))
        self.store.remember(version.digest, version.sequence or 0)
        candidate.tally = Tally()
        self._lost = candidate.rebuilds
        self._answer_by(candidate)
        self.candidate = None
        self._watch_until_ns, self._down_ns = time.monotonic_ns() + self.section.trial.watch_ns, None
        self._sweep()
        for code in ("model-rejected", "model-rolled-back"):
            self._keepers.alarms.clear(code, self.name)
        self._audit("success", f"{self.name}: version {candidate.version} answers. {reason}")
        log.info("version %s of %s answers: %s", candidate.version, self.name, reason)

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
            self._move(version, Happening.SETTLE, "It answered well while it was watched.")
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
        if self._before() is None:
            raise InputError(f"There is no version of {self.name} to go back to.", "Propose one.")
        self._back = ("Somebody asked for it.", user)

    def _roll_back(self, reason: str, user: str) -> None:
        self._watch_until_ns = None
        before = self._before()
        if before is None:
            what = f"{self.name} fails, and there is no version to go back to. {reason}"
            self._keepers.alarms.raise_("model-rolled-back", what, self.name)
            return
        if self.trial is not None:  # it compares with a version that goes
            self.trial.close()
            self.trial = None
        old = self.previous
        if old is None or old.bundle.digest != before.digest:
            bundle, _ = open_trusted(self.store.path(before.digest), self._trust())
            old = self._make(self.section, bundle, before.version)
            old.load()
        self._write_roll_back(reason, user)
        self._answer_by(old)
        self._retire_previous()
        self._sweep()

    def _write_roll_back(self, reason: str, user: str = "") -> None:
        self._keepers.journal.write(lambda connection: releases.roll_back(connection, self.name, reason))
        answers = releases.answering(self.versions)
        if answers is not None:
            self.store.remember(answers.digest, answers.sequence or 0)
        what = f"The new version of {self.name} was taken back: {reason}"
        self._keepers.alarms.raise_("model-rolled-back", what, self.name)
        self._audit("serious", what, user)

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
                for version in self.versions
            ],
            "candidate": None if self.candidate is None else self.candidate.version,
            "compared": None if self.trial is None else [self.trial.inputs, self.section.trial.inputs],
            "on_probation": self._watch_until_ns is not None,
        }

    def _reject(self, version: Version, reason: str) -> None:
        self._move(version, Happening.FAIL, reason)
        if self.candidate is not None:
            self._closing.append(self.candidate)
            self.candidate = None
        self._sweep()
        self._refused(f"Version {version.version} of {self.name} did not pass: {reason}")

    def _refused(self, what: str, user: str = "") -> None:
        self._keepers.alarms.raise_("model-rejected", what, self.name)
        self._audit("serious", what, user)

    def _move(self, version: Version, what: Happening, reason: str) -> None:
        self._keepers.journal.write(lambda connection: releases.move(connection, version.number, what, reason))

    def _version(self, model: HostedModel) -> Version:
        return next(version for version in self.versions if version.digest == model.bundle.digest)

    def _sweep(self) -> None:
        with self._lock:  # a proposal is on the disk before it is in the journal
            self.store.keep({version.digest for version in self.versions if version.stage in STORED})

    def _relative(self, digest: str) -> str:
        path = self.store.path(digest)
        return str(path.relative_to(path.parents[2]))

    def _audit(self, result: Result, detail: str, user: str = "") -> None:
        self._keepers.audit.record(AuditEvent("model", result, user=user, detail=detail))

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            log.warning("%s", text)
