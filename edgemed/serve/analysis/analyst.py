"""Takes tasks that are queued, the one that is due first, and answers them: a few at a time, each in its own thread."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import traceback
from datetime import timedelta
from functools import partial
from typing import Final

from edgemed.base.errors import EdgemedError, ResourceError, out_of_handles
from edgemed.base.quantity import SECOND
from edgemed.base.spans import Span
from edgemed.bundle.read import Bundle
from edgemed.evaluate.readings import Readings
from edgemed.imaging.results.content import Content
from edgemed.serve.analysis.distribution import Distributions
from edgemed.serve.analysis.examine import TOO_LATE, Examination, Findings
from edgemed.serve.analysis.results import author_of, deliver, warm
from edgemed.serve.analysis.task import Broken, Declined, Interrupted, Task, first_queued, read_task, without_names
from edgemed.serve.analysis.telling import Teller
from edgemed.serve.analysis.units import makes_volumes
from edgemed.serve.clock import from_stamp, utc
from edgemed.serve.journal.records import NoTransition, move_task
from edgemed.serve.loops import Beat
from edgemed.serve.models.served import Served
from edgemed.serve.outlets.plan import makes_dicom
from edgemed.serve.readiness import Finding
from edgemed.serve.services import Services
from edgemed.serve.states import Event

log = logging.getLogger(__name__)

LOOP: Final = "analyst"
MOST_TRIES: Final = 3
"""Analyses of one task that are begun: an input that takes the daemon or a worker with it is not tried for ever."""

_AT_A_TIME: Final = 4
_STEP_NS: Final = 600 * SECOND  # a frame, or a whole volume, may take so long; then the daemon is taken to hang
_WRITE_NS: Final = 60 * SECOND  # of the loop that wakes the others: it writes to a disk that may be busy
_LOOK_S: Final = 1.0
_START_S: Final = 0.2  # inlets start first: what is loaded for results keeps the interpreter busy
_REST_S: Final = 3600.0
_PAUSE_NS: Final = SECOND  # for a model that did not answer, before it is asked again
_PATIENCE_S: Final = 2.0
_FULL_BYTES: Final = 16 << 20
_LATE: Final = "It was answered after its deadline."


class Analyst:
    """See above."""

    name = "analyst"

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()  # of taking tasks
        self._readings: dict[str, Readings] = {}  # by digest
        self._pauses: dict[str, int] = {}
        self._began_ns = time.monotonic_ns()
        self._draining = self._ending = False
        self._rehearsed = threading.Event()
        self._taken: dict[int, bool] = {}  # tasks under way; whether they are of volumes
        self._idle = threading.Condition()
        self._teller = Teller(services)
        self._distributions = Distributions(services)
        self._loops = [f"analysis {i + 1}" for i in range(max(2, min(_AT_A_TIME, os.cpu_count() or 1)))]

    def start(self) -> None:
        """Begin. Tasks that an earlier run had under way are queued again by then.

        Raises:
            InputError: a model is to refuse what is unlike its images, and its bundle cannot tell.
        """
        for model in self._services.config.models:
            if model.max_ood is not None:
                self._distributions.require(self._services.models.get(model.name))
        for name in self._loops:
            self._services.loops.start(name, self._work, limit_ns=_STEP_NS)
        self._services.loops.start(LOOP, self._wake, limit_ns=_WRITE_NS)
        if any(map(makes_dicom, self._services.config.models)):
            self._services.readiness.register("results", self._unrehearsed)
            self._services.loops.start("rehearsal", self._rehearse, limit_ns=_WRITE_NS)

    def drain(self) -> None:
        """Take nothing new; what is under way goes on."""
        self._draining = True

    def stop(self) -> None:
        """What is under way still is queued again."""
        self._ending = True
        with self._idle:
            self._idle.wait_for(lambda: not self._taken, _PATIENCE_S)
        self._distributions.keep()

    def _wake(self, beat: Beat) -> None:
        """Whoever has queued a task wakes this loop, and it wakes those that work."""
        while beat.wait(_LOOK_S):
            for name in self._loops:
                self._services.loops.wake(name)
            self._queue_lost()
            self._distributions.tend()

    def _rehearse(self, beat: Beat) -> None:
        """Once; then it rests."""
        if not self._rehearsed.is_set() and beat.wait(_START_S):
            warm(self._services)
            self._rehearsed.set()
        while beat.wait(_REST_S):
            pass

    def _unrehearsed(self) -> Finding | None:
        """Tasks are answered meanwhile, as quickly as they can be."""
        return None if self._rehearsed.is_set() else Finding("results", "What writes results is being loaded.")

    def _queue_lost(self) -> None:
        """Tasks that are under way by the journal alone: when one was given back, the disk was full."""
        with self._lock:
            taken = set(self._taken)  # before the journal is asked: what ends meanwhile is no news
            with self._services.journal.read() as connection:
                rows = connection.execute(
                    "SELECT id FROM task WHERE state NOT IN ('delivered', 'not-analysed', 'failed')"
                    " AND state = 'analysing'"
                ).fetchall()
            for (number,) in rows:
                if number not in taken:
                    self._move(number, Event.INTERRUPT, "Its end could not be written down.", uncounted=True)

    def _work(self, beat: Beat) -> None:
        while beat.wait(_LOOK_S):
            while (taken := self._take()) is not None:
                try:
                    self._answer(*taken, beat)
                finally:
                    with self._idle:
                        self._taken.pop(taken[0], None)
                        self._idle.notify_all()
                beat()

    # -- taking ------------------------------------------------------------------------------------------------------

    def _take(self) -> tuple[int, Served, int] | None:
        """The task that is due first of those whose model answers; it is begun when this returns.

        Returns:
            Its number, the model, and when it is due.
        """
        with self._lock:
            if self._draining:
                return None
            found = [taken for name in self._services.models.names() if (taken := self._first(name)) is not None]
            if not found:
                return None
            number, served, due_ns = min(found, key=lambda each: (each[2], each[0]))
            self._taken[number] = makes_volumes(served.reader)
            try:
                self._services.journal.write(partial(move_task, number=number, event=Event.START))
            except BaseException:
                self._taken.pop(number, None)
                raise
        return number, served, due_ns

    def _first(self, name: str) -> tuple[int, Served, int] | None:
        """The task of a model that is due first, where it may be taken now."""
        served = self._services.models.get(name)
        with self._services.journal.read() as connection:
            row = first_queued(connection, name)
        if row is None:
            return None
        due_ns = self._due_ns(row, served)
        late = served.section.late == "drop" and due_ns <= time.monotonic_ns()
        if not late and not self._may_ask(served):
            return None
        if makes_volumes(served.reader) and any(self._taken.values()):  # one at a time: they take gigabytes
            return None
        return row["id"], served, due_ns

    def _may_ask(self, served: Served) -> bool:
        """Whether the model answers now, or is to refuse where it does not."""
        if time.monotonic_ns() < self._pauses.get(served.name, 0):
            return False
        finding = served.finding
        if finding is None or not finding.stops:
            return True
        return served.section.when_lost == "refuse" and served.info.backend != "none"  # 'none': it is being loaded

    def _due_ns(self, row: sqlite3.Row, served: Served) -> int:
        """By the monotonic clock where this run saw it complete; else by the calendar, but no longer ago than this run.

        So a restart gives what waits its deadline anew, whatever the calendar was set to meanwhile.
        """
        line = self._services.timelines.get(row["id"])
        if line is not None and "complete" in line.points:
            return line.points["complete"] + served.section.deadline_ns
        passed: timedelta = utc() - from_stamp(row["completed"] or row["created"])
        now_ns = time.monotonic_ns()
        passed_ns = max(0, min(int(passed.total_seconds() * 1e9), now_ns - self._began_ns))
        return now_ns - passed_ns + served.section.deadline_ns

    # -- answering ---------------------------------------------------------------------------------------------------

    def _answer(self, number: int, served: Served, due_ns: int, beat: Beat) -> None:
        """One task, to whatever end it comes."""
        self._teller.began(number, served.name)
        try:
            with self._services.journal.read() as connection:
                task = read_task(connection, number, self._services.spool)
        except EdgemedError as error:
            log.error("task %d cannot be read: %s", number, error.what)  # it is queued again by `_queue_lost`
            return
        try:
            if task.tries > MOST_TRIES:
                raise Broken(f"It was begun {MOST_TRIES} times, and never came to an end.")
            content, spans = self._content(task, served, due_ns, beat)
            self._finish(task, served, due_ns, content, spans)
        except Interrupted as error:
            self._interrupt(task, served, error)
        except ResourceError as error:
            counts = self._has_space and not out_of_handles(error)
            self._interrupt(task, served, Interrupted(without_names(error, task.files), counts=counts))
        except Broken as error:
            self._break(task, served, str(error))
        except EdgemedError as error:
            self._break(task, served, without_names(error, task.files))
        except MemoryError:
            self._break(task, served, "There was not enough memory.")
        except Exception as error:
            if out_of_handles(error):
                self._interrupt(task, served, Interrupted("Too many files were open.", counts=False))
                return
            where = traceback.extract_tb(error.__traceback__)[-1]  # the message may hold names
            log.error("task %d: %s in %s:%s", number, type(error).__name__, where.filename, where.lineno)
            self._break(task, served, f"An error of ours: {type(error).__name__}.")

    @property
    def _has_space(self) -> bool:
        """Whether it was something else than the disk."""
        return self._services.spool.free_bytes > _FULL_BYTES

    def _content(self, task: Task, served: Served, due_ns: int, beat: Beat) -> tuple[Content, list[Span]]:
        """What is found, or why nothing is.

        Raises:
            Broken, Interrupted: there is nothing to say yet.
        """
        drop = served.section.late == "drop"
        judge = self._distributions.judge(served, task.files[0].path)
        try:
            if drop and time.monotonic_ns() >= due_ns:
                raise Declined(TOO_LATE)
            examination = Examination(
                task,
                served,
                self._readings_of(served.bundle),
                due_ns=due_ns,
                deadline_ns=due_ns if drop else None,
                progress=partial(self._progress, beat),
                on_sample=judge.sample,
            )
            found = examination.run()
            if drop and time.monotonic_ns() >= due_ns:
                raise Declined(TOO_LATE)
        except Declined as error:
            if error.unanswered and self._services.models.get(served.name).version != served.version:
                raise Interrupted("Another version of the model has taken over.", counts=False) from error
            judge.done(())
            return self._made(task, served, Findings(), due_ns, ood=judge.score, refusal=str(error)), []
        judge.done(found.readings)
        found.notes += judge.notes
        return self._made(task, served, found, due_ns, ood=judge.score), found.spans

    def _progress(self, beat: Beat) -> None:
        beat()
        if self._ending:
            raise Interrupted("The daemon is ending.", counts=False)

    def _readings_of(self, bundle: Bundle) -> Readings:
        """How a bundle's outputs read.

        Raises:
            Broken: they do not say.
        """
        if bundle.digest not in self._readings:
            try:
                self._readings[bundle.digest] = Readings.of(bundle)
            except EdgemedError as error:
                raise Broken(f"{error.what} {error.hint}") from error
        return self._readings[bundle.digest]

    def _made(
        self, task: Task, served: Served, found: Findings, due_ns: int, *, ood: float | None, refusal: str | None = None
    ) -> Content:
        late = [_LATE] if refusal is None and time.monotonic_ns() > due_ns else []
        return Content(
            author=author_of(self._services, served, found.info),
            sources=tuple(file.path for file in task.files),
            analysed=task.began,
            readings=tuple(found.readings),
            refusal=refusal,
            notes=(*late, *found.notes),
            ood=ood,
            planes=found.planes,
            revision=task.revision,
            replaces=task.replaces,
        )

    def _finish(self, task: Task, served: Served, due_ns: int, content: Content, spans: list[Span]) -> None:
        began_ns = time.monotonic_ns()
        end = deliver(self._services, served.section, task.number, content, served.bundle.digest)
        write = Span("write", began_ns, time.monotonic_ns(), task.number)
        self._teller.written(task, content, [*spans, write], due_ns, end)
        self._services.loops.wake("outlets")  # after it: what delivers ends the task's timeline

    def _interrupt(self, task: Task, served: Served, error: Interrupted) -> None:
        """Queue it again; the last time, it has failed."""
        if error.counts and task.tries >= MOST_TRIES:
            self._break(task, served, f"It was begun {MOST_TRIES} times. The last time: {error.reason}")
            return

        log.warning("task %d is tried again: %s", task.number, error.reason)
        self._pauses[served.name] = time.monotonic_ns() + _PAUSE_NS
        self._move(task.number, Event.INTERRUPT, error.reason, uncounted=not error.counts)

    def _break(self, task: Task, served: Served, reason: str) -> None:
        if self._move(task.number, Event.BREAK, reason):
            self._teller.broke(task, reason, served.bundle.digest)

    def _move(self, number: int, event: Event, reason: str, *, uncounted: bool = False) -> bool:
        """Let it happen to a task; whether it did."""

        def work(connection: sqlite3.Connection) -> None:
            move_task(connection, number, event, reason)
            if uncounted:
                connection.execute("UPDATE task SET tries = tries - 1 WHERE id = ?", (number,))

        try:
            self._services.journal.write(work)
        except NoTransition:  # it has come to its end, and what failed came after
            log.error("task %d had ended already", number)
            return False
        except EdgemedError as error:
            log.error("what became of task %d cannot be written: %s", number, error.what)
            return False
        return True
