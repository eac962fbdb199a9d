"""What happens to a task when its worker, or the daemon, goes away under it."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from edgemed.base.errors import ResourceError
from edgemed.imaging.dicom import source
from edgemed.imaging.dicom.part10 import hash_dataset, read_meta
from edgemed.serve.analysis import analyst, distribution
from edgemed.serve.analysis.analyst import MOST_TRIES
from edgemed.serve.intake import Arrival
from edgemed.serve.models.hosted import HostedModel
from edgemed.serve.services import Services
from edgemed.serve.states import State
from tests.serve import kit
from tests.serve.analysis import bench
from tests.waiting import wait_for


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


def test_every_stage_from_the_first_byte_on_is_in_the_timeline(tmp_path: Path) -> None:
    image = kit.image(level=200)
    data = kit.encode(image)
    with kit.running(config(tmp_path)) as daemon:
        services = daemon.services
        file = services.intake.new_file()
        file.write_bytes(data)
        with file.open("rb") as opened:
            digest = hash_dataset(opened, read_meta(opened).offset)
        named = {"study": str(image.StudyInstanceUID), "series": str(image.SeriesInstanceUID)}
        uid = str(image.SOPInstanceUID)
        assert services.intake.accept(Arrival(file, "dicom", "CT1", kit.CT, uid, digest, len(data), **named)).success
        (line,) = wait_for(lambda: services.timelines.recent)
        order = ["first_byte", "last_object", "complete", "started", "written"]
        moments = [line.points[name] for name in order]
        assert moments == sorted(moments)
        spans = {span.name for span in line.spans}
        assert spans == {"decode", "preprocess", "queue", "compute", "postprocess", "write"}
        assert all(line.points["started"] <= span.start_ns <= span.end_ns for span in line.spans)


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


def test_a_model_that_does_not_answer(tmp_path: Path) -> None:
    bundle = kit.write_classifier(tmp_path / "chest.edgemed")
    models = [
        {"name": name, "bundle": bundle, "runner": "onnxruntime", "when_lost": name} for name in ("refuse", "queue")
    ]
    with kit.running(kit.bedside(tmp_path, models=models)) as daemon:
        services = daemon.services
        bench.ended(
            services, *(bench.queue(services, kit.image(level=200), model=name) for name in ("refuse", "queue"))
        )
        for name in ("refuse", "queue"):
            model = services.models.get(name)
            assert isinstance(model, HostedModel)
            assert model._runner is not None
            model._runner.close()  # it is over: nothing is built anew
        waiting = bench.queue(services, kit.image(level=200), model="queue")
        refused = bench.queue(services, kit.image(level=200), model="refuse")
        (row,) = bench.ended(services, refused)
        assert row["state"] == "not-analysed"
        assert row["reason"].startswith("The model does not answer")
        (row,) = bench.ended(services, waiting, states=(State.QUEUED,))
        assert row["tries"] <= 1


def test_a_want_of_handles_is_no_fault_of_the_input_however_long_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, real = [], os.open

    def full(path: Any, *others: Any, **more: Any) -> int:
        if "/objects/" in str(path) and len(tries) < MOST_TRIES + 2:
            tries.append(path)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, *others, **more)

    monkeypatch.setattr(analyst, "_PAUSE_NS", 1)
    with kit.running(config(tmp_path)) as daemon:
        task = bench.queue(daemon.services, kit.image(level=200))
        monkeypatch.setattr(source.os, "open", full)
        (row,) = bench.ended(daemon.services, task)
        assert (row["state"], row["tries"]) == ("delivered", 1)
        assert len(tries) == MOST_TRIES + 2


def test_what_a_bundle_says_of_its_images_is_asked_for_again_where_no_handle_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To remember that there is none would let anything pass for good."""
    asked, real = [], distribution.Reference.of

    def once(bundle: Any) -> Any:
        asked.append(bundle)
        if len(asked) == 1:
            raise ResourceError("Too many open files.") from OSError(errno.EMFILE, "")
        return real(bundle)

    monkeypatch.setattr(distribution.Reference, "of", once)
    with kit.running(config(tmp_path)) as daemon:
        task = bench.queue(daemon.services, kit.image(level=200))
        (row,) = bench.ended(daemon.services, task)
        assert (row["state"], row["tries"], len(asked)) == ("delivered", 1, 2)
