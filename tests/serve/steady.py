"""pynetdicom as the peer of tests, without its race that a busy machine loses.

It has a thread that takes what the peer sends, and rests it while a request waits for its answer. That the thread rests
it says in `_is_paused`, which stays true for a moment after it has gone on: a request that looks at that moment sends,
and the thread takes its answer and drops it (pynetdicom 3.0, `Association.run_reactor` and `send_*`).
"""

from __future__ import annotations

import threading
from typing import Any

from pynetdicom.association import Association


class Checkpoint(threading.Event):
    """Where the thread rests: that it goes on, and that it says so, are one step."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._step = threading.Lock()
        self.set()

    def clear(self) -> None:
        with self._step:
            super().clear()

    def wait(self, timeout: float | None = None) -> bool:
        while True:
            super().wait()
            with self._step:
                if self.is_set():
                    self._association._is_paused = False
                    return True


def make_steady() -> None:
    """All associations of this process, once."""
    begin = Association.__init__

    def steady(self: Association, *values: Any, **others: Any) -> None:
        begin(self, *values, **others)
        self._reactor_checkpoint = Checkpoint(self)

    Association.__init__ = steady  # type: ignore[method-assign]
