"""Spool, journal and deliveries held against each other: clean where all is well, and every kind of loss is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgemed.base.errors import InputError, IntegrityError
from edgemed.cli.app import invoke
from edgemed.serve.again import failed, retry, route_again
from edgemed.serve.journal.file import OtherVersion
from edgemed.serve.journal.records import move_delivery, move_task
from edgemed.serve.journal.recovery import JOURNAL
from edgemed.serve.reconcile import reconcile
from edgemed.serve.states import Event
from tests.serve import kit
from tests.serve.store import Disk, disk


def fill(store: Disk) -> None:
    """One object in each kind of state: open, under way, delivered, failed, refused."""
    images = [kit.encode(kit.image(rows=8, columns=8, instance=f"1.2.{n}")) for n in range(5)]
    numbers = [store.send(data).number for data in images]
    assert numbers == [1, 2, 3, 4, 5]
    for number in numbers[1:]:
        store.routed(number)
    for task in (2, 3, 4):
        store.answered(task)
    store.journal.write(lambda c: move_delivery(c, 2, "delivered"))
    store.journal.write(lambda c: move_delivery(c, 3, "failed", "no"))
    store.send(kit.encode(kit.image(rows=8, columns=8, instance="1.2.0", level=50)))


tmp_path = kit.folder_in_memory


@pytest.fixture
def state(tmp_path: Path) -> Path:
    with disk(tmp_path) as store:
        fill(store)
    return tmp_path


def sql(text: str) -> Callable[[Path], Any]:
    def damage(state: Path) -> None:
        with disk(state) as store:
            store.journal.write(lambda c: c.execute(text))

    return damage


def first_object(state: Path) -> Path:
    return next(file for file in (state / "objects").glob("*/*"))


def overwrite(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_all_is_accounted_for(state: Path) -> None:
    columns = "INSERT INTO event (at, what, subject, before, event, after)"
    sql(f"{columns} VALUES ('', 'release', 1, '', 'propose', 'candidate')")(state)  # of a model, not of an input
    account = reconcile(state)
    assert account.troubles == []
    assert account.objects == {"delivered": 1, "failed": 1, "received": 1, "refused": 1, "routed": 2}
    assert (account.open, account.ended, account.files) == (3, 3, 9)
    assert account.deliveries == {"delivered": 1, "failed": 1, "pending": 1}
    assert not account.served


TROUBLES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "an object's file is gone": (lambda state: first_object(state).unlink(), "lost"),
    "a result's file is gone": (lambda state: next((state / "results").glob("*/*/*")).unlink(), "lost"),
    "an object has other bytes": (lambda state: overwrite(first_object(state)), "changed"),
    "a result has other bytes": (lambda state: overwrite(next((state / "results").glob("*/*/*"))), "changed"),
    "what was refused has other bytes": (lambda state: overwrite(next((state / "quarantine").iterdir())), "changed"),
    "an open object was deleted": (sql("UPDATE object SET path = '' WHERE state = 'received'"), "lost"),
    "a file without a row": (lambda state: (state / "objects" / "00" / "stranger").write_bytes(b"x"), "no-row"),
    "a state that there is not": (sql("UPDATE object SET state = 'misplaced' WHERE id = 1"), "stuck"),
    "an end that its task has not": (sql("UPDATE object SET state = 'delivered' WHERE state = 'failed'"), "stuck"),
    "a task of no object": (sql("DELETE FROM part WHERE task = 1"), "stuck"),
    "nothing left to deliver": (sql("UPDATE delivery SET state = 'delivered' WHERE id = 1"), "stuck"),
    "a result that did not arrive": (sql("UPDATE delivery SET state = 'pending' WHERE id = 2"), "undelivered"),
    "a state that nothing led to": (sql("UPDATE object SET state = 'not-analysed' WHERE id = 1"), "history"),
    "a step that is missing": (sql("DELETE FROM event WHERE what = 'task' AND event = 'start'"), "history"),
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_every_kind_of_loss_is_named(state: Path, kind: str) -> None:
    damage, code = TROUBLES[kind]
    damage(state)
    if kind == "a file without a row":
        (state / "results" / "00" / "9").mkdir()
        (state / "results" / "00" / "9" / "x").write_bytes(b"")
    codes = {trouble.code for trouble in reconcile(state).troubles}
    assert code in codes


def test_a_journal_of_another_version_is_left_alone(state: Path) -> None:
    sql("PRAGMA user_version=99")(state)
    before = (state / JOURNAL).read_bytes()
    for ask in (
        lambda: retry(state, None),
        lambda: route_again(state),
        lambda: failed(state),
        lambda: reconcile(state),
    ):
        with pytest.raises(OtherVersion, match="version 99"):
            ask()
    assert (state / JOURNAL).read_bytes() == before


def test_beside_a_daemon_that_takes_images(tmp_path: Path) -> None:
    """The proof neither disturbs it nor sees ghosts."""
    load = (
        "import sys, threading, os; from pathlib import Path; from tests.serve import kit\n"
        "from tests.serve.store import disk; from edgemed.serve.lock import state_lock\n"
        "root = Path(sys.argv[1])\n"
        "with state_lock(root), disk(root) as store:\n"
        "    while True:\n"
        "        task = store.routed(store.send(kit.encode(kit.image(rows=8, columns=8))).number)\n"
        "        store.answered(task, ())\n"
        "        if task == 3: print('going', flush=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", load, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"going\n"
            for _ in range(3):
                account = reconcile(tmp_path)
                assert (account.served, account.troubles) == (True, [])
        finally:
            process.kill()


def test_retry_lets_what_failed_be_tried_again(state: Path) -> None:
    assert [(number, model) for number, model, _ in failed(state)] == [(4, "chest")]
    with pytest.raises(InputError, match="no task 99"):
        retry(state, 99)
    with pytest.raises(InputError, match="there is no retry"):
        retry(state, 2)
    with disk(state) as store:  # a daemon has the journal open, and commits
        hold = store.journal.submit(lambda c: __import__("time").sleep(0.3))
        assert retry(state, None) == [4]
        hold.result()
        assert {row["state"] for row in store.rows("SELECT state FROM task WHERE id = 4")} == {"queued"}
        store.journal.write(lambda c: move_task(c, 4, Event.START))
    assert reconcile(state).troubles == []
    assert retry(state, None) == []


@pytest.mark.parametrize(
    ("name", "destination"), [("by another version.dcm", "pacs"), ("sr.dcm", "elsewhere"), ("sr.dcm", "pacs")]
)
def test_what_a_retry_answers_takes_the_place_of_what_did_not_get_there(
    state: Path, name: str, destination: str
) -> None:
    (task,) = retry(state, None)
    with disk(state) as store:
        store.answered(task, (destination,), name)
        ((delivery,),) = [
            row.values()
            for row in store.rows(
                f"SELECT id FROM delivery WHERE destination = '{destination}' AND state = 'pending' AND id > 2"
            )
        ]
        store.journal.write(lambda c: move_delivery(c, delivery, "delivered"))
        assert store.rows(f"SELECT state FROM task WHERE id = {task}") == [{"state": "delivered"}]
    assert failed(state) == []
    assert reconcile(state).troubles == []


def test_the_command(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["reconcile", str(state), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["clean"], document["open"], document["unaccounted"]) == (True, 3, [])
    assert invoke(["reconcile", str(state), "--retry", "all-failed"]) == 0
    assert "To be tried again: 4." in capsys.readouterr().out
    config = state / "bedside.toml"
    config.write_text('[daemon]\nstate = "."\n[[models]]\nname = "chest"\nbundle = "chest.edgemed"\n')
    first_object(state).unlink()
    with pytest.raises(Exception, match="1 thing is not accounted") as error:
        invoke(["reconcile", str(config)])
    assert error.value.exit_code == 1
    assert "lost" in capsys.readouterr().out
    overwrite(first_object(state))
    with pytest.raises(IntegrityError):
        invoke(["reconcile", str(state)])
    (state / JOURNAL).write_bytes(b"nothing" * 1000)
    with pytest.raises(IntegrityError, match="damaged"):
        invoke(["reconcile", str(state)])
    with pytest.raises(InputError, match="no journal"):
        reconcile(state / "objects")
