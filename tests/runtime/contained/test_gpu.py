"""The CUDA lane in a worker, on real pycuda over the host-only libcuda: what a broken device does to its requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemed.base.errors import ChildError, EdgemedError, GpuError, GpuMemoryError
from edgemed.runners.golden import Golden
from edgemed.runtime.contained.runner import ContainedRunner
from edgemed.runtime.contained.spec import FunctionWorker, GoldenCase
from tests.runtime.contained import gpu
from tests.runtime.contained.faulty import Control
from tests.runtime.contained.kit import QUICK, WAIT_S, frame
from tests.runtime.fakecuda import fetch

SHAPE = (4, 8)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu") / "control"


@pytest.fixture(scope="module")
def runner(control: Path) -> Iterator[ContainedRunner]:
    if reason := fetch.unsupported():
        pytest.skip(reason)
    fetch.ensure()  # built here, not while a worker's time to load runs
    Control(control)
    x = np.random.default_rng(5).random((8, *SHAPE), dtype=np.float32)
    case = GoldenCase(Golden({"x": x}, {"fp32": gpu.expected(x)}), "fp32", {"y": 0.0, "sum": 0.0})
    spec = FunctionWorker(
        f"{Path(gpu.__file__).resolve()}:GpuLane", {"control": str(control), "cache": str(fetch.CACHE)}, golden=case
    )
    with ContainedRunner(spec, limits=QUICK, timed=True) as entered:
        yield entered


def right(feeds: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]]) -> bool:
    want = gpu.expected(feeds["x"])
    return outputs.keys() == want.keys() and all(np.array_equal(outputs[name], want[name]) for name in want)


def test_frames_are_computed_in_the_worker_with_the_devices_own_spans(runner: ContainedRunner) -> None:
    asked = [(feeds, runner.submit(feeds, frame=n)) for n, feeds in enumerate(frame(n, SHAPE) for n in range(30))]
    for feeds, future in asked:
        reply = future.result(WAIT_S)
        assert right(feeds, reply.outputs)
        assert reply.info.backend == "stand-in"
        assert [span.name for span in reply.spans] == ["queue", "copy-in", "compute", "copy-out"]


@pytest.mark.parametrize(
    ("fault", "kind", "rebuilds"), [("sticky", GpuError, 1), ("hang", ChildError, 1), ("memory", GpuMemoryError, 0)]
)
def test_a_broken_device_costs_the_worker_and_full_memory_a_check(
    runner: ContainedRunner, control: Path, fault: str, kind: type[EdgemedError], rebuilds: int
) -> None:
    runner.model.settle()
    before = runner.status.model
    Control(control).tell(fault)
    with pytest.raises(kind):
        runner.submit(frame(1, SHAPE), retries=0).result(WAIT_S)
    runner.model.settle()
    after = runner.status.model
    assert after.generation == before.generation + rebuilds
    assert after.golden_ns != before.golden_ns
    Control(control).tell(fault)
    feeds = frame(2, SHAPE)
    reply = runner.submit(feeds).result(WAIT_S)
    assert right(feeds, reply.outputs)
    assert reply.tries == 2
