"""What happens to a task when its worker, or the daemon, goes away under it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.services import Services
from edgemed.serve.states import State
from tests.serve import kit
from tests.serve.analysis import bench


def worker_pid(services: Services) -> int:
    model = services.models.get("chest")
    assert isinstance(model, HostedModel)
    assert model._runner is not None
    pid = model._runner.status.model.pid
    assert pid is not None
    return pid


def config(root: Path, **model: Any) -> Any:
    bundle = root / "chest.edgemed"
    if not bundle.exists():
        kit.write_classifier(bundle)
    return kit.bedside(root, models=[{"name": "chest", "bundle": bundle, "runner": "onnxruntime", **model}])


def test_a_worker_that_is_killed_under_a_task_costs_nothing_but_time(tmp_path: Path) -> None:
    with kit.running(config(tmp_path)) as daemon:
        services = daemon.services
        bench.ended(services, bench.queue(services, kit.image(level=200)))
        pid = worker_pid(services)
        os.kill(pid, signal.SIGSTOP)
        task = bench.queue(services, kit.image(level=200))
        bench.ended(services, task, states=(State.ANALYSING,))
        os.kill(pid, signal.SIGKILL)
        (row,) = bench.ended(services, task)
        assert (row["state"], row["tries"]) == ("delivered", 1)


def test_what_is_made_again_is_the_same_thing(tmp_path: Path) -> None:
    with kit.running(config(tmp_path)) as daemon:
        task = bench.queue(daemon.services, kit.image(level=200))
        bench.ended(daemon.services, task)
        paths = [*bench.results(daemon.services, task, "sr"), *bench.results(daemon.services, task, "json")]
        before = [path.read_bytes() for path in paths]
        # as after a crash between the results' files and the journal's row
        daemon.services.journal.write(lambda c: c.execute("UPDATE task SET state = 'analysing' WHERE id = ?", (task,)))
    with kit.running(config(tmp_path)) as daemon:
        (row,) = bench.ended(daemon.services, task)
        assert (row["state"], row["tries"]) == ("delivered", 2)
        again = [*bench.results(daemon.services, task, "sr"), *bench.results(daemon.services, task, "json")]
        assert again == paths  # and no more rows than before
        assert [path.read_bytes() for path in again] == before


def test_a_retry_has_its_tries_and_its_time_anew(tmp_path: Path) -> None:
    from edgemed.serve.journal.records import move_task
    from edgemed.serve.states import Event

    with kit.running(config(tmp_path)) as daemon:
        services = daemon.services
        task = bench.queue(services, kit.image(level=200), model="nobody")
        old = "2020-01-01T00:00:00.000000Z"
        services.journal.write(
            lambda c: c.execute("UPDATE task SET tries = 3, model = 'chest', completed = ? WHERE id = ?", (old, task))
        )
        assert bench.ended(services, task)[0]["state"] == "failed"
        services.journal.write(lambda c: move_task(c, task, Event.RETRY))
        (row,) = bench.ended(services, task, states=(State.DELIVERED,))
        assert row["tries"] == 1
        assert row["completed"] > old


@pytest.mark.parametrize(("when_lost", "state"), [("refuse", "not-analysed"), ("queue", "queued")])
def test_a_model_that_does_not_answer(tmp_path: Path, when_lost: str, state: str) -> None:
    with kit.running(config(tmp_path, when_lost=when_lost)) as daemon:
        services = daemon.services
        bench.ended(services, bench.queue(services, kit.image(level=200)))
        model = services.models.get("chest")
        assert isinstance(model, HostedModel)
        assert model._runner is not None
        model._runner.close()  # it is over: nothing is built anew
        task = bench.queue(services, kit.image(level=200))
        bench.ended(services, task, states=(State.NOT_ANALYSED, State.QUEUED))
        if state == "queued":
            services.loops.wake("analyst")
            assert bench.row(services, task)["tries"] <= 1
        else:
            (row,) = bench.ended(services, task)
            assert row["state"] == state
            assert row["reason"].startswith("The model does not answer")
