"""The ring's faces: one frame, loops, callbacks, asyncio; what happens when any of them is left early or raises."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from edgemed.base.errors import GpuError, InputError, ResourceError, UsageError
from edgemed.runtime.frames import Answer, Failure
from edgemed.runtime.policy import LATEST, Policy
from edgemed.runtime.ring import Ring
from tests.runtime.lanes import Live, answer, frame, frames, is_right, lane
from tests.waiting import wait_for


def feeds(number: int) -> dict[str, np.ndarray]:
    return {"x": np.full(2, number, np.int64)}


def idle(ring: Ring) -> bool:
    """Whether all slots are free and all frames accounted for."""
    counts = ring.counts()
    return (counts.in_flight, counts.unaccounted, ring._ledger.held) == (0, 0, 0)


class Broken:
    """A live source that raises after some frames."""

    live = True
    lost = 0

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self):
        yield from frames(self.count)
        raise OSError("the cable is out")

    def close(self) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        pass


class Silent(Broken):
    """A live source that gives some frames, then none until it is closed."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.ended = threading.Event()

    def __iter__(self):
        yield from frames(self.count)
        self.ended.wait()

    def close(self) -> None:
        self.ended.set()


# ---------------------------------------------------------------- infer


def test_infer_gives_copies_and_frees_its_slot() -> None:
    with Ring(lane(1)) as ring:
        answers = [ring.infer(feeds(number)) for number in range(5)]
        assert [int(each.outputs["y"][0]) for each in answers] == [1, 4, 7, 10, 13]
        assert answers[0].info.backend == "null"
        assert idle(ring)


def test_infer_raises_what_its_frame_failed_with() -> None:
    with Ring(lane()) as ring:
        with pytest.raises(InputError, match="takes the inputs x"):
            ring.infer({"z": np.zeros(2)})
        assert is_right_of(ring.infer(feeds(3)), 3)
        assert idle(ring)


def is_right_of(got: Answer, number: int) -> bool:
    return bool((got.outputs["y"] == 3 * number + 1).all())


def test_infer_raises_when_its_frame_is_dropped() -> None:
    with Ring(lane(), policy=Policy.parse("deadline:1s")) as ring:
        with pytest.raises(ResourceError, match="late"):
            ring.infer(feeds(0), deadline_ns=time.monotonic_ns() - 1)
        ring.close()
        with pytest.raises(ResourceError, match="closed"):
            ring.infer(feeds(0))
        assert idle(ring)


def test_infer_inside_a_loop_that_keeps_all_slots_is_refused_and_not_waited_for() -> None:
    with Ring(lane(2)) as ring:
        refused = 0
        for outcome in ring.run(frames(6)):
            assert is_right(outcome)
            try:
                assert is_right_of(ring.infer(feeds(9)), 9)
            except UsageError:
                refused += 1
        assert refused >= 4  # at the end there are no more frames to fill the slots
        assert ring.counts().dropped["closed"] == refused
        assert idle(ring)


def test_infer_inside_a_callback_or_a_live_loop_is_refused_and_not_waited_for() -> None:
    refused = []

    def on_outcome(outcome) -> None:
        if len(refused) < 2:
            try:
                ring.infer(feeds(9))
            except UsageError as error:
                refused.append(error)

    with Ring(lane(2)) as ring:
        with ring.start(Live(10**9), on_outcome):
            wait_for(lambda: len(refused) == 2)
        for outcome in ring.run(Live(10**9)):
            on_outcome(outcome)
            refused = refused[:1]
            if outcome.frame > 3:
                break
        assert refused
        assert idle(ring)


def test_threads_that_infer_get_their_own_answers() -> None:
    wrong = []

    def ask(ring: Ring, base: int) -> None:
        wrong.extend(n for n in range(base, base + 300) if not is_right_of(ring.infer(feeds(n)), n))

    with Ring(lane(2)) as ring:
        threads = [threading.Thread(target=ask, args=(ring, 1000 * n)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert ring.counts().answered == 1800


# ---------------------------------------------------------------- run


def test_run_needs_no_thread_for_a_source_that_waits() -> None:
    before = threading.active_count()
    with Ring(lane()) as ring:
        for outcome in ring.run(frames(10)):
            assert is_right(outcome)
            assert threading.active_count() == before
        assert ring.counts().answered == 10


def test_run_fills_all_slots_and_then_takes_a_frame_for_each_outcome() -> None:
    taken = []

    def source():
        for each in frames(6):
            taken.append(each.id)
            yield each

    with Ring(lane(3)) as ring:
        seen = [(outcome.frame, len(taken)) for outcome in ring.run(source())]
    assert seen == [(0, 3), (1, 4), (2, 5), (3, 6), (4, 6), (5, 6)]


def test_run_releases_each_answer_when_the_loop_goes_on() -> None:
    with Ring(lane()) as ring:
        outcomes = list(ring.run(frames(7)))
        assert idle(ring)
        with pytest.raises(RuntimeError, match="released"):
            outcomes[0].outputs["y"]


@pytest.mark.parametrize("source", [frames(100), Live(100), Silent(5)], ids=["waits", "live", "silent"])
def test_run_that_is_left_early_leaves_nothing_behind(source) -> None:
    before = threading.active_count()
    with Ring(lane(3)) as ring:
        loop = ring.run(source)
        assert is_right(next(loop))
        loop.close()
        assert idle(ring)
        assert threading.active_count() == before
        assert is_right_of(ring.infer(feeds(8)), 8)


@pytest.mark.parametrize("live", [True, False])
def test_what_a_source_raises_comes_after_the_outcomes_of_its_frames(live: bool) -> None:
    source = Broken(4)
    seen = []
    with Ring(lane(3)) as ring:
        with pytest.raises(OSError, match="cable"):  # noqa: PT012
            for outcome in ring.run(source if live else iter(source)):
                seen.append(outcome.frame)  # noqa: PERF401
        assert seen == [0, 1, 2, 3]
        assert idle(ring)


def test_a_live_source_that_outruns_the_lane_is_thinned_by_latest() -> None:
    def slow(given):
        time.sleep(0.002)
        return answer(given)

    told = []
    with Ring(lane(3, slow), policy=LATEST, on_drop=told.append) as ring:
        seen = []
        for outcome in ring.run(Live(2000, lost=3)):
            assert is_right(outcome)
            seen.append(outcome.frame)
        assert seen == sorted(set(seen))
        assert seen[-1] == 1999  # the newest is never lost
        assert len(seen) + len(told) == 2000
        assert {drop.reason for drop in told} == {"superseded"}
        assert ring.counts().lost == 3
        assert idle(ring)


def test_a_source_that_waits_loses_nothing_by_latest() -> None:
    with Ring(lane(3), policy=LATEST) as ring:
        assert [outcome.frame for outcome in ring.run(frames(50))] == list(range(50))


def test_a_loop_does_not_wait_for_a_slot_while_others_may_wait_for_its_own() -> None:
    returned = []
    given = (frame(number, done=lambda number=number: returned.append(number)) for number in range(9))
    with Ring(lane(2)) as ring:
        loop = ring.run(given)
        assert next(loop).frame == 0
        with ring._producer:  # another producer is at it; it may be waiting for a slot
            assert next(loop).frame == 1  # with frame 2 in hand
            loop.close()
            assert returned == [0, 1, 2]
        counts = ring.counts()
        assert (counts.submitted, counts.answered, counts.dropped["closed"]) == (3, 2, 1)
        assert idle(ring)


# ---------------------------------------------------------------- start


@pytest.mark.parametrize("make", [lambda: frames(50), lambda: Live(50)], ids=["waits", "live"])
def test_a_callback_gets_every_outcome_in_order(make) -> None:
    seen = []
    with Ring(lane(2)) as ring:
        stream = ring.start(make(), lambda outcome: seen.append((outcome.frame, is_right(outcome))))
        stream.wait()
        assert seen == [(number, True) for number in range(50)]
        assert idle(ring)


def test_stop_delivers_what_is_inside() -> None:
    seen = []
    with Ring(lane(3)) as ring:
        with ring.start(Live(10**9), lambda outcome: seen.append(outcome.frame)):
            wait_for(lambda: len(seen) > 20)
        counts = ring.counts()
        assert counts.submitted == counts.answered == len(seen)
        assert idle(ring)


def test_a_callback_may_stop_its_stream() -> None:
    with Ring(lane(3)) as ring:
        streams = []
        begun = threading.Event()

        def on_outcome(outcome) -> None:
            begun.wait()
            if outcome.frame == 5:
                streams[0].stop()

        streams.append(ring.start(Live(10**9), on_outcome))
        begun.set()
        streams[0].wait()
        assert idle(ring)


def test_a_callback_that_raises_ends_the_stream_and_stop_raises_it() -> None:
    def on_outcome(outcome) -> None:
        if outcome.frame == 3:
            raise ValueError("display gone")

    with Ring(lane(3)) as ring:
        stream = ring.start(Live(10**9), on_outcome)
        with pytest.raises(ValueError, match="display gone"):
            stream.wait()
        assert idle(ring)
        counts = ring.counts()
        assert counts.answered == 4
        assert counts.submitted == 4 + counts.dropped["closed"]


def test_the_ring_ends_streams_that_nobody_stopped() -> None:
    before = threading.active_count()
    with Ring(lane(3)) as ring:
        ring.start(Live(10**9), lambda outcome: None)
        ring.start(Silent(4), lambda outcome: None)
        wait_for(lambda: ring.counts().answered > 10)
    assert threading.active_count() == before
    assert ring.counts().unaccounted == 0


# ---------------------------------------------------------------- asyncio


def test_coroutines_get_their_own_answers() -> None:
    async def ask(ring: Ring) -> list[Answer]:
        return await asyncio.gather(*(ring.ainfer(feeds(number)) for number in range(100)))

    with Ring(lane(2)) as ring:
        answers = asyncio.run(ask(ring))
        assert all(is_right_of(got, number) for number, got in enumerate(answers))
        assert idle(ring)


def test_a_coroutine_gets_what_its_frame_failed_with() -> None:
    def broken(given):
        raise GpuError("The GPU refused.")

    with Ring(lane(script=broken)) as ring:
        with pytest.raises(GpuError, match="refused"):
            asyncio.run(ring.ainfer(feeds(1)))
        ring.close()
        with pytest.raises(ResourceError, match="closed"):
            asyncio.run(ring.ainfer(feeds(1)))
        assert idle(ring)
    with pytest.raises(ResourceError, match="closed"):
        asyncio.run(ring.ainfer(feeds(1)))


def test_a_cancelled_await_neither_loses_nor_keeps_a_slot() -> None:
    gate = threading.Event()

    def gated(given):
        gate.wait()
        return answer(given)

    async def ask(ring: Ring) -> None:
        tasks = [asyncio.create_task(ring.ainfer(feeds(number))) for number in range(8)]
        while ring.counts().submitted < 3:  # two in slots, one waits for one, the others have not entered
            await asyncio.sleep(0.001)
        for task in tasks[:7]:
            task.cancel()
        ended = await asyncio.gather(*tasks[:7], return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended)
        gate.set()
        assert is_right_of(await tasks[7], 7)

    with Ring(lane(2, gated)) as ring:
        asyncio.run(ask(ring))
        wait_for(lambda: idle(ring))
        counts = ring.counts()
        assert counts.answered == 1
        assert counts.submitted == 1 + counts.dropped["closed"]
        assert is_right_of(ring.infer(feeds(9)), 9)


def test_awaits_cancelled_at_any_moment_leave_the_ring_whole() -> None:
    rng = np.random.default_rng(3)

    async def ask(ring: Ring) -> int:
        async def one(number: int) -> int:
            try:
                got = await asyncio.wait_for(ring.ainfer(feeds(number)), float(rng.uniform(0, 0.004)))
            except (TimeoutError, asyncio.TimeoutError):
                return 0
            assert is_right_of(got, number)
            return 1

        return sum(await asyncio.gather(*(one(number) for number in range(300))))

    def slow(given):
        time.sleep(0.0002)
        return answer(given)

    with Ring(lane(3, slow)) as ring:
        asyncio.run(ask(ring))
        wait_for(lambda: idle(ring))
        assert is_right_of(ring.infer(feeds(9)), 9)


@pytest.mark.parametrize("make", [lambda: frames(30), lambda: Live(30)], ids=["waits", "live"])
def test_async_for_gives_every_outcome_in_order(make) -> None:
    async def read(ring: Ring) -> list[int]:
        return [outcome.frame async for outcome in ring.astream(make()) if is_right(outcome)]

    with Ring(lane(2)) as ring:
        assert asyncio.run(read(ring)) == list(range(30))
        assert idle(ring)


def test_a_cancelled_wait_for_the_next_outcome_loses_none() -> None:
    def slow(given):
        time.sleep(0.002)
        return answer(given)

    async def read(ring: Ring) -> tuple[list[int], int]:
        seen, cancelled = [], 0
        async with ring.astream(frames(40)) as stream:
            while True:
                try:
                    seen.append((await asyncio.wait_for(anext(stream), 0.0005)).frame)
                except (TimeoutError, asyncio.TimeoutError):  # noqa: PERF203
                    cancelled += 1
                except StopAsyncIteration:
                    return seen, cancelled

    with Ring(lane(2, slow)) as ring:
        seen, cancelled = asyncio.run(read(ring))
        assert seen == list(range(40))
        assert cancelled > 0
        assert idle(ring)


@pytest.mark.parametrize("make", [lambda: frames(100), lambda: Live(10**9), lambda: Silent(4)])
def test_an_async_loop_that_is_left_early_leaves_nothing_behind(make) -> None:
    async def read(ring: Ring) -> None:
        async with ring.astream(make()) as stream:
            async for outcome in stream:
                if outcome.frame == 3:
                    break

    with Ring(lane(3)) as ring:
        asyncio.run(read(ring))
        assert idle(ring)


def test_an_async_loop_raises_what_its_source_raised() -> None:
    seen = []

    async def read(ring: Ring) -> None:
        async for outcome in ring.astream(Broken(4)):
            seen.append(outcome.frame)  # noqa: PERF401

    with Ring(lane(3)) as ring:
        with pytest.raises(OSError, match="cable"):
            asyncio.run(read(ring))
        assert seen == [0, 1, 2, 3]
        assert idle(ring)


def test_the_faces_may_be_used_together() -> None:
    seen = []

    async def ask(ring: Ring) -> None:
        for number in range(50):
            assert is_right_of(await ring.ainfer(feeds(number)), number)

    with Ring(lane(4)) as ring:
        stream = ring.start(frames(50), lambda outcome: seen.append(is_right(outcome)))
        waiting = threading.Thread(target=lambda: asyncio.run(ask(ring)))
        waiting.start()
        for outcome in ring.run(frames(50)):
            assert is_right(outcome)
        assert is_right_of(ring.infer(feeds(5)), 5)
        ring.submit(frame(77))
        assert ring.collect().frame == 77
        waiting.join()
        stream.wait()
        assert seen == [True] * 50
        assert ring.counts().submitted == ring.counts().answered == 152


@pytest.mark.parametrize("waits", ["leave", "wait"])
@pytest.mark.parametrize("place", ["callback", "source"])
def test_a_stream_does_not_wait_for_itself(place: str, waits: str) -> None:
    streams: list = []

    def never() -> None:
        while not streams:
            time.sleep(0.001)
        if waits == "leave":
            ring.__exit__(None, None, None)
        streams[0].wait()

    def source():
        yield from frames(5)
        if place == "source":
            never()

    with Ring(lane(2)) as ring:
        streams.append(ring.start(source(), lambda _: never() if place == "callback" else None))
        with pytest.raises(UsageError, match="leave the ring" if waits == "leave" else "wait for its own"):
            streams[0].wait()
        assert is_right_of(ring.infer(feeds(1)), 1)  # the ring is as it was
        assert ring.counts().unaccounted == ring.counts().in_flight == 0
    assert ring.closed


def test_failures_reach_every_face() -> None:
    def broken(given):
        raise GpuError("The GPU refused.")

    async def read(ring: Ring) -> list[type]:
        return [type(outcome) async for outcome in ring.astream(frames(3))]

    seen = []
    with Ring(lane(2, broken)) as ring:
        assert [type(outcome) for outcome in ring.run(frames(3))] == [Failure] * 3
        ring.start(frames(3), lambda outcome: seen.append(type(outcome))).wait()
        assert seen == [Failure] * 3
        assert asyncio.run(read(ring)) == [Failure] * 3
        assert ring.counts().failed == 9
