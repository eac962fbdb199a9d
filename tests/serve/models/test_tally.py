"""What a version on probation is judged by: its own faults, not those of who asks."""

from __future__ import annotations

import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from edgemed.base.errors import ChildError, EdgemedError, GpuMemoryError, InputError, ResourceError
from edgemed.runtime.contained.requests import Reply
from edgemed.serve.models.tally import Tally
from tests.serve.models.kit import WAIT_S, another, frame, serving
from tests.waiting import wait_for


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ChildError("The worker hung."), 1),
        (GpuMemoryError("The GPU has no memory left."), 1),
        (ResourceError("The deadline passed before there was an answer."), 0),
        (InputError("It does not fit."), 0),
    ],
)
def test_only_faults_of_the_worker_count(error: EdgemedError, counts: int) -> None:
    tally, future = Tally(), Future[Reply]()
    future.set_exception(error)
    tally.count(future)
    assert (tally.answered, tally.failed) == (0, counts)


def test_a_client_that_waits_too_short_brings_no_version_back(tmp_path: Path) -> None:
    with serving(tmp_path, trial={"inputs": 0, "watch": "1h", "failures": 1}) as (_, host):
        host.propose("chest", another(tmp_path, "second"))
        wait_for(lambda: host.get("chest").version == "2")
        for deadline_ns in (1, time.monotonic_ns() + 1000):
            with pytest.raises(ResourceError, match="deadline"):
                host.get("chest").submit(frame(1), deadline_ns=deadline_ns).result(WAIT_S)
        line = host._line("chest")
        assert line.active.tally.failed == 0
        assert line._fails(time.monotonic_ns()) is None
