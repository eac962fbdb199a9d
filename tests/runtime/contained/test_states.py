"""The table of states, the budget of rebuilds, and how a standing count is told from a standing machine."""

from __future__ import annotations

import numpy as np
import pytest

from edgemed.runtime.contained.stall import Stall
from edgemed.runtime.contained.states import TRANSITIONS, Budget, Event, Limits, State

SECOND = 1_000_000_000
MS = 1_000_000


def test_every_state_can_be_reached_and_closed_and_only_closed_is_the_end() -> None:
    reached, grown = {State.NEW}, True
    while grown:
        more = {to for (state, _), to in TRANSITIONS.items() if state in reached} - reached
        reached |= more
        grown = bool(more)
    assert reached == set(State)
    for state in State:
        closes = TRANSITIONS.get((state, Event.CLOSE))
        assert closes == (None if state is State.CLOSED else State.CLOSED)
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_nothing_but_a_right_golden_answer_makes_ready() -> None:
    assert {event for (_, event), to in TRANSITIONS.items() if to is State.READY} == {Event.RIGHT}
    assert {state for (state, _), to in TRANSITIONS.items() if to is State.READY} == {State.CHECKING, State.READY}


def test_the_first_rebuild_is_at_once_and_the_others_wait_longer_and_longer() -> None:
    limits = Limits(rebuilds=7, window_ns=600 * SECOND, backoff_ns=SECOND, backoff_cap_ns=10 * SECOND)
    budget = Budget(limits)
    delays = [budget.spend(now) for now in range(8)]
    assert delays == [0, SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND, 10 * SECOND, 10 * SECOND, None]
    assert budget.spend(601 * SECOND) == 0  # all are forgotten
    budget.renew()
    assert budget.spend(601 * SECOND) == 0


def test_a_window_forgets_one_by_one() -> None:
    budget = Budget(Limits(rebuilds=2, window_ns=100))
    assert budget.spend(0) == 0
    assert budget.spend(60) == Limits().backoff_ns
    assert budget.spend(90) is None
    assert budget.spend(101) == Limits().backoff_ns
    assert budget.spend(150) is None


@pytest.mark.parametrize("rebuilds", [0, 10**6])
def test_a_budget_may_be_nothing_or_as_good_as_endless(rebuilds: int) -> None:
    budget = Budget(Limits(rebuilds=rebuilds, backoff_cap_ns=5))
    delays = [budget.spend(0) for _ in range(200)]
    assert set(delays[2:]) == ({None} if rebuilds == 0 else {5})


class Watch:
    """A stall that is looked at each tick."""

    def __init__(self, hang_ns: int) -> None:
        self.steps = np.zeros(1, np.uint64)
        self.stall = Stall(hang_ns, self.steps)
        self.now_ns = 10 * SECOND

    def look(self, ticks: float, asked: int = 1) -> bool:
        self.now_ns += int(ticks * self.stall.tick_ns)
        return self.stall.hangs(self.now_ns, (asked, 0))


def test_a_count_that_stands_still_is_a_hang_and_one_that_moves_is_none() -> None:
    watch = Watch(400 * MS)
    assert [watch.look(1) for _ in range(5)] == [False, False, False, False, True]
    watch = Watch(400 * MS)
    for _ in range(100):
        watch.steps += 1
        assert not watch.look(1)


def test_what_is_asked_anew_begins_anew() -> None:
    watch = Watch(400 * MS)
    assert not any(watch.look(1, asked) for asked in (1, 1, 1, 1, 2, 2, 2, 2))
    assert watch.look(1, 2)


def test_a_pause_of_the_whole_machine_is_no_hang() -> None:
    watch = Watch(400 * MS)
    assert not watch.look(1)
    assert not watch.look(10**6)
    watch.steps += 1
    assert not watch.look(1)


def test_a_worker_that_is_asked_nothing_may_be_slow_and_not_stand_for_ever() -> None:
    watch = Watch(20 * MS)
    assert not any(watch.look(1, 0) for _ in range(100))
    assert any(watch.look(1, 0) for _ in range(400))
