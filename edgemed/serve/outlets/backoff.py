"""When to try again: doubling with jitter, up to a cap."""

from __future__ import annotations

import random
from dataclasses import dataclass

from edgemed.serve.config.destinations import Retry

_DOUBLINGS = 40  # more overflow nothing, but say nothing either


def pause_ns(retry: Retry, failures: int, wish_ns: int | None = None) -> int:
    """How long to wait after so many failures in a row, in ns.

    Args:
        retry: of the destination.
        failures: at least 1.
        wish_ns: what the peer asked for; it counts where it is longer, up to the cap or an hour.
    """
    whole = min(retry.cap_ns, retry.first_ns << min(failures - 1, _DOUBLINGS))
    pause = whole // 2 + random.randrange(whole // 2 + 1)  # noqa: S311 - jitter, not a secret
    if wish_ns is not None:
        pause = max(pause, min(wish_ns, max(retry.cap_ns, 3_600_000_000_000)))
    return pause


@dataclass
class Hold:
    """Failures in a row of one thing, and when it may be tried again.

    Attributes:
        failures: in a row.
        next_ns: `time.monotonic_ns` of the next try.
        reason: of the last failure.
    """

    failures: int = 0
    next_ns: int = 0
    reason: str = ""

    def failed(self, retry: Retry, now_ns: int, reason: str, wish_ns: int | None = None) -> None:
        self.failures += 1
        self.next_ns = now_ns + pause_ns(retry, self.failures, wish_ns)
        self.reason = reason

    def worked(self) -> None:
        self.failures, self.next_ns, self.reason = 0, 0, ""
