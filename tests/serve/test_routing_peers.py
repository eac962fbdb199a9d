"""Completeness with real senders: DCMTK that releases, and a peer that aborts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pynetdicom import AE

from edgemed.serve.routing import Router
from tests.serve import kit
from tests.serve.dicom import rig
from tests.waiting import wait_for

RULES = {"after": "1ms", "quiet": "600s"}


@contextmanager
def bedside(root: Path) -> Iterator[rig.Rig]:
    model = {"name": "ct", "bundle": root / "none.edgemed", "level": "series", "completeness": RULES}
    with rig.inlet(root, sections={"models": [model]}) as one:
        Router(one.services).start()
        yield one


def series(count: int) -> list[Any]:
    return [kit.image(study="1.1", series="1.1.1", instance=f"1.1.1.{number}") for number in range(1, count + 1)]


def tasks(one: rig.Rig) -> list[tuple[Any, ...]]:
    sql = "SELECT revision, state, completeness, (SELECT count(*) FROM part WHERE task = task.id) FROM task"
    return [tuple(row) for row in one.rows(sql)]


tmp_path = kit.folder_in_memory


@rig.needs("storescu")
def test_a_series_that_storescu_sends_is_complete_with_its_release(tmp_path: Path) -> None:
    with bedside(tmp_path) as one:
        files = [kit.write(ds, tmp_path / f"{number}.dcm") for number, ds in enumerate(series(3))]
        rig.storescu(one.port, *files)
        wait_for(lambda: [task[:2] for task in tasks(one)] == [(1, "queued")], "completion")
        assert tasks(one) == [(1, "queued", "association released, then quiet; 3 images", 3)]


def test_an_abort_completes_nothing_and_the_rest_in_another_association_does(tmp_path: Path) -> None:
    first, second = series(2)
    with bedside(tmp_path) as one:
        ended = threading.Event()
        one.services.intake.on_association_ended.append(lambda *_: ended.set())
        entity = AE("CT1")
        entity.add_requested_context(kit.CT)
        association = entity.associate("127.0.0.1", one.port, ae_title="EDGEMED")
        assert association.send_c_store(first).Status == 0
        association.abort()
        assert ended.wait(60)
        beat = one.services.loops.beats["router"]
        for _ in range(2):  # it has decided after it was told
            before, now_ns = beat.last_ns, beat.last_ns
            while now_ns == before:
                one.services.loops.wake("router")
                ended.clear()
                ended.wait(0.05)
                now_ns = beat.last_ns
        assert [task[:2] for task in tasks(one)] == [(1, "collecting")]
        association = entity.associate("127.0.0.1", one.port, ae_title="EDGEMED")
        assert association.send_c_store(second).Status == 0
        association.release()
        wait_for(lambda: [task[1] for task in tasks(one)] == ["queued"], "completion")
        assert tasks(one) == [(1, "queued", "association released, then quiet; 2 images", 2)]
