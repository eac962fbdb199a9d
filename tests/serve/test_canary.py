"""A study in which every text names the patient goes through the whole daemon: the name is nowhere but in the images.

What may hold it: the spool's own files (images, results), for results are about a patient. What may not: logs, metrics,
traces, health, names of files and folders, temporary files, the journal, the audit trail, alarms.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import httpx
import pytest

from tests.serve import kit
from tests.serve.canary import MARK, marked
from tests.serve.process import started
from tests.waiting import wait_for

ANSWERS = ("/metrics", "/v2/health/ready", "/v2/health/live", "/v2/models/chest/stats", "/trace?seconds=60")
_SPOOL = ("objects", "results", "quarantine", "incoming")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("canary")
    inbox, outbox = root / "inbox", root / "outbox"
    inbox.mkdir()
    outbox.mkdir()
    with started(
        root,
        folders=[{"name": "inbox", "path": str(inbox), "settle": "100ms"}],
        models=[
            {
                "name": "chest",
                "bundle": "chest.edgemed",
                "runner": "onnxruntime",
                "results": ["sr", "json"],
                "send_to": ["outbox"],
                "match": {"modalities": ["CT"]},
            }
        ],
        destinations=[
            {"name": "outbox", "kind": "folder", "path": str(outbox)},
            # nobody is there: what is said of failures must not name anybody either
            {"name": "pacs", "kind": "dicom", "ae_title": "PACS", "host": "127.0.0.1", "port": 9, "forward": True},
        ],
    ) as process:
        process.ready()
        kit.write(marked(100), inbox / f"{MARK}.dcm")
        (inbox / f"{MARK}.txt").write_text(MARK)
        twin = marked(120)
        other = marked(121, instance=twin.SOPInstanceUID)  # the same UID with other content
        broken = marked(90, Rows=0)
        assert process.send(marked(10), marked(240), twin, broken) == [0, 0, 0, 0]
        assert process.send(other, kit.image(sop_class=kit.US, Manufacturer=MARK))[0] != 0
        wait_for(lambda: len(list(outbox.rglob("*.json"))) >= 4, lambda: process.log)
        answers = {path: httpx.get(process.http + path, timeout=10).text for path in ANSWERS}
        assert process.stop() == 0
        yield process, answers


def test_the_results_do_name_the_patient(served) -> None:
    process, _ = served
    reports = [path.read_bytes() for path in (process.root / "outbox").rglob("*.dcm")]
    assert reports
    assert all(MARK.encode() in data for data in reports)  # or this test would see nothing anywhere


def test_logs_and_answers_do_not(served) -> None:
    process, answers = served
    assert len(process.log.splitlines()) > 20
    assert MARK not in process.log
    for path, text in answers.items():
        assert MARK not in text, path


def test_names_of_files_and_what_is_not_an_image_do_not(served) -> None:
    process, _ = served
    state: Path = process.root / "state"
    for path in [*state.rglob("*"), *(process.root / "tmp").rglob("*")]:
        assert MARK not in path.name
        if path.is_file() and path.relative_to(process.root).parts[1] not in _SPOOL:
            assert MARK.encode() not in path.read_bytes(), path


def test_uids_are_in_the_journal_and_not_in_the_logs(served) -> None:
    process, _ = served
    with sqlite3.connect(process.root / "state" / "journal.sqlite3") as connection:
        uids = [
            uid for row in connection.execute("SELECT sop_instance, study, series FROM object") for uid in row if uid
        ]
    connection.close()
    assert len(uids) > 10
    assert not [uid for uid in uids if uid in process.log]
