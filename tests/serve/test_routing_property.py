"""Any order, any interleaving of associations, restarts at any point: each image is in the tasks it must be in."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from edgemed.serve import routing
from edgemed.serve.journal.records import move_task
from edgemed.serve.journal.steps import StepState, create_step, set_step
from edgemed.serve.loops import Beat
from edgemed.serve.routing import Router
from edgemed.serve.services import Services
from edgemed.serve.states import Event
from tests.serve import kit
from tests.serve.store import in_memory

AFTER, QUIET = 2, 60  # of the clock below, where a moment is a nanosecond
IMAGES = 4


def images() -> dict[tuple[int, int], Dataset]:
    """Of two series of one study; the files of the second tell how many there are."""
    made = {}
    for series in range(2):
        for number in range(IMAGES):
            tells = {"NumberOfSeriesRelatedInstances": IMAGES} if series else {}
            uids = {"study": "1.1", "series": f"1.1.{series}", "instance": f"1.1.{series}.{number}"}
            made[series, number] = kit.image(rows=8, columns=8, **uids, **tells)
    return made


DATASETS = images()
ACTIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 1), st.integers(0, IMAGES - 1), st.sampled_from("ab")),
    st.tuples(st.just("end"), st.sampled_from("ab"), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from((1, AFTER, QUIET))),
    st.tuples(st.just("step")),
    st.tuples(st.just("route")),  # and no decision: as if the daemon ended in between
    st.tuples(st.just("restart")),
    st.tuples(st.just("finish")),
)
SOME = st.frozensets(st.integers(0, IMAGES - 1), max_size=3)
TOLD = st.one_of(
    st.tuples(st.just("send"), st.just(0), st.integers(0, IMAGES - 1), st.just("a")),
    st.tuples(
        st.just("tell"),
        st.integers(0, 1),
        st.just(0),
        SOME,
        st.sampled_from(("IN PROGRESS", "COMPLETED", "COMPLETED", "DISCONTINUED")),
    ),
    st.tuples(st.just("step")),
    st.tuples(st.just("end"), st.just("a"), st.just(True)),
    st.tuples(st.just("pass"), st.just(AFTER)),
    st.tuples(st.just("restart")),
)


class Clock:
    """Goes on when it is told."""

    now_ns = 1000

    def monotonic_ns(self) -> int:
        return self.now_ns


class Bedside:
    """A router that is driven by hand, and what was sent to it."""

    def __init__(self, services: Services, clock: Clock) -> None:
        self.services, self.clock = services, clock
        self.generation = 0
        self.sent: set[str] = set()
        self.complete: set[int] = set()
        self.restart()

    def restart(self) -> None:
        self.generation += 1
        self.services.intake.on_accepted.clear()
        self.services.intake.on_association_ended.clear()
        self.router = Router(self.services)
        self.services.intake.on_accepted.append(self.router._accepted)
        self.services.intake.on_association_ended.append(self.router._association_ended)
        self.router._restore()

    def send(self, series: int, number: int, association: str) -> None:
        ds = DATASETS[series, number]
        outcome = kit.arrive(self.services, ds, association=f"{association}{self.generation}")
        assert outcome.verdict == ("repeated" if ds.SOPInstanceUID in self.sent else "accepted")
        self.sent.add(ds.SOPInstanceUID)

    def end(self, association: str, released: bool) -> None:
        self.services.intake.association_ended(f"{association}{self.generation}", released=released)

    def pass_(self, moments: int) -> None:
        self.clock.now_ns += moments

    def route(self) -> None:
        self.router._route_all(Beat("router", 10**15, self.services.loops._stopping))

    def step(self) -> None:
        now_ns = self.clock.now_ns
        self.route()
        self.router._decide(now_ns)
        self.check_steps()

    def tell(self, step: int, series: int, images: frozenset[int], state: StepState) -> None:
        named = {f"1.1.{series}": [f"1.1.{series}.{number}" for number in images]}

        def work(connection: sqlite3.Connection) -> None:
            create_step(connection, f"9.{step}", "CT1", "1.1", {})
            set_step(connection, f"9.{step}", "CT1", state, named)

        self.services.journal.write(work)

    def check_steps(self) -> None:
        """What was decided of a series agrees with what ended steps name, and with what was routed."""
        with self.services.journal.read() as connection:
            tasks = connection.execute("SELECT * FROM task WHERE model = 'together'").fetchall()
            for task in tasks:
                named = dict(connection.execute(NAMED, (task["subject"],)).fetchall())
                missing = {uid for uid in named if uid not in self.sent}
                if task["state"] == "collecting":
                    assert not named or missing, "it waits for nothing"
                elif task["id"] not in self.complete:
                    self.complete.add(task["id"])
                    check_reason(task["completeness"], named, missing)

    def finish(self) -> None:
        """The analyst answers everything that is queued."""

        def work(connection: sqlite3.Connection) -> None:
            for (task,) in connection.execute("SELECT id FROM task WHERE state = 'queued'").fetchall():
                for event in (Event.START, Event.ANSWER, Event.FINISH):
                    move_task(connection, task, event)

        self.services.journal.write(work)

    def do(self, name: str, *values: Any) -> None:
        getattr(self, "pass_" if name == "pass" else name)(*values)


NAMED = (
    "SELECT step_image.sop_instance, max(step.state = 'COMPLETED') FROM step JOIN step_series"
    " ON step_series.step = step.id JOIN step_image ON step_image.series = step_series.id"
    " WHERE step_series.series = ? AND step.state <> 'IN PROGRESS' GROUP BY step_image.sop_instance"
)


def check_reason(reason: str, named: dict[str, int], missing: set[str]) -> None:
    """Why a series is complete, by what its steps name (1: a completed one does) and what of it is missing."""
    if not named:
        assert "procedure step" not in reason
    elif not missing:
        assert reason == f"all {len(named)} images that the procedure step names"
    else:
        assert reason.endswith(f"{len(missing)} of the {len(named)} images that the procedure step names are missing")
        assert reason.startswith("no image for" if any(named[uid] for uid in missing) else "procedure step disc")


def check(bedside: Bedside) -> None:
    with bedside.services.journal.read() as connection:
        tasks = connection.execute("SELECT * FROM task ORDER BY model, subject, revision").fetchall()
        parts: dict[int, set[str]] = {task["id"]: set() for task in tasks}
        for task, uid in connection.execute(
            "SELECT task, sop_instance FROM part JOIN object ON object.id = part.object"
        ).fetchall():
            parts[task].add(uid)
        ends = dict(connection.execute("SELECT sop_instance, state FROM object").fetchall())
    assert ends == dict.fromkeys(bedside.sent, "delivered")
    alone = [task for task in tasks if task["model"] == "alone"]
    assert {task["subject"] for task in alone} == bedside.sent
    assert [parts[task["id"]] for task in alone] == [{task["subject"]} for task in alone]
    assert all(task["revision"] == 1 for task in alone)
    for series in ("1.1.0", "1.1.1"):
        of_series = [task for task in tasks if task["model"] == "together" and task["subject"] == series]
        assert [task["revision"] for task in of_series] == list(range(1, len(of_series) + 1))
        sizes = [parts[task["id"]] for task in of_series]
        assert all(before < after for before, after in pairwise(sizes))  # none for nothing
        sent = {uid for uid in bedside.sent if uid.startswith(f"{series}.")}
        assert (sizes[-1] if sizes else set()) == sent
    assert {task["state"] for task in tasks} <= {"delivered"}
    assert all(task["completeness"] for task in tasks)


MODELS = [
    {"name": "alone", "bundle": "unused.edgemed"},
    {
        "name": "together",
        "bundle": "unused.edgemed",
        "level": "series",
        "completeness": {"after_ns": AFTER, "quiet_ns": QUIET},
    },
]


def play(monkeypatch: pytest.MonkeyPatch, actions: list[tuple[Any, ...]]) -> None:
    """Do it all, then let everything come to its end."""
    clock = Clock()
    monkeypatch.setattr(routing, "time", clock)
    with in_memory() as root, kit.resting(kit.bedside(root, models=MODELS)) as services:
        bedside = Bedside(services, clock)
        for action in actions:
            bedside.do(*action)
        bedside.step()
        bedside.pass_(QUIET)
        bedside.step()
        bedside.finish()
        check(bedside)


RANDOM = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@RANDOM
@given(actions=st.lists(ACTIONS, max_size=30))
def test_every_image_is_in_exactly_its_tasks(monkeypatch: pytest.MonkeyPatch, actions: list[tuple[Any, ...]]) -> None:
    play(monkeypatch, actions)


@RANDOM
@given(actions=st.lists(TOLD, min_size=4, max_size=14))
def test_a_series_is_complete_by_what_its_steps_name(
    monkeypatch: pytest.MonkeyPatch, actions: list[tuple[Any, ...]]
) -> None:
    play(monkeypatch, actions)


def test_the_check_sees_an_image_in_no_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The property above can fail."""
    models = [{"name": "alone", "bundle": "unused.edgemed", "match": {"modalities": ["MR"]}}]
    with kit.resting(kit.bedside(tmp_path, models=models)) as services:
        bedside = Bedside(services, Clock())
        bedside.send(0, 0, "a")
        bedside.step()
        with pytest.raises(AssertionError):
            check(bedside)
