"""Frames that lie where the worker reads them before it is known whether it will be asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemed.runtime.contained.berths import Berth
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.runtime.contained.spec import FunctionWorker
from tests.runtime.contained.faulty import Control
from tests.runtime.contained.kit import FAULTY, QUICK, WAIT_S, frame, right, worker

BERTHS = 2


def filled(runner: ContainedRunner, seed: int) -> Berth:
    berth = runner.berth()
    assert berth is not None
    berth["x"][...] = frame(seed)["x"]
    return berth


def test_nothing_is_copied_on_the_way_to_the_worker() -> None:
    with ContainedRunner(worker(golden=False), limits=QUICK, berths=BERTHS) as runner:
        inputs = runner.model.inputs
        assert inputs is not None
        for seed in range(20):
            berth = filled(runner, seed)
            assert np.shares_memory(berth["x"], inputs.arrays(berth.slot)["x"])
            assert right(frame(seed), runner.submit(berth).result(WAIT_S).outputs)
        others = [inputs.arrays(slot)["x"] for slot in range(BERTHS, inputs.layout.slots)]
        assert not any(array.any() for array in others)  # nobody has ever filled them


def test_a_berth_is_free_again_when_nobody_has_it() -> None:
    with ContainedRunner(worker(), limits=QUICK, berths=BERTHS) as runner:
        taken = [runner.berth() for _ in range(BERTHS)]
        assert None not in taken
        assert runner.berth() is None
        assert right(frame(1), runner.submit(frame(1)).result(WAIT_S).outputs)  # it has slots of its own
        del taken[0]
        assert runner.berth() is not None


def test_a_worker_that_reads_it_still_has_it() -> None:
    """Though nobody waits for the answer any more."""
    with ContainedRunner(worker(work_us=300_000), limits=QUICK, berths=1) as runner:
        berth = filled(runner, 1)
        future = runner.submit(berth)
        del berth
        assert future.cancel()
        assert runner.berth() is None
        assert right(frame(2), runner.submit(frame(2)).result(WAIT_S).outputs)  # after that one
        assert runner.berth() is not None


def test_many_callers_each_get_the_answer_to_their_own_frame() -> None:
    with ContainedRunner(worker(), limits=QUICK, berths=BERTHS) as runner:
        for seed in range(0, 60, 3):
            first, second = filled(runner, seed), filled(runner, seed + 1)
            asked = {
                seed + 1: runner.submit(second),
                seed: runner.submit(first),
                seed + 2: runner.submit(frame(seed + 2)),
            }
            del first, second
            for own, future in asked.items():
                assert right(frame(own), future.result(WAIT_S).outputs)
            del asked, future


@pytest.mark.parametrize("fault", ["kill", "sticky", "hang", "rubbish", "misshapen"])
def test_a_frame_goes_on_to_the_next_worker(tmp_path: Path, fault: str) -> None:
    control = tmp_path / "control"
    with ContainedRunner(worker(control), limits=QUICK, berths=BERTHS) as runner:
        Control(control).tell(fault)
        assert right(frame(1), runner.submit(filled(runner, 1)).result(WAIT_S).outputs)
        assert runner.status.model.generation == 2 or fault == "misshapen"


def test_the_fallback_takes_it(tmp_path: Path) -> None:
    control = tmp_path / "control"
    limits = replace(QUICK, rebuilds=0)
    with ContainedRunner(worker(control), fallback=worker(backend="fallback"), limits=limits, berths=1) as runner:
        assert runner.fallback is not None
        runner.fallback.settle()
        berth = filled(runner, 1)
        Control(control).tell("abort")
        reply = runner.submit(berth).result(WAIT_S)
        assert (reply.info.backend, right(frame(1), reply.outputs)) == ("fallback", True)
        again = runner.submit(berth).result(WAIT_S)
        assert (again.info.backend, right(frame(1), again.outputs)) == ("fallback", True)


def test_where_there_is_none() -> None:
    greatest = {"x": (4, 8), "y": (4, 8)}
    with ContainedRunner(FunctionWorker(FAULTY, {"shape": [None, 8]}, greatest), limits=QUICK, berths=1) as runner:
        assert runner.berth() is None  # how long a frame will be is not known
    assert ContainedRunner(worker(), limits=QUICK, berths=1).berth() is None  # nor is what a worker takes
