"""What writes results is rehearsed at the start, and nobody sees it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemed.serve.analysis import analyst
from edgemed.serve.analysis.results import warm
from edgemed.serve.services import Services
from tests.serve import kit
from tests.serve.analysis import bench
from tests.waiting import wait_for

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


def test_a_daemon_is_ready_when_it_has_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(analyst, "warm", lambda services: go_on.wait(60))
    config = kit.bedside(tmp_path, bundle=kit.write_classifier(tmp_path / "chest.edgemed"))
    with kit.running(config) as daemon:
        readiness = daemon.services.readiness
        wait_for(lambda: [each.subject for each in readiness.findings] == ["results"], lambda: readiness.findings)
        assert not readiness.ready
        assert (bench.ended(daemon.services, bench.queue(daemon.services, kit.image())))[0]["state"] == "delivered"
        go_on.set()
        wait_for(lambda: readiness.ready, lambda: readiness.findings)


_LOADED = """
import sys, urllib.error, urllib.request
from pathlib import Path
from tests.serve import kit
from tests.serve.analysis import bench
from tests.waiting import wait_for

root, kinds = Path(sys.argv[1]), sys.argv[2].split(",")
kit.write_classifier(root / "chest.edgemed")
model = {"name": "chest", "bundle": root / "chest.edgemed", "runner": "onnxruntime", "results": kinds}
config = kit.bedside(root, models=[model])
with kit.running(config) as daemon:
    address = daemon.part("http").addresses()[0].rstrip("/")

    def is_ready():
        try:
            return urllib.request.urlopen(f"{address}/v2/health/ready").status == 200
        except urllib.error.HTTPError:
            return False

    wait_for(is_ready)
    before = set(sys.modules)
    (row,) = bench.ended(daemon.services, bench.queue(daemon.services, kit.image()))
    assert row["state"] == "delivered", row["reason"]
    print(*(name for name in set(sys.modules) - before))
    print("highdicom" in sys.modules)
"""


@pytest.mark.parametrize("kinds", ["sr,seg,sc,gsps", "json"])
def test_when_it_is_ready_the_first_result_loads_nothing_of_weight(tmp_path: Path, kinds: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _LOADED, str(tmp_path), kinds],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ran.returncode == 0, ran.stderr
    loaded, dicom = ran.stdout.splitlines()
    heavy = {"highdicom", "pydicom", "scipy", "skimage"}
    assert [name for name in loaded.split() if name.partition(".")[0] in heavy] == []
    assert dicom == str(kinds != "json")  # some 20 MB, where nobody asks for it
