"""The order, and the bound on how late it makes anything: held against the best that any schedule could do."""

from __future__ import annotations

import heapq

from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.serve.analysis.edf import Cost, EdfQueue, Job, Rules


def jobs(*dues: int, live: bool = False) -> list[Job]:
    return [Job(due_ns=due, live=live) for due in dues]


def test_earliest_due_first_and_live_before_the_rest() -> None:
    queue: EdfQueue[Job] = EdfQueue(Rules())
    late, early, stream, idle = Job(due_ns=9), Job(due_ns=3), Job(due_ns=50, live=True), Job()
    for job in (idle, late, early, stream):
        assert queue.push(job)
    assert [queue.take(0)[0] for _ in range(4)] == [stream, early, late, idle]
    assert queue.take(0) == []
    assert len(queue) == 0


def test_a_camera_does_not_keep_everything_else_waiting() -> None:
    queue: EdfQueue[Job] = EdfQueue(Rules(burst=3))
    queue.push(Job(due_ns=1))
    taken = []
    for _ in range(5):
        queue.push(Job(live=True))
        taken.append(queue.take(0)[0].live)
    assert taken == [True, True, True, False, True]


def test_more_than_the_bound_is_refused_and_what_is_too_late_leaves() -> None:
    queue: EdfQueue[Job] = EdfQueue(Rules(bound=2))
    soon, later, more = Job(deadline_ns=5), Job(deadline_ns=9), Job()
    assert [queue.push(job) for job in (soon, later, more)] == [True, True, False]
    assert queue.look_ns() == 5
    assert queue.expired(5) == [soon]
    assert queue.look_ns() == 9
    assert queue.take(6) == [later]
    assert queue.expired(100) == []


def test_what_goes_together_is_of_one_kind_and_overtakes_nobody() -> None:
    queue: EdfQueue[Job] = EdfQueue(Rules(most=4))
    a, b, other, c = (Job(due_ns=due, kind=kind) for due, kind in ((1, "x"), (2, "x"), (3, "y"), (4, "x")))
    for job in (c, other, b, a):
        queue.push(job)
    assert [queue.take(0) for _ in range(3)] == [[a, b], [other], [c]]


def test_company_does_not_make_the_first_late() -> None:
    queue: EdfQueue[Job] = EdfQueue(Rules(most=4))
    queue.cost.saw(1, 10)
    for job in jobs(25, 100, 100):
        queue.push(job)
    assert [len(queue.take(0)) for _ in range(2)] == [2, 1]  # 20 is in time, 30 would not be


def test_it_waits_for_company_only_while_that_is_in_time() -> None:
    queue: EdfQueue[Job] = EdfQueue(Rules(most=2, wait_ns=10))
    queue.cost.saw(2, 20)
    queue.push(Job(due_ns=100))
    assert queue.take(0) == []
    assert queue.look_ns() == 10
    assert len(queue.take(10)) == 1
    queue.push(Job(due_ns=25))
    assert len(queue.take(0)) == 1  # waiting and a batch take 30
    queue.push(Job(live=True))
    assert len(queue.take(0)) == 1


def test_cost_is_the_greatest_and_forgets_slowly() -> None:
    cost = Cost()
    assert cost.ns(1) == 0
    cost.saw(1, 1600)
    cost.saw(1, 0)
    assert cost.ns(1) == 1500
    assert cost.ns(4) == 6000
    cost.saw(8, 4000)
    assert cost.ns(4) == 6000
    assert cost.ns(8) == 4000


# -- the bound ---------------------------------------------------------------------------------------------------------

Arrivals = list[tuple[int, int, int]]  # release, time left when it comes, samples

arrivals = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40), st.integers(1, 2)), min_size=1, max_size=24)


def batch_ns(size: int, each: int, saved: int) -> int:
    """What an inference of so many samples takes: never more than one after the other."""
    return size * each - (size - 1) * saved


def greatest_lateness(work: Arrivals, each: int) -> int:
    """Of the best schedule there is, which may interrupt what runs: preemptive EDF is optimal (Dertouzos 1974)."""
    waiting: list[tuple[int, int]] = []
    coming = sorted((release, release + left, size * each) for release, left, size in work)
    now, worst = 0, -(1 << 60)
    while coming or waiting:
        if not waiting:
            now = max(now, coming[0][0])
        while coming and coming[0][0] <= now:
            _, due, cost = coming.pop(0)
            heapq.heappush(waiting, (due, cost))
        due, cost = heapq.heappop(waiting)
        run = min(cost, coming[0][0] - now) if coming else cost
        now += run
        if run < cost:
            heapq.heappush(waiting, (due, cost - run))
        else:
            worst = max(worst, now - due)
    return worst


def simulated(work: Arrivals, rules: Rules, each: int, saved: int) -> tuple[list[int], list[int]]:
    """Lateness of every request, and the length of every inference, on one device that cannot be interrupted."""
    queue: EdfQueue[Job] = EdfQueue(rules)
    for size in range(1, rules.most + 1):
        queue.cost.saw(size, batch_ns(size, each, saved))
    coming = sorted((release, release + left, size) for release, left, size in work)
    now, late, took = 0, [], []
    while coming or len(queue):
        if not len(queue):
            now = max(now, coming[0][0])
        while coming and coming[0][0] <= now:
            release, due, size = coming.pop(0)
            assert queue.push(Job(size=size, due_ns=due, submitted_ns=release))
        batch = queue.take(now)
        if not batch:
            looks = [look for look in (queue.look_ns(), coming[0][0] if coming else None) if look is not None]
            assert min(looks) > now
            now = min(looks)
            continue
        ran = batch_ns(sum(job.size for job in batch), each, saved)
        now += ran
        took.append(ran)
        late += [now - (job.due_ns or 0) for job in batch]
    assert len(late) == len(work)
    return late, took


@settings(max_examples=300, deadline=None)
@given(arrivals, st.integers(1, 6), st.integers(2, 4), st.booleans())
def test_nothing_that_can_be_in_time_is_later_than_one_inference(
    work: Arrivals, each: int, most: int, batched: bool
) -> None:
    saved = each // 2 if batched else 0
    late, took = simulated(work, Rules(most=most if batched else 1), each, saved)
    best = greatest_lateness(work, each)
    # where no schedule is in time, dues that are all so much later make one that is: the order is the same
    assert max(late) <= max(best, 0) + max(took)
