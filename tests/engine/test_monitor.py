"""Nested phases become one bar; signals reach a build that is inside C++."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import InputError, Terminated
from edgemed.engine.monitor import PhaseTree, interruptible


class Bar:
    def __init__(self) -> None:
        self.of: int | None = None
        self.seen = [0]

    def total(self, steps: int | None) -> None:
        assert self.of is None  # one bar, one length
        self.of = steps

    def advance(self, steps: int = 1) -> None:
        assert steps > 0
        self.seen.append(self.seen[-1] + steps)

    def note(self, text: str) -> None: ...


def test_inner_phases_fill_the_outer_step() -> None:
    bar = Bar()
    tree = PhaseTree(bar)
    tree.start("build", None, 2)
    tree.start("tactics", "build", 4)
    for index in range(4):
        assert tree.step("tactics", index)
    tree.finish("tactics")
    tree.step("build", 0)
    tree.step("build", 1)
    tree.finish("build")
    assert bar.seen == [0, 125, 250, 375, 500, 1000]
    assert bar.of == 1000


def test_cancelling_answers_no_and_moves_nothing() -> None:
    bar = Bar()
    tree = PhaseTree(bar)
    tree.start("build", None, 2)
    tree.cancelled.set()
    assert tree.step("build", 0) is False
    tree.finish("build")
    assert bar.seen[-1] == 500


PHASES = st.sampled_from(["a", "b", "c", "d"])
EVENTS = st.one_of(
    st.tuples(st.just("start"), PHASES, st.none() | PHASES, st.integers(0, 5)),
    st.tuples(st.just("step"), PHASES, st.integers(0, 9)),
    st.tuples(st.just("finish"), PHASES),
)


@given(st.lists(EVENTS, max_size=40))
def test_the_bar_never_falls_nor_overruns(events: list[tuple]) -> None:  # type: ignore[type-arg]
    bar = Bar()
    tree = PhaseTree(bar)
    open_phases: list[str] = []
    for kind, phase, *rest in events:
        if kind == "start" and phase not in open_phases:
            # TensorRT opens a phase inside one that is open, or as a new root
            tree.start(phase, rest[0] if rest[0] in open_phases else None, rest[1])
            open_phases.append(phase)
        elif kind == "step":
            tree.step(phase, rest[0])
        elif kind == "finish" and phase in open_phases:
            tree.finish(phase)
            open_phases.remove(phase)
    assert bar.seen == sorted(bar.seen)
    assert bar.seen[-1] <= 1000


def test_result_and_error_come_back() -> None:
    assert interruptible(lambda: 42, threading.Event()) == 42

    def fail() -> None:
        raise InputError("No.", "Nothing.")

    with pytest.raises(InputError, match="No"):
        interruptible(fail, threading.Event())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Terminated])
def test_a_signal_cancels_then_is_raised(kind: type[BaseException]) -> None:
    def handler(*_: object) -> None:
        raise kind

    cancel, ended = threading.Event(), threading.Event()

    def build() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        assert cancel.wait(10)
        ended.set()

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(kind):
            interruptible(build, cancel)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert ended.is_set()  # the build was over before the interrupt went on


DEAF = """
import sys, threading
from edgemed.engine.monitor import interruptible
def build():
    print("building", flush=True)
    threading.Event().wait(60)
cancel = threading.Event()
threading.Thread(target=lambda: (cancel.wait(), print("cancelling", flush=True)), daemon=True).start()
interruptible(build, cancel)
"""


# the command line ignores a second Ctrl-C, but here it must be heard
TAKEN = "from edgemed.cli.main import take_signals; take_signals()"


@pytest.mark.parametrize("before", ["", TAKEN], ids=["library", "command"])
def test_a_second_ctrl_c_ends_a_build_that_cannot_be_cancelled(before: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", before + DEAF], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    for line in (b"building\n", b"cancelling\n"):
        assert child.stdout.readline() == line
        child.send_signal(signal.SIGINT)
    child.communicate(timeout=20)
    assert child.returncode == -signal.SIGINT
