"""What is known of the versions of one model, and kept: journal, bundles, trust, alarms and audit trail in one hand."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgemed.base.errors import EdgemedError, InputError, IntegrityError
from edgemed.bundle.model import specs_of
from edgemed.bundle.read import Bundle, open_bundle
from edgemed.bundle.trust import Trust, open_trusted
from edgemed.recipe.schema import load_recipe
from edgemed.serve.alarms import Alarms
from edgemed.serve.audit.trail import Audit, AuditEvent, Result
from edgemed.serve.config.models import ModelSection
from edgemed.serve.journal.database import Journal
from edgemed.serve.models import releases
from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.models.releases import ANSWERS, STORED, Happening, Stage, Version
from edgemed.serve.models.store import BundleStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keepers:
    """What a line writes to."""

    journal: Journal
    alarms: Alarms
    audit: Audit


class Archive:
    """Of one model.

    Args:
        section: of the model.
        store: its bundles.
        trust: whose bundles may run; asked anew each time, for the list of what was revoked grows.
        keepers: journal, alarms, audit trail.
    """

    def __init__(self, section: ModelSection, store: BundleStore, trust: Callable[[], Trust], keepers: Keepers) -> None:
        self.section, self.store = section, store
        self.name = section.name
        self._trust, self._keepers = trust, keepers
        self._lock = threading.Lock()  # of proposals, which come from many threads

    @property
    def versions(self) -> list[Version]:
        """All that the journal knows, oldest first."""
        with self._keepers.journal.read() as connection:
            return releases.versions(connection, self.name)

    def start(self) -> Version:
        """The version that answers at the start; the first time, the configured bundle.

        Raises:
            InputError: there is no version yet, and no bundle.
            IntegrityError: the bundle is damaged, or not trusted.
        """
        self.store.prepare()
        return self._first() if releases.answering(self.versions) is None else self._answering()

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
        self.audit("success", f"{self.name}: {bundle.digest} is the first version.")
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
            before = None if self._mended(version) else self.before()
            if before is not None:
                self.roll_back(f"It may not run any more. {error.what}")
                return before
        return version

    def _mended(self, version: Version) -> bool:
        """Whether the configured bundle is the same one, and whole: it is copied again."""
        try:
            same = open_bundle(self.section.bundle).digest == version.digest
            return same and self.store.add(self.section.bundle, self._trust())[0].digest == version.digest
        except EdgemedError:
            return False

    def before(self) -> Version | None:
        """The previous version, where it may run."""
        before = next((version for version in self.versions if version.stage is Stage.PREVIOUS), None)
        if before is not None:
            try:
                open_trusted(self.store.path(before.digest), self._trust())
            except EdgemedError as error:
                log.error("the previous version of %s may not run: %s", self.name, error.what)
                return None
        return before

    def opened(self, version: Version) -> Bundle:
        """Its bundle, checked.

        Raises:
            EdgemedError: it is damaged, or may not run any more.
        """
        return open_trusted(self.store.path(version.digest), self._trust())[0]

    def propose(self, path: Path, active: HostedModel, *, older: bool, user: str) -> str:
        """Take a new version, or refuse it; see `Line.propose`."""
        with self._lock:
            try:
                return self._propose(path, active, older, user)
            except EdgemedError as error:
                self.refused(f"A new version of {self.name} was not taken: {error.what}", user)
                raise

    def _propose(self, path: Path, active: HostedModel, older: bool, user: str) -> str:
        bundle, signed = self.store.add(path, self._trust())
        known = next((version for version in self.versions if version.digest == bundle.digest), None)
        if known is not None and known.stage in (*ANSWERS, Stage.SHADOW):
            return known.version
        self._check_comparable(active, bundle)
        sequence = signed.release.sequence if signed is not None else None

        def work(connection: sqlite3.Connection) -> None:
            if not older:
                self._check_sequence(connection, sequence)
            path, reason = self._relative(bundle.digest), f"Proposed by {user or 'somebody'}."
            releases.propose(connection, self.name, bundle.digest, path, sequence, reason, older=older)

        self._keepers.journal.write(work)
        version = next(version for version in self.versions if version.digest == bundle.digest)
        self.audit("success", f"{self.name}: version {version.version} was proposed ({bundle.digest}).", user)
        return version.version

    def _check_sequence(self, connection: sqlite3.Connection, sequence: int | None) -> None:
        highest = max(releases.highest(connection, self.name), self.store.remembered()[1])
        if sequence is not None and sequence < highest:
            raise IntegrityError(
                f"It is older than what has run here: sequence {sequence}, after {highest}.",
                "Take the newest one; an operator may allow an older one.",
            )

    def _check_comparable(self, active: HostedModel, bundle: Bundle) -> None:
        """A trial gives both the same feeds: they have to mean the same to both."""
        if not self.section.trial.inputs:
            return
        ours, theirs = (load_recipe(b.file(b.manifest.recipe.path)).input for b in (active.bundle, bundle))
        if specs_of(bundle) != active.specs or ours != theirs:
            raise InputError(
                "It takes or gives other tensors than the active version, or its recipe makes other inputs: on live"
                " inputs the two cannot be compared.",
                "Switch without a trial (inputs = 0 in [models.trial]), or give it a name of its own.",
            )

    def switch(self, version: Version, reason: str) -> None:
        """A version answers from now on.

        Raises:
            IntegrityError: a newer one has answered since it was proposed.
        """

        def work(connection: sqlite3.Connection) -> None:
            if not version.older:
                self._check_sequence(connection, version.sequence)
            releases.switch(connection, self.name, version.number, reason)

        self._keepers.journal.write(work)
        self._remember(version)
        self.sweep()
        for code in ("model-rejected", "model-rolled-back"):
            self._keepers.alarms.clear(code, self.name)
        self.audit("success", f"{self.name}: version {version.version} answers. {reason}")
        log.info("version %s of %s answers: %s", version.version, self.name, reason)

    def roll_back(self, reason: str, user: str = "") -> None:
        """The version that answers is rejected; the one before answers again."""
        self._keepers.journal.write(lambda connection: releases.roll_back(connection, self.name, reason))
        answers = releases.answering(self.versions)
        if answers is not None:
            self._remember(answers)
        what = f"The new version of {self.name} was taken back: {reason}"
        self._keepers.alarms.raise_("model-rolled-back", what, self.name)
        self.audit("serious", what, user)

    def _remember(self, version: Version) -> None:
        """Beside the journal, which has decided: a disk that does not take this keeps no version from answering."""
        try:
            self.store.remember(version.digest, version.sequence or 0)
        except EdgemedError as error:
            log.error("which version of %s answers stands in the journal alone: %s", self.name, error.what)

    def no_way_back(self, reason: str) -> None:
        """A version fails, and there is none before it."""
        what = f"{self.name} fails, and there is no version to go back to. {reason}"
        self._keepers.alarms.raise_("model-rolled-back", what, self.name)

    def refused(self, what: str, user: str = "") -> None:
        """Tell everybody that a version was not taken, or did not pass."""
        self._keepers.alarms.raise_("model-rejected", what, self.name)
        self.audit("serious", what, user)

    def move(self, version: Version, what: Happening, reason: str) -> None:
        """Something has happened to a version."""
        self._keepers.journal.write(lambda connection: releases.move(connection, version.number, what, reason))

    def sweep(self) -> None:
        """Remove bundles of versions that are of no use any more."""
        with self._lock:  # a proposal is on the disk before it is in the journal
            self.store.keep({version.digest for version in self.versions if version.stage in STORED})

    def _relative(self, digest: str) -> str:
        path = self.store.path(digest)
        return str(path.relative_to(path.parents[2]))

    def audit(self, result: Result, detail: str, user: str = "") -> None:
        """An entry of the audit trail."""
        self._keepers.audit.record(AuditEvent("model", result, user=user, detail=detail))
