"""What writes results is rehearsed at the start, and nobody sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemed.serve.analysis import analyst
from edgemed.serve.analysis.results import warm
from edgemed.serve.services import Services
from tests.serve import kit
from tests.serve.analysis import bench

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # highdicom's, of names with one component


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    root = tmp_path_factory.mktemp("bedside")
    kit.write_classifier(root / "chest.edgemed")
    model = {"name": "chest", "bundle": root / "chest.edgemed", "runner": "onnxruntime"}
    model["results"] = ["sr", "seg", "sc", "gsps"]
    with pytest.MonkeyPatch.context() as quiet:
        quiet.setattr(analyst, "warm", lambda services: None)  # its own would come in between
        with kit.running(kit.bedside(root, models=[model])) as daemon:
            yield daemon.services


def traces(services: Services) -> list[str]:
    """Files of results and images, and rows that tell of them."""
    with services.journal.read() as connection:
        rows = connection.execute("SELECT count(*) FROM task UNION ALL SELECT count(*) FROM result").fetchall()
    spool = services.spool
    files = [file for folder in (spool.incoming, spool.objects, spool.results) for file in folder.rglob("*")]
    return [str(file) for file in files if file.is_file()] + [str(count) for (count,) in rows]


def test_a_rehearsal_leaves_no_trace(services: Services, caplog: pytest.LogCaptureFixture) -> None:
    before = traces(services)
    warm(services)
    assert traces(services) == before
    assert not caplog.records


def test_one_that_fails_is_logged_and_tasks_go_on(
    services: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(services.spool, "new", lambda: Path("/nowhere/at/all"))
        warm(services)
    assert [record.getMessage() for record in caplog.records] == [
        "results of chest could not be rehearsed: FileNotFoundError"
    ]
    (row,) = bench.ended(services, bench.queue(services, kit.image()))
    assert row["state"] == "delivered"


def test_a_daemon_rehearses_when_it_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsed = threading.Event()
    monkeypatch.setattr(analyst, "warm", lambda services: rehearsed.set())
    with kit.running(kit.bedside(tmp_path)):
        assert rehearsed.wait(60)
