"""What tests of analyses need: a task in the journal, as the router would have opened it, and its end."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from edgemed.base.hashing import sha256_bytes
from edgemed.serve.journal.records import NewObject, add_object, move_object, move_task, open_task
from edgemed.serve.services import Services
from edgemed.serve.states import ENDS, Event, State
from tests.serve import kit
from tests.serve.store import rows
from tests.waiting import wait_for


def queue(services: Services, *images: Dataset | bytes, model: str = "chest", level: str = "instance") -> int:
    """A task that is complete; its objects are routed, so that no router looks at them."""
    new = []
    for index, image in enumerate(images):
        data = image if isinstance(image, bytes) else kit.encode(image)
        named = isinstance(image, Dataset)
        uid = str(image.SOPInstanceUID) if named else f"2.25.{time.monotonic_ns()}{index}"
        incoming = services.spool.new()
        incoming.write_bytes(data)
        path = services.spool.keep(incoming, uid)
        study, series = (str(image.StudyInstanceUID), str(image.SeriesInstanceUID)) if named else ("", "")
        new.append(NewObject("dicom", "CT1", "", uid, sha256_bytes(data), len(data), path, study, series))

    def enter(connection: sqlite3.Connection) -> int:
        numbers = [add_object(connection, each) for each in new]
        for number in numbers:
            move_object(connection, number, Event.ROUTE)
        task = open_task(connection, model, level, new[0].sop_instance, numbers)
        move_task(connection, task, Event.COMPLETE)
        return task

    task: int = services.journal.write(enter)
    services.loops.wake("analyst")
    return task


def row(services: Services, task: int) -> sqlite3.Row:
    (found,) = rows(services.journal, "SELECT * FROM task WHERE id = ?", task)
    return found


def ended(services: Services, *tasks: int, states: Sequence[State] = tuple(ENDS)) -> list[sqlite3.Row]:
    """The rows of tasks, once each stands in one of the states."""

    def now() -> list[sqlite3.Row]:
        return [row(services, task) for task in tasks]

    def all_ended() -> list[sqlite3.Row]:
        found = now()
        return found if all(State(each["state"]) in states for each in found) else []

    return wait_for(all_ended, lambda: [(each["id"], each["state"], each["reason"]) for each in now()])


def results(services: Services, task: int, kind: str) -> list[Path]:
    """Files of a task."""
    found = rows(services.journal, "SELECT path FROM result WHERE task = ? AND kind = ? ORDER BY id", task, kind)
    return [services.spool.path(each["path"]) for each in found]


def document(services: Services, task: int) -> dict[str, Any]:
    """The JSON result of a task."""
    (path,) = results(services, task, "json")
    loaded: dict[str, Any] = json.loads(path.read_bytes())
    return loaded


def pixels_of(ds: Any) -> np.ndarray:
    return np.frombuffer(ds.PixelData, np.uint8).reshape(-1, ds.Rows, ds.Columns)


def with_square(**attributes: Any) -> Any:
    """A dark image with a bright square in it, off the middle."""
    ds = kit.image(level=30, rows=32, columns=48, **attributes)
    pixels = pixels_of(ds).copy()
    pixels[:, 4:12, 24:36] = 230
    ds.PixelData = pixels.tobytes()
    return ds
