"""A ring over a contained model: its frames outlive the workers that they were given to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemed.base.errors import ChildError
from edgemed.runtime.contained.lane import ContainedLane
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.runtime.contained.spec import FunctionWorker
from edgemed.runtime.frames import Answer, Failure, Frame
from edgemed.runtime.ring import Ring
from tests.runtime.contained.faulty import Control, answer
from tests.runtime.contained.kit import FAULTY, QUICK, WAIT_S, frame, right, worker

SLOTS = 3


def frames(count: int) -> Iterator[Frame]:
    return (Frame(number, frame(number), time.monotonic_ns()) for number in range(count))


def is_right(outcome: object) -> bool:
    return isinstance(outcome, Answer) and np.array_equal(outcome.outputs["y"], answer(frame(outcome.frame)["x"]))


def ring(runner: ContainedRunner, *, retries: int = 1, spans: bool = False) -> Ring:
    return Ring(ContainedLane(runner, SLOTS, retries=retries), spans=spans)


def test_a_ring_fills_the_memory_that_the_worker_reads() -> None:
    runner = ContainedRunner(worker(), limits=QUICK, lane_slots=SLOTS)
    with ring(runner, spans=True) as entered:
        assert all(is_right(outcome) for outcome in entered.run(frames(50)))
        lane = entered.lane
        assert runner.model.inputs is not None
        for slot in range(SLOTS):
            assert np.shares_memory(lane.inputs(slot)["x"], runner.model.inputs.arrays(slot)["x"])
        (outcome,) = entered.run(frames(1))
        assert isinstance(outcome, Answer)
        assert [span.name for span in outcome.spans] == ["fill", "queue", "compute", "read"]
        assert entered.counts().answered == 51


def test_nothing_is_allocated_for_outputs_once_each_slot_has_answered() -> None:
    with ring(ContainedRunner(worker(), limits=QUICK, lane_slots=SLOTS)) as entered:
        addresses = {outcome.outputs["y"].ctypes.data for outcome in entered.run(frames(30))}  # type: ignore[union-attr]
    assert len(addresses) == SLOTS


@pytest.mark.parametrize("lane", [False, True])
@pytest.mark.parametrize("fault", ["kill", "sticky", "hang", "rubbish", "memory", "exception", "misshapen"])
def test_frames_go_on_to_the_next_worker(tmp_path: Path, fault: str, lane: bool) -> None:
    """The worker drives a Runner, or a lane in which several frames are under way."""
    control = tmp_path / "control"
    with ring(ContainedRunner(worker(control, lane=lane), limits=QUICK, lane_slots=SLOTS)) as entered:
        right = 0
        for outcome in entered.run(frames(40)):
            right += is_right(outcome)
            if right in (10, 25):
                Control(control).tell(fault)
        assert right == 40


def test_without_a_retry_those_in_flight_fail_and_no_others(tmp_path: Path) -> None:
    control = tmp_path / "control"
    runner = ContainedRunner(worker(control, work_us=2000), limits=QUICK, lane_slots=SLOTS)
    with ring(runner, retries=0) as entered:
        outcomes = []
        for outcome in entered.run(frames(40)):
            outcomes.append(outcome if isinstance(outcome, Failure) else is_right(outcome))
            if len(outcomes) == 10:
                Control(control).tell("segv")
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        assert 1 <= len(failures) <= SLOTS
        assert all(isinstance(f.error, ChildError) and "SIGSEGV" in f.error.what for f in failures)
        assert [outcome for outcome in outcomes if outcome not in failures] == [True] * (40 - len(failures))


def test_each_answer_names_the_runner_that_computed_it(tmp_path: Path) -> None:
    control = tmp_path / "control"
    runner = ContainedRunner(
        worker(control), fallback=worker(backend="fallback"), limits=replace(QUICK, rebuilds=0), lane_slots=SLOTS
    )
    with ring(runner) as entered:
        assert runner.fallback is not None
        runner.fallback.settle()
        backends = []
        for outcome in entered.run(frames(40)):
            assert is_right(outcome)
            assert isinstance(outcome, Answer)
            backends.append(outcome.info.backend)
            if len(backends) == 10:
                Control(control).tell("abort")
        assert backends[:10] == ["faulty"] * 10
        assert backends[-1] == "fallback"
        assert sorted(backends, reverse=True) == backends


def test_a_lane_works_on_the_fallback_alone(tmp_path: Path) -> None:
    control = tmp_path / "control"
    spec = worker(control)
    Control(control).tell("refused")
    runner = ContainedRunner(spec, fallback=worker(backend="fallback"), limits=QUICK, lane_slots=SLOTS)
    with ring(runner) as entered:
        assert all(is_right(outcome) and outcome.info.backend == "fallback" for outcome in entered.run(frames(10)))  # type: ignore[union-attr]


def test_shapes_vary_from_frame_to_frame() -> None:
    greatest = {"x": (4, 8), "y": (4, 8)}
    runner = ContainedRunner(FunctionWorker(FAULTY, {"shape": [None, 8]}, greatest), limits=QUICK, lane_slots=SLOTS)
    shapes = [(1, 8), (4, 8), (2, 8), (5, 8), (3, 8)]
    source = (Frame(n, frame(n, shape), time.monotonic_ns()) for n, shape in enumerate(shapes))
    with ring(runner) as entered:
        outcomes = list(entered.run(source))
        assert isinstance(outcomes[3], Failure)
        assert "greatest" in str(outcomes[3].error)
    assert [isinstance(outcome, Answer) for outcome in outcomes] == [True, True, True, False, True]


def test_shapes_vary_in_a_lane_of_the_worker_too() -> None:
    spec = FunctionWorker(f"{FAULTY}_lane", {"shape": [None, 8]}, {"x": (4, 8), "y": (4, 8)})
    with ContainedRunner(spec, limits=QUICK) as runner:
        asked = [(feeds, runner.submit(feeds)) for feeds in (frame(n, (n % 5, 8)) for n in range(20))]
        assert all(right(feeds, future.result(WAIT_S).outputs) for feeds, future in asked)


def test_a_lane_needs_its_slots() -> None:
    runner = ContainedRunner(worker(), lane_slots=2)
    with pytest.raises(ValueError, match="2 slots"):
        ContainedLane(runner, 3)
