"""The desk, without a worker: where requests are, and that none is forgotten between two workers."""

from __future__ import annotations

from concurrent.futures import wait
from typing import Any

import numpy as np

from edgemed.base.errors import ChildError, ResourceError
from edgemed.runtime.contained.desk import Desk
from edgemed.runtime.contained.requests import Reply, Request
from tests.runtime.contained.kit import frame


class Recorder:
    """A link that notes what it is asked, or fails as a socket does."""

    def __init__(self, error: OSError | None = None) -> None:
        self.error = error
        self.asked: list[tuple[int, int]] = []
        self.filled: list[int] = []

    def fill(self, slot: int, feeds: Any) -> None:
        self.filled.append(slot)

    def run(self, slot: int, number: int, shapes: Any) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append((slot, number))


def desk(reserved: int = 0, pool: int = 1, limit: int = 8) -> tuple[Desk, list[int]]:
    woken: list[int] = []
    made = Desk(reserved, pool, limit, lambda: woken.append(1))
    made.accept()
    return made, woken


def connected(made: Desk, error: OSError | None = None) -> Recorder:
    link = Recorder(error)
    made.connect(link)  # type: ignore[arg-type]
    made.open()
    return link


def reply() -> Reply:
    return Reply({"y": np.zeros(1)}, None, (), 1, 1)  # type: ignore[arg-type]


def test_requests_wait_for_a_worker_and_are_sent_in_order() -> None:
    made, _ = desk(pool=2)
    requests = [Request(frame(n)) for n in range(3)]
    for request in requests:
        made.offer(request)
    link = connected(made)
    assert link.asked == [(0, 1), (1, 2)]
    assert [request.number for request in requests] == [1, 2, 0]
    assert made.first == 1


def test_a_failed_send_is_forgotten_with_the_worker_it_was_for() -> None:
    made, woken = desk()
    connected(made, BrokenPipeError())
    request = Request(frame(0))
    made.offer(request)
    assert isinstance(made.broken, BrokenPipeError)
    assert woken
    assert made.disconnect() == [request]
    assert made.broken is None


def test_what_was_answered_under_suspicion_is_delivered_after_the_check_and_lost_with_the_worker() -> None:
    for sound in (True, False):
        made, _ = desk(pool=2)
        connected(made)
        answered, flying, waiting = (Request(frame(n)) for n in range(3))
        for request in (answered, flying, waiting):
            made.offer(request)
        made.suspect()
        message = type("M", (), {"slot": 0, "request": 1})()
        assert made.flying(message) is answered
        made.land(message)
        made.hold(answered, reply())
        made.pump()
        assert waiting.number == 0
        assert not answered.ended
        if sound:
            made.open()
            assert answered.future.result(0) is not None
            assert waiting.number == 3
        else:
            assert made.disconnect() == [answered, flying]
            assert made.withdraw() == [waiting]


def test_a_refusal_ends_what_waits_and_what_comes_each_with_an_error_of_its_own() -> None:
    made, _ = desk()
    first, second = Request(frame(0)), Request(frame(1))
    made.offer(first)
    refusal = ChildError("No more.", "Stop.")
    made.refuse(refusal)
    made.offer(second)
    errors = [request.future.exception(0) for request in (first, second)]
    assert [str(error) for error in errors] == ["No more. Stop."] * 2
    assert errors[0] is not errors[1]
    third, fourth = Request(frame(2)), Request(frame(3))
    made.again([third])
    assert third.ended
    assert made.take(fourth) is refusal
    assert not fourth.ended


def test_a_slot_that_is_brought_along_is_neither_filled_nor_lent_to_others() -> None:
    made, _ = desk(reserved=2, pool=1)
    link = connected(made)
    made.offer(Request(frame(0), home=made, slot=1))
    made.offer(Request(frame(1)))
    made.offer(Request(frame(2), home=object(), slot=0))  # another desk's slot: its frame is copied
    assert link.asked == [(1, 1), (2, 2)]
    assert link.filled == [2]


def test_ended_and_cancelled_requests_give_their_slot_to_the_next() -> None:
    made, _ = desk()
    cancelled, ended, good = (Request(frame(n)) for n in range(3))
    for request in (cancelled, ended, good):
        made.offer(request)
    cancelled.future.cancel()
    ended.fail(ChildError("It was too late."))
    link = connected(made)
    assert link.asked == [(0, 1)]
    assert good.number == 1


def test_only_requests_that_somebody_waits_for_count_against_the_limit() -> None:
    made, _ = desk(limit=2)
    cancelled, kept, late, refused = (Request(frame(n)) for n in range(4))
    for request in (cancelled, kept):
        made.offer(request)
    cancelled.future.cancel()
    assert made.take(late) is None
    assert cancelled.future in wait([cancelled.future], 0).done
    assert isinstance(made.take(refused), ResourceError)
    assert made.withdraw() == [kept, late]


def test_deadlines_are_looked_at_in_time() -> None:
    made, woken = desk()
    assert made.plan(1000) == 1000
    patient, hasty = Request(frame(0), deadline_ns=5000), Request(frame(1), deadline_ns=500)
    made.offer(patient)
    assert not woken
    made.offer(hasty)
    assert woken
    assert made.plan(1000) == 500
    made.expire(499)
    assert not hasty.ended
    made.expire(500)
    assert hasty.ended
    assert made.plan(10_000) == 5000
    assert made.withdraw() == [patient]
