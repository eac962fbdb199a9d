"""The smaller model that takes over while the device throttles, and hands back when the active one is right again."""

from __future__ import annotations

import logging
from concurrent.futures import Future

from edgemed.base.errors import EdgemedError
from edgemed.runners.golden import GoldenResult
from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.models.lifecycle import Line
from edgemed.serve.thermal import Heat

log = logging.getLogger(__name__)


class HotStandby:
    """Of one line that has a `hot` bundle.

    Args:
        line: the versions whose place it takes.
        model: of the smaller bundle; loaded when it becomes warm.
    """

    def __init__(self, line: Line, model: HostedModel) -> None:
        self._line, self.model = line, model
        self._heat = Heat.NORMAL
        self._loaded = False
        self._check: Future[GoldenResult] | None = None

    def heat(self, heat: Heat) -> None:
        """The device has become warmer, or cooler."""
        self._heat = heat

    def tend(self, now_ns: int) -> None:
        """Load it, let it take over, hand back; a few times a second."""
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
