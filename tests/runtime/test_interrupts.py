"""Ctrl-C in a ring, at many moments: nothing waits for ever, and every frame is accounted for."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

_PATIENCE_S = 60  # the rounds take seconds

# signals go to the main thread alone, at a moment that the machine chooses; so the rounds have a process of their own,
# and there are so many that each place where Python looks for signals is met
_ROUNDS = """
import faulthandler, random, signal
from edgemed.runtime.policy import Policy
from edgemed.runtime.ring import Ring
from tests.runtime.lanes import frame, frames, is_right, lane

def interrupted(work):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-5, 2e-3))
        while True:
            work()
    except KeyboardInterrupt:
        pass

signal.signal(signal.SIGALRM, signal.default_int_handler)
random.seed(5)
faulthandler.dump_traceback_later(40, exit=True)  # a ring that hangs, hangs for ever
"""


def _rounds(body: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ROUNDS + textwrap.dedent(body)],
        timeout=_PATIENCE_S, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("policy", ["lossless", "latest", "every-2"])
def test_a_loop_that_is_interrupted_ends_and_so_does_its_ring(policy: str) -> None:
    _rounds(f"""
    for number in range(400):
        with Ring(lane(3), policy=Policy.parse("{policy}")) as ring:
            interrupted(lambda: [None for outcome in ring.run(frames(20))])
            counts = ring.counts()
            assert counts.in_flight == counts.unaccounted == 0, (number, counts)
    """)


def test_a_request_that_is_interrupted_leaves_its_slot() -> None:
    _rounds("""
    for number in range(400):
        with Ring(lane(1)) as ring:
            interrupted(lambda: ring.infer(frame(1).data))
            counts = ring.counts()
            assert counts.in_flight == counts.unaccounted == 0, (number, counts)
    """)
