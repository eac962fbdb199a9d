"""The smaller model that takes over while the device throttles, and hands back when the active one is right again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

from edgemed.base.errors import EdgemedError, IntegrityError
from edgemed.bundle.trust import Trust, open_trusted
from edgemed.runners.golden import GoldenResult
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.models.archive import Keepers
from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.models.lifecycle import Line, Make
from edgemed.serve.models.store import BundleStore
from edgemed.serve.thermal import Heat

log = logging.getLogger(__name__)


class HotStandby:
    """Of one line that has a `hot` bundle.

    Args:
        line: the versions whose place it takes.
        model: of the smaller bundle; loaded when it becomes warm.
        trust: whose bundles may run; asked anew each time.
        keepers: alarms and audit trail.
    """

    def __init__(self, line: Line, model: HostedModel, trust: Callable[[], Trust], keepers: Keepers) -> None:
        self._line, self.model = line, model
        self._trust, self._keepers = trust, keepers
        self._heat = Heat.NORMAL
        self._loaded = False
        self._check: Future[GoldenResult] | None = None

    def heat(self, heat: Heat) -> None:
        """The device has become warmer, or cooler."""
        self._heat = heat

    def check_trust(self) -> None:
        """The lists of keys may have changed: one that may not run any more does not, and the active one answers."""
        if self.model.forbidden:
            return
        try:
            open_trusted(self.model.bundle.path, self._trust())
        except IntegrityError as error:
            self._line.hot = None
            self.model.forbid(error)
            _refused(self._line.name, error, self._keepers)

    def tend(self, now_ns: int) -> None:
        """Load it, let it take over, hand back; a few times a second."""
        if self.model.forbidden:
            self._line.hot = None  # it may have taken over in the very moment
            return
        if self._heat is not Heat.NORMAL and not self._loaded:
            self._loaded = True
            self.model.load()
        if self._loaded:
            self.model.tend(now_ns)
        if self._heat is Heat.THROTTLED:
            self._check = None
            if self._line.hot is None and self.model.finding is None:
                log.warning("the smaller model of %s answers while the device throttles", self._line.name)
                self._line.hot = self.model
        elif self._line.hot is not None:
            self._hand_back()

    def _hand_back(self) -> None:
        """After a golden inference that began when the device had recovered."""
        if self._check is None:
            self._check = self._line.active.check()
        elif self._check.done():
            try:
                right = self._check.result().passed
            except EdgemedError as error:
                log.error("%s cannot be checked: %s", self._line.name, error)
                right = False
            self._check = None
            if right:
                self._line.hot = None

    def close(self) -> None:
        self.model.close()


def standby_of(
    line: Line, store: BundleStore, make: Make, trust: Callable[[], Trust], keepers: Keepers
) -> HotStandby | None:
    """The smaller model of a line, run from a copy of our own; `None`, with an alarm, where it may not run.

    Raises:
        InputError: there is no bundle, or its recipe was assumed.
        ResourceError: the disk did not take it.
    """
    assert line.section.hot is not None, "asked for lines that have one"
    store.prepare()
    try:
        bundle, _ = store.add(line.section.hot, trust())
    except IntegrityError as error:  # no reason to keep the usual one from answering
        _refused(line.name, error, keepers)
        return None
    store.keep({bundle.digest})
    keepers.alarms.clear("model-rejected", f"hot {line.name}")
    return HotStandby(line, make(line.section, bundle, "hot"), trust, keepers)


def _refused(name: str, error: IntegrityError, keepers: Keepers) -> None:
    what = f"The smaller model of {name} may not run: {error.what}"
    keepers.alarms.raise_("model-rejected", what, f"hot {name}")
    keepers.audit.record(AuditEvent("model", "serious", detail=what))
