"""The ring: order, back-pressure, policies, faults; every frame ends in exactly one of answered, failed, dropped."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemed.base.errors import EdgemedError, GpuError, InputError, UsageError
from edgemed.base.runner import RunnerSpecs, TensorSpec
from edgemed.runners.null import NullRunner
from edgemed.runtime.frames import Answer, Failure
from edgemed.runtime.policy import LATEST, Policy
from edgemed.runtime.ring import Ring
from edgemed.runtime.runner_lane import RunnerLane
from edgemed.runtime.slots import Box
from tests.runtime.lanes import answer, frame, frames, is_right, lane


def accounted(ring: Ring) -> bool:
    return ring.counts().unaccounted == 0


def test_outcomes_come_in_the_order_of_submission() -> None:
    with Ring(lane(4)) as ring:
        for number in (5, 3, 8, 1):
            assert ring.submit(frame(number))
        outcomes = [ring.collect() for _ in range(4)]
        assert [outcome.frame for outcome in outcomes] == [5, 3, 8, 1]
        assert all(is_right(outcome) for outcome in outcomes)


def test_an_answer_holds_its_slot_until_it_is_released() -> None:
    with Ring(lane(2)) as ring:
        ring.submit(frame(0))
        held = ring.collect()
        ring.submit(frame(1))
        assert not ring.room()
        held.release()
        held.release()
        assert ring.room()
        ring.submit(frame(2))
        assert [ring.collect().frame for _ in range(2)] == [1, 2]


def test_outputs_of_a_released_answer_cannot_be_read() -> None:
    with Ring(lane()) as ring:
        ring.submit(frame(7))
        with ring.collect() as outcome:
            kept = outcome.keep()
        with pytest.raises(RuntimeError, match="keep"):
            outcome.outputs["y"]
        with pytest.raises(RuntimeError, match="keep"):
            list(outcome.outputs)
        np.testing.assert_array_equal(kept["y"], [22, 22])


def test_submit_waits_for_a_slot() -> None:
    with Ring(lane(2)) as ring:
        entered = []

        def produce() -> None:
            for each in frames(5):
                ring.submit(each)
                entered.append(each.id)

        thread = threading.Thread(target=produce)
        thread.start()
        while ring.counts().submitted < 3:
            time.sleep(0.001)
        assert entered == [0, 1]
        assert ring.counts().in_flight == 3  # two in slots, and one that waits for one
        for number in range(5):
            with ring.collect() as outcome:
                assert outcome.frame == number
        thread.join()
        assert ring.counts().answered == 5


def test_frames_with_other_feeds_fail_and_the_ring_goes_on() -> None:
    with Ring(lane()) as ring:
        wrong = frame(0)
        wrong.data = {"x": np.zeros(2, np.float32)}
        ring.submit(wrong)
        ring.submit(frame(1))
        first, second = ring.collect(), ring.collect()
        assert isinstance(first, Failure)
        assert isinstance(first.error, InputError)
        assert is_right(second)


@pytest.mark.parametrize("error", [GpuError("The GPU refused."), ValueError("a bug"), MemoryError()])
@pytest.mark.parametrize("place", ["inputs", "start", "finish"])
def test_whatever_the_lane_raises_is_that_frames_failure(monkeypatch, place: str, error: Exception) -> None:
    driven = lane(2)
    real, calls = getattr(driven, place), []

    def sometimes(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise error
        return real(*arguments)

    monkeypatch.setattr(driven, place, sometimes)
    with Ring(driven) as ring:
        outcomes = [(type(outcome), outcome.frame) for outcome in ring.run(frames(6))]
        assert outcomes == [(Failure if number == 2 else Answer, number) for number in range(6)]
        counts = ring.counts()
        assert (counts.answered, counts.failed, counts.in_flight) == (5, 1, 0)


def test_a_frame_does_not_inherit_the_failure_of_the_one_that_it_supersedes() -> None:
    def fill(given, memory) -> None:
        if given.id == 1:
            raise InputError("no picture", "give one")
        memory(None)["x"][:] = given.data["x"]

    with Ring(lane(2), fill=fill, policy=LATEST) as ring:
        for each in frames(3):
            ring.submit(each)
        with ring.collect() as first:
            assert first.frame == 0
        last = ring.collect()
        assert (type(last), last.frame) == (Answer, 2)


def test_a_failure_says_what_was_raised(monkeypatch) -> None:
    def broken(feeds):
        raise ValueError("no such thing")

    with Ring(lane(script=broken)) as ring:
        ring.submit(frame(0))
        outcome = ring.collect()
        assert isinstance(outcome.error, EdgemedError)
        assert "ValueError while computing: no such thing" in str(outcome.error)
        assert isinstance(outcome.error.__cause__, ValueError)


def test_the_sources_buffer_goes_back_exactly_once_whatever_happens() -> None:
    returned: Counter[int] = Counter()

    def fill(given, memory) -> None:
        if given.id % 3 == 0:
            raise ValueError("fill")
        memory(None)["x"][:] = given.data["x"]

    with Ring(lane(2), fill=fill, policy=Policy("every-n", n=2)) as ring:
        given = (frame(number, done=lambda number=number: returned.update([number])) for number in range(20))
        for _ in ring.run(given):
            pass
    assert returned == Counter(range(20))


def test_an_interrupt_in_a_fill_frees_the_slot_and_is_raised() -> None:
    def fill(given, memory) -> None:
        raise KeyboardInterrupt

    with Ring(lane(1), fill=fill) as ring:
        for number in range(3):
            with pytest.raises(KeyboardInterrupt):
                ring.submit(frame(number))
        assert ring.counts().dropped["closed"] == 3
        assert ring.room()
        assert accounted(ring)


def test_an_interrupted_wait_can_be_taken_up_again() -> None:
    interrupts = iter([True, False])

    def script(feeds):
        if next(interrupts):
            raise KeyboardInterrupt
        return answer(feeds)

    with Ring(lane(script=script)) as ring:
        ring.submit(frame(4))
        with pytest.raises(KeyboardInterrupt):
            ring.collect()
        assert ring.counts().in_flight == 1
        assert is_right(ring.collect())


def test_what_is_inside_when_the_ring_ends_is_dropped() -> None:
    told = []
    with Ring(lane(3), on_drop=told.append) as ring:
        for each in frames(3):
            ring.submit(each)
    assert [(drop.frame, drop.reason) for drop in told] == [(0, "closed"), (1, "closed"), (2, "closed")]
    assert ring.counts().in_flight == 0
    assert not ring.submit(frame(9))
    assert ring.collect() is None
    assert accounted(ring)


def test_closed_it_takes_nothing_and_gives_what_is_inside() -> None:
    with Ring(lane(3)) as ring:
        ring.submit(frame(0))
        ring.close()
        assert not ring.submit(frame(1))
        with ring.collect() as outcome:
            assert outcome.frame == 0
        assert ring.collect() is None
        assert ring.counts().dropped["closed"] == 1


def test_before_it_is_entered_it_takes_nothing() -> None:
    ring = Ring(lane())
    returned = []
    assert not ring.submit(frame(0, done=lambda: returned.append(0)))
    assert ring.collect() is None
    assert (returned, ring.counts().dropped["closed"]) == ([0], 1)


def test_it_can_be_entered_again() -> None:
    ring = Ring(lane())
    for _ in range(2):
        with ring:
            ring.submit(frame(5))
            assert is_right(ring.collect())
            assert ring.counts().submitted == 1


def test_closed_it_takes_no_more_of_a_source() -> None:
    taken = []

    def source():
        for each in frames(100):
            taken.append(each.id)
            yield each

    with Ring(lane(3)) as ring:
        for outcome in ring.run(source()):
            if outcome.frame == 4:
                ring.close()
        assert len(taken) < 10
        assert accounted(ring)


def test_closing_wakes_a_producer_that_waits() -> None:
    with Ring(lane(1)) as ring:
        ring.submit(frame(0))
        results = []
        thread = threading.Thread(target=lambda: results.append(ring.submit(frame(1))))
        thread.start()
        while ring.counts().submitted < 2:
            time.sleep(0.001)
        ring.close()
        thread.join()
        assert results == [False]


def test_every_nth_frame_is_computed_and_the_others_are_counted() -> None:
    told = []
    with Ring(lane(), policy=Policy("every-n", n=3), on_drop=told.append) as ring:
        assert [outcome.frame for outcome in ring.run(frames(8))] == [0, 3, 6]
        assert [drop.frame for drop in told] == [1, 2, 4, 5, 7]
        assert ring.counts().dropped["every-n"] == 5


def test_under_latest_a_newer_frame_takes_the_place_of_the_one_that_waits() -> None:
    told = []
    with Ring(lane(3), policy=LATEST, on_drop=told.append) as ring:
        for each in frames(6):  # the first is started, the second waits, the others supersede one another
            assert ring.submit(each)
        assert [(drop.frame, drop.reason) for drop in told] == [(number, "superseded") for number in (1, 2, 3, 4)]
        first = ring.collect()
        second = ring.collect()
        assert [first.frame, second.frame] == [0, 5]
        assert is_right(first)
        assert is_right(second)


def test_under_latest_submit_never_waits_though_all_answers_are_held() -> None:
    with Ring(lane(3), policy=LATEST) as ring:
        held = []
        for number in range(2):
            ring.submit(frame(number))
            held.append(ring.collect())
        for number in range(2, 10):
            ring.submit(frame(number))
        assert ring.counts().in_flight == 1
        held[0].release()  # starts the newest
        with ring.collect() as outcome:
            assert outcome.frame == 9


def test_latest_needs_two_slots() -> None:
    with pytest.raises(UsageError, match="two slots"), Ring(lane(1), policy=LATEST):
        pass
    with pytest.raises(UsageError, match="depth"), Ring(lane(1), depth=0):
        pass


def test_a_frame_past_its_deadline_is_dropped_and_one_in_time_is_not() -> None:
    told = []
    with Ring(lane(), policy=Policy.parse("deadline:10s"), on_drop=told.append) as ring:
        old = frame(0)
        old.captured_ns -= 11_000_000_000
        assert not ring.submit(old)
        assert [(drop.frame, drop.reason) for drop in told] == [(0, "late")]
        assert ring.submit(frame(1))
        with ring.collect() as outcome:
            assert not outcome.late


def test_a_frame_that_would_be_late_by_the_time_others_took_is_dropped() -> None:
    ticks = iter([0.2, 0.0, 0.0, 0.0])

    def slow(feeds):
        time.sleep(next(ticks))
        return answer(feeds)

    with Ring(lane(script=slow), policy=Policy.parse("deadline:10s")) as ring:
        ring.submit(frame(0))
        ring.collect().release()
        soon = frame(1)
        soon.deadline_ns = soon.captured_ns + 150_000_000  # less than the one answer took
        assert not ring.submit(soon)
        assert ring.submit(frame(2))  # has ten seconds


def test_a_frame_waits_for_a_slot_no_longer_than_its_deadline() -> None:
    with Ring(lane(1), policy=Policy.parse("deadline:20ms")) as ring:
        ring.submit(frame(0))
        assert not ring.submit(frame(1))
        assert ring.counts().dropped["late"] == 1
        assert accounted(ring)


def test_an_answer_after_its_frames_deadline_is_marked() -> None:
    with Ring(lane()) as ring:
        ring.submit(frame(0, deadline_ns=time.monotonic_ns() - 1))
        ring.submit(frame(1, deadline_ns=time.monotonic_ns() + 10**12))
        assert [ring.collect().late, ring.collect().late] == [True, False]


def test_what_on_drop_raises_reaches_the_caller_after_the_accounts_are_right() -> None:
    def on_drop(drop) -> None:
        raise RuntimeError("mine")

    with Ring(lane(2), policy=LATEST, on_drop=on_drop) as ring:
        ring.submit(frame(0))
        ring.submit(frame(1))
        with pytest.raises(RuntimeError, match="mine"):
            ring.submit(frame(2))
        assert accounted(ring)
        assert ring.counts().dropped["superseded"] == 1
        ring.collect().release()
        with ring.collect() as outcome:
            assert outcome.frame == 2


def test_spans_follow_one_another() -> None:
    with Ring(lane(3), spans=True) as ring:
        for outcome in ring.run(frames(5)):
            held = outcome
            if outcome.frame:
                continue
        spans = held.spans
        assert [span.name for span in spans] == ["fill", "queue", "compute", "read"]
        assert all(span.frame == 4 for span in spans)
        for span, after in itertools.pairwise(spans):
            assert span.start_ns <= span.end_ns <= after.start_ns
        assert spans[-1].start_ns == held.answered_ns


def test_without_spans_there_are_none() -> None:
    with Ring(lane()) as ring:
        (held,) = ring.run(frames(1))
        assert held.spans == ()


def test_a_depth_keeps_fewer_frames_with_the_lane() -> None:
    started = []
    driven = lane(4)
    start = driven.start
    driven.start = lambda slot: (started.append(slot), start(slot))
    with Ring(driven, depth=2) as ring:
        ring.submit(frame(0))
        ring.submit(frame(1))
        assert not ring.room()
        held = ring.collect()
        assert ring.room()  # held answers do not count
        ring.submit(frame(2))
        held.release()
        assert len(started) == 3


def test_a_producer_that_waits_for_the_depth_goes_on_when_an_answer_is_held() -> None:
    with Ring(lane(4), depth=1) as ring:
        ring.submit(frame(0))
        producer = threading.Thread(target=ring.submit, args=(frame(1),))
        producer.start()
        while ring.counts().submitted < 2:
            time.sleep(0.001)
        ring.collect(Box(sealed=True))  # finishes frame 0, and leaves it to be collected
        time.sleep(0.05)  # the producer has looked by now, and waits again
        held = ring.collect()
        producer.join(8)  # it takes a millisecond; a producer that nobody wakes looks again after ten seconds
        assert held.frame == 0
        assert not producer.is_alive()


def test_shapes_that_vary() -> None:
    specs = RunnerSpecs((TensorSpec("x", "int64", (None, 2)),), (TensorSpec("y", "int64", (None, 2)),))
    with Ring(RunnerLane(NullRunner(specs, answer), 2)) as ring:
        for rows in (1, 3, 3, 2):
            given = np.arange(2 * rows).reshape(rows, 2)
            np.testing.assert_array_equal(ring.infer({"x": given}).outputs["y"], 3 * given + 1)
        with pytest.raises(InputError, match="got int64 2"):
            ring.infer({"x": np.arange(2)})


POLICIES = ["lossless", "latest", "every-2", "deadline:1s"]


@settings(max_examples=60, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    slots=st.integers(2, 4),
    steps=st.lists(st.sampled_from(["submit", "collect", "release", "late", "bad fill", "bad lane"]), max_size=60),
)
def test_every_step_of_one_thread_leaves_every_frame_accounted_for(policy: str, slots: int, steps: list[str]) -> None:
    broken: set[int] = set()
    told: list[int] = []

    def script(feeds):
        if int(feeds["x"][0]) in broken:
            raise ValueError("computed wrongly")
        return answer(feeds)

    held: list[Answer] = []
    ended: list[int] = []
    with Ring(lane(slots, script), policy=Policy.parse(policy), on_drop=lambda drop: told.append(drop.frame)) as ring:
        for number, step in enumerate(steps):
            if step == "release" and held:
                held.pop(0).release()
            elif step == "collect" and ring.counts().in_flight and (policy != "latest" or len(held) < slots - 1):
                outcome = ring.collect()
                ended.append(outcome.frame)
                if isinstance(outcome, Answer):
                    assert is_right(outcome)
                    held.append(outcome)
            elif step not in ("collect", "release") and (ring.room() or policy == "latest"):
                given = frame(number)
                if step == "late":
                    given.captured_ns -= 2_000_000_000
                elif step == "bad fill":
                    given.data = {"z": given.data["x"]}
                elif step == "bad lane":
                    broken.add(number)
                ring.submit(given)
            assert accounted(ring)
    counts = ring.counts()
    assert (counts.unaccounted, counts.in_flight) == (0, 0)
    assert len(told) == sum(counts.dropped.values())
    assert len(set(told) | set(ended)) == len(told) + len(ended) == counts.submitted


@pytest.mark.parametrize("policy", POLICIES)
def test_many_threads_and_faults_leave_every_frame_accounted_for(policy: str) -> None:
    """Four threads ask for answers while two streams run; a third of the fills and computations fail."""

    def script(feeds):
        if int(feeds["x"][0]) % 3 == 0:
            raise ValueError("computed wrongly")
        return answer(feeds)

    def fill(given, memory) -> None:
        if int(given.data["x"][0]) % 5 == 0:
            raise InputError("No.", "Stop.")
        memory(None)["x"][:] = given.data["x"]

    wrong: list[object] = []
    ended: Counter[str] = Counter()
    lock = threading.Lock()

    def ask(ring: Ring, first: int) -> None:
        for number in range(first, first + 200):
            try:
                got = ring.infer({"x": np.full(2, number, np.int64)}).outputs["y"]
            except EdgemedError:
                got = None
            with lock:
                ended["asked"] += 1
                if got is not None and not (got == 3 * number + 1).all():
                    wrong.append((number, got))

    def stream(ring: Ring) -> None:
        for outcome in ring.run(frames(200)):
            with lock:
                ended["streamed"] += 1
                if isinstance(outcome, Answer) and not is_right(outcome):
                    wrong.append(outcome)

    drops: list[int] = []
    with Ring(lane(5, script), fill=fill, policy=Policy.parse(policy), on_drop=lambda d: drops.append(d.frame)) as ring:
        threads = [threading.Thread(target=ask, args=(ring, 1000 * n)) for n in range(4)]
        threads += [threading.Thread(target=stream, args=(ring,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert accounted(ring)
        counts = ring.counts()
    assert wrong == []
    assert counts.in_flight == 0
    assert len(drops) == sum(counts.dropped.values())
    assert ended["asked"] == 4 * 200  # a request that is dropped raises; its frame's number is a time
    assert ended["streamed"] + sum(number < 200 for number in drops) == 2 * 200
    assert counts.submitted == 4 * 200 + 2 * 200


def test_many_frames_leave_nothing_behind() -> None:
    """The short form of `make bench-runtime`'s million: all accounted for, and memory flat."""
    with Ring(lane(3)) as ring:
        for _ in ring.run(frames(1000)):
            pass
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.take_snapshot()
        right = sum(is_right(outcome) for outcome in ring.run(frames(20_000)))
        gc.collect()
        grown = sum(line.size_diff for line in tracemalloc.take_snapshot().compare_to(before, "filename"))
        tracemalloc.stop()
        assert right == 20_000
        counts = ring.counts()
        assert (counts.submitted, counts.answered, counts.unaccounted) == (21_000, 21_000, 0)
        assert grown < 20_000  # one byte a frame would show; the tracer's own bookkeeping is some kilobytes
