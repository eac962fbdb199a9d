"""Ready means right: golden inferences gate every model, and a lost worker comes back by itself."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate.hostile import reseal

from edgemed.base.errors import ChildError, InputError
from edgemed.device.sysfs import Tree
from edgemed.serve.models import hosted
from edgemed.serve.models.room import room_for
from tests.evaluate.bundles import classifier
from tests.runtime.contained.faulty import Control
from tests.runtime.contained.kit import frame as faulty_frame
from tests.runtime.contained.kit import right
from tests.serve import kit
from tests.serve.models.kit import MS, WAIT_S, Hosted, faulty_worker, frame, hosting, write_faulty
from tests.waiting import wait_for


@contextmanager
def faulty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, every: str = "100ms", believed: str = "5s", **others: Any
) -> Iterator[tuple[Hosted, Control]]:
    limits = {name: others.pop(name) for name in list(others) if name in ("rebuilds", "hang_ns")}
    control = faulty_worker(monkeypatch, tmp_path / "control", fallback=tmp_path / "control2", **limits)
    bundle = write_faulty(tmp_path / "faulty.edgemed")
    config = kit.bedside(
        tmp_path,
        models=[{"name": "chest", "bundle": bundle, **others}],
        golden={"every": every, "believed": believed},
    )
    with hosting(config) as daemon:
        wait_for(lambda: daemon.services.readiness.light == "ready")
        yield daemon, control


def alarms(daemon: Hosted) -> set[str]:
    return {alarm.code for alarm in daemon.services.alarms.standing}


def golden(daemon: Any) -> list[int]:
    with daemon.services.journal.read() as connection:
        return [row["passed"] for row in connection.execute("SELECT passed FROM golden ORDER BY id")]


def test_a_model_is_ready_after_its_golden_vectors_and_answers(tmp_path: Path) -> None:
    with kit.running(kit.bedside(tmp_path)) as daemon:
        served = daemon.services.models.get("chest")
        wait_for(lambda: served.finding is None)
        reply = served.submit(frame(1)).result(WAIT_S)
        assert reply.info.backend == served.info.backend == "onnxruntime"
        assert reply.info.bundle_digest == served.bundle.digest
        with pytest.raises(InputError):
            served.submit({"image": np.zeros((1, 5, 5, 1), np.float32)})
        wait_for(lambda: golden(daemon) == [1])
        wait_for(lambda: daemon.services.metrics.registry.get_sample_value("edgemed_ready", {"model": "chest"}) == 1)


def test_a_worker_that_turns_wrong_is_found_within_the_interval_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`drift`: no sign but wrong numbers. The timer finds it; nothing wrong leaves after that."""
    with faulty(tmp_path, monkeypatch) as (daemon, control):
        served = daemon.services.models.get("chest")
        control.tell("drift")  # of the next inference, which is one of the timer's
        wait_for(lambda: 0 in golden(daemon))
        for seed in range(20):  # waits for the rebuilt one: `queue`
            feeds = faulty_frame(seed)
            assert right(feeds, served.submit(feeds).result(WAIT_S).outputs)
        wait_for(lambda: daemon.services.readiness.ready)
        wait_for(lambda: not alarms(daemon))
        assert (
            daemon.services.metrics.registry.get_sample_value(
                "edgemed_golden_inferences_total", {"model": "chest", "outcome": "wrong"}
            )
            == 1
        )


def test_a_worker_that_stays_wrong_is_never_ready_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted, "RETRY_NS", 50 * MS)
    with faulty(tmp_path, monkeypatch, rebuilds=0, when_lost="refuse") as (daemon, control):
        served = daemon.services.models.get("chest")
        control.tell("wrong")  # when it is loaded again
        control.tell("drift")
        wait_for(lambda: {"not-ready", "model-lost"} <= alarms(daemon))
        assert not daemon.services.readiness.ready
        with pytest.raises(ChildError, match="wrongly"):
            served.submit(faulty_frame(1)).result(WAIT_S)
        wait_for(lambda: daemon.services.readiness.ready)  # the second try, and the one after it, are ours
        wait_for(lambda: not alarms(daemon))
        assert golden(daemon).count(0) == 2
        assert right(faulty_frame(2), served.submit(faulty_frame(2)).result(WAIT_S).outputs)


def test_a_stopped_worker_is_taken_for_hung_and_replaced(tmp_path: Path) -> None:
    config = kit.bedside(
        tmp_path,
        models=[
            {
                "name": "chest",
                "bundle": kit.write_classifier(tmp_path / "chest.edgemed"),
                "runner": "onnxruntime",
                "hang": "1s",
            }
        ],
        golden={"every": "100ms", "believed": "30s"},
    )
    with hosting(config) as daemon:
        served = daemon.services.models.get("chest")
        assert isinstance(served, hosted.HostedModel)
        wait_for(lambda: served.finding is None)
        before = served.submit(frame(1)).result(WAIT_S)
        assert served.status is not None
        pid = served.status.model.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        after = served.submit(frame(1)).result(WAIT_S)
        np.testing.assert_array_equal(after.outputs["score"], before.outputs["score"])
        assert after.generation == before.generation + 1
        assert "hung" in served.status.model.reason
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert daemon.services.metrics.registry.get_sample_value("edgemed_worker_rebuilds_total", {"model": "chest"})


def test_the_fallback_answers_meanwhile_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty(tmp_path, monkeypatch, rebuilds=0, when_lost="onnxruntime") as (daemon, control):
        served = daemon.services.models.get("chest")
        control.tell("kill")
        wait_for(lambda: daemon.services.readiness.light == "degraded")
        assert daemon.services.readiness.ready
        reply = served.submit(faulty_frame(3)).result(WAIT_S)
        assert (reply.info.backend, right(faulty_frame(3), reply.outputs)) == ("onnxruntime", True)
        assert alarms(daemon) == {"model-lost"}


def test_a_verdict_is_believed_for_a_while_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty(tmp_path, monkeypatch, every="1h", believed="1500ms") as (daemon, _):
        wait_for(lambda: not daemon.services.readiness.ready)
        assert "too old" in daemon.services.readiness.findings[0].reason
        wait_for(lambda: "not-ready" in alarms(daemon))


def test_an_engine_that_is_not_there_keeps_the_daemon_up_and_not_ready(tmp_path: Path) -> None:
    bundle = kit.write_classifier(tmp_path / "chest.edgemed")
    config = kit.bedside(tmp_path, models=[{"name": "chest", "bundle": bundle, "runner": "tensorrt"}])
    with hosting(config) as daemon:
        wait_for(lambda: "not-ready" in alarms(daemon))
        assert not daemon.services.readiness.ready
        assert "cannot be loaded" in daemon.services.readiness.findings[0].reason


def test_a_graph_that_was_exchanged_is_never_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = kit.write_classifier(tmp_path / "chest.edgemed")
    reseal(bundle, files={"graphs/float.onnx": classifier(0.9)})
    with hosting(kit.bedside(tmp_path)) as daemon:
        wait_for(lambda: 0 in golden(daemon))
        assert not daemon.services.readiness.ready
        assert 1 not in golden(daemon)


def test_an_assumed_recipe_is_refused(tmp_path: Path) -> None:
    bundle = kit.write_classifier(tmp_path / "chest.edgemed")
    reseal(bundle, edit=lambda manifest: manifest["recipe"].update(assumed=True))
    with pytest.raises(InputError, match="assumed"), hosting(kit.bedside(tmp_path)):
        pytest.fail("it started")


@pytest.mark.parametrize(("free_kib", "fits"), [(10_000_000, True), (1_000, False)])
def test_a_second_worker_is_loaded_only_where_there_is_room(tmp_path: Path, free_kib: int, fits: bool) -> None:
    with hosting(kit.bedside(tmp_path)) as daemon:
        model = daemon.services.models.get("chest")
        assert isinstance(model, hosted.HostedModel)
        status = wait_for(lambda: model.status)
        pid = wait_for(lambda: status.model.pid or model.status.model.pid)
        tree = tmp_path / "proc"
        (tree / str(pid)).mkdir(parents=True)
        (tree / "meminfo").write_text(f"MemTotal: 16000000 kB\nMemAvailable: {free_kib} kB\n")
        (tree / str(pid) / "status").write_text("Name:\tpython\nVmRSS:\t  400000 kB\n")
        wait_for(lambda: model.finding is None)
        lacking = room_for(model, Tree(tmp_path))
        assert (lacking is None) == fits
        assert fits or "488 MiB" in str(lacking)  # 400,000 KiB and a quarter


def test_a_loop_that_stumbles_loads_no_model_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty(tmp_path, monkeypatch) as (daemon, _):
        model, beat = daemon.services.models.get("chest"), daemon.services.models._loops.beats["models"]
        runner, generation = model._runner, model.status.model.generation

        def fail(now_ns: int) -> None:
            raise KeyError("once")

        with monkeypatch.context() as patch:
            patch.setattr(model, "tend", fail)
            wait_for(lambda: beat.failures)
        tended = threading.Event()
        real = model.tend
        monkeypatch.setattr(model, "tend", lambda now_ns: (real(now_ns), tended.set()))
        assert tended.wait(WAIT_S)
        assert model._runner is runner
        assert model.status.model.generation == generation


def test_a_model_that_finds_no_handles_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tries = hosted.ContainedRunner, []

    def made(*args: Any, **others: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*args, **others)

    monkeypatch.setattr(hosted, "RETRY_NS", 1)
    monkeypatch.setattr(hosted, "ContainedRunner", made)
    with faulty(tmp_path, monkeypatch) as (daemon, _):
        assert daemon.services.models._loops.beats["models"].failures == 0
