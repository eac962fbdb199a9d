"""Whether the daemon is live and ready, and why not. Ready: the last golden inference was right, and is recent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Light = Literal["ready", "degraded", "not-ready"]
Check = Callable[[], "Finding | None"]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        subject: a model, a loop, the disk.
        reason: a sentence for people.
        stops: nothing right can be answered because of it; else it is only worse than usual.
    """

    subject: str
    reason: str
    stops: bool = True


class Readiness:
    """Asks everybody who has a say. A check that raises is a finding by itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._checks: dict[str, Check] = {}
        self.live_checks: dict[str, Check] = {}

    def register(self, name: str, check: Check, *, live: bool = False) -> None:
        """Let `check` have a say: `None` where all is well.

        Args:
            name: of the check; registered again, it replaces.
            check: quick, and free of locks that may be held for long.
            live: it says whether the daemon itself works (loops beat); else, whether it answers rightly.
        """
        with self._lock:
            (self.live_checks if live else self._checks)[name] = check

    @property
    def live(self) -> list[Finding]:
        """Why it does not work; empty where it does."""
        return self._ask(self.live_checks)

    @property
    def findings(self) -> list[Finding]:
        """Everything that is not as it should be, what stops it first."""
        return sorted(self.live + self._ask(self._checks), key=lambda finding: not finding.stops)

    @property
    def ready(self) -> bool:
        return not any(finding.stops for finding in self.findings)

    @property
    def light(self) -> Light:
        """What the page shows."""
        findings = self.findings
        if any(finding.stops for finding in findings):
            return "not-ready"
        return "degraded" if findings else "ready"

    def _ask(self, checks: dict[str, Check]) -> list[Finding]:
        with self._lock:
            asked = list(checks.items())
        found = []
        for name, check in asked:
            try:
                finding = check()
            except Exception as error:
                finding = Finding(name, f"It cannot be told: {type(error).__name__}.")
            if finding is not None:
                found.append(finding)
        return found
