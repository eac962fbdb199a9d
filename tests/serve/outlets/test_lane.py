"""One lane and a destination that does as the script says: what is tried when, and what the journal says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemed.base.errors import ResourceError
from edgemed.serve.dicom.commitments import take_report
from edgemed.serve.journal.records import move_delivery
from edgemed.serve.outlets.courier import Outcome, Parcel, Unavailable
from edgemed.serve.outlets.lane import Lane
from edgemed.serve.services import Services
from tests.serve.outlets import bench
from tests.serve.outlets.bench import FAST, PACS, Clock, Scripted, always, report

OK = Outcome("delivered")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with bench.services(tmp_path, PACS) as made:
        yield made


def lane_of(services: Services, courier: Scripted, clock: Clock, *, commitment: bool = False) -> Lane:
    return Lane(services, "pacs", FAST, courier, confirming=courier if commitment else None, clock=clock)


def numbers(parcels: list[Parcel]) -> list[int]:
    return [parcel.number for parcel in parcels]


def test_oldest_first_and_the_task_ends_with_the_last(services: Services) -> None:
    bench.add_task(services, [("sr", "1.1", b"a"), ("sc", "1.2", b"b")])
    bench.add_task(services, [("sr", "1.3", b"c")])
    courier = Scripted(lambda parcel: OK, most=2)
    lane_of(services, courier, Clock()).step(always)
    assert numbers(courier.carried) == [1, 2, 3]
    assert bench.states(services) == ["delivered"] * 3
    assert bench.states(services, "task") == ["delivered"] * 2
    events = services.audit.events  # type: ignore[attr-defined]
    assert [(e.kind, e.user, e.study, e.instances) for e in events] == [
        ("sent", "pacs", bench.STUDY, ("1.1", "1.2")),
        ("sent", "pacs", bench.STUDY, ("1.3",)),
    ]


def test_one_that_is_refused_for_now_does_not_stop_the_others(services: Services) -> None:
    for uid in ("1.1", "1.2", "1.3"):
        bench.add_task(services, [("sr", uid, uid.encode())])
    bad = {"1.1"}
    courier = Scripted(lambda parcel: Outcome("later", "no") if parcel.sop_instance in bad else OK)
    clock = Clock()
    lane = lane_of(services, courier, clock)
    lane.step(always)
    assert bench.states(services) == ["pending", "delivered", "delivered"]
    lane.step(always)
    assert numbers(courier.carried) == [1, 2, 3]  # it waits for its time
    bad.clear()
    clock.advance(1.01)
    lane.step(always)
    assert bench.states(services) == ["delivered"] * 3


def test_what_is_on_its_way_when_the_connection_breaks_goes_behind_the_others(services: Services) -> None:
    for uid in ("1.1", "1.2"):
        bench.add_task(services, [("sr", uid, uid.encode())])

    def answer(parcel: Parcel) -> Outcome:
        if parcel.sop_instance == "1.1":
            raise Unavailable("It was cut off.", parcel)
        return OK

    clock = Clock()
    courier = Scripted(answer, most=1)
    lane = lane_of(services, courier, clock)
    for _ in range(6):
        lane.step(always)
        clock.advance(lane.pause_s)
    assert bench.states(services) == ["pending", "delivered"]
    assert "cut off" in bench.reasons(services)[0]


def test_a_destination_that_is_down_is_asked_less_and_less(services: Services) -> None:
    for uid in ("1.1", "1.2", "1.3"):
        bench.add_task(services, [("sr", uid, uid.encode())])
    up = False

    def answer(parcel: Parcel) -> Outcome:
        if not up:
            raise Unavailable("It takes no connection.")
        return OK

    clock = Clock()
    courier = Scripted(answer)
    lane = lane_of(services, courier, clock)
    tries = []
    for _ in range(1000):
        lane.step(always)
        tries.append(len(courier.carried))
        clock.advance(1.0)
    assert 18 <= tries[-1] <= 44  # 1000 s: doubling to 60 s, each between half and the whole of it
    assert bench.alarms(services) == {"delivery-late"}
    assert bench.states(services) == ["pending"] * 3
    up = True
    clock.advance(60)
    lane.step(always)
    assert bench.states(services) == ["delivered"] * 3
    assert bench.alarms(services) == set()


def test_a_peer_that_refuses_everything_for_now_is_left_alone(services: Services) -> None:
    for index in range(20):
        bench.add_task(services, [("sr", f"1.{index}", b"x")])
    courier = Scripted(lambda parcel: Outcome("later", "It is out of resources (0xA700)."), most=1)
    lane = lane_of(services, courier, Clock())
    lane.step(always)
    assert len(courier.carried) == 3


def test_what_can_never_be_taken_fails_at_once_and_is_alarmed(services: Services) -> None:
    bench.add_task(services, [("sr", "1.1", b"a")])
    courier = Scripted(lambda parcel: Outcome("refused", "Refused (0xA900)."))
    lane_of(services, courier, Clock()).step(always)
    assert bench.states(services) == ["failed"]
    assert bench.states(services, "task") == ["failed"]
    assert bench.states(services, "object") == ["failed"]
    assert bench.alarms(services) == {"delivery-failed"}
    assert [event.result for event in services.audit.events] == ["serious"]  # type: ignore[attr-defined]


def test_it_is_given_up_for_its_age_but_never_untried(services: Services) -> None:
    bench.add_task(services, [("sr", "1.1", b"a")])

    def answer(parcel: Parcel) -> Outcome:
        raise Unavailable("It takes no connection.")

    courier, clock = Scripted(answer), Clock()
    lane = lane_of(services, courier, clock)
    lane.step(lambda: False)  # told to stop before anything
    clock.advance(3600)
    lane.step(lambda: False)
    assert bench.states(services) == ["pending"]
    lane.step(always)
    assert bench.states(services) == ["failed"]
    assert bench.reasons(services) == ["Given up: It takes no connection."]


def test_what_was_given_up_and_is_asked_for_again_has_its_time_again(services: Services) -> None:
    bench.add_task(services, [("sr", "1.1", b"a")])
    courier = Scripted(lambda parcel: Outcome("later", "no"))
    clock = Clock()
    lane = lane_of(services, courier, clock)
    lane.step(always)
    clock.advance(3600)
    lane.step(always)
    assert bench.states(services) == ["failed"]
    services.journal.write(lambda c: move_delivery(c, 1, "pending"))
    for _ in range(3):
        clock.advance(60)
        lane.step(always)
    assert bench.states(services) == ["pending"]


@pytest.mark.parametrize("year", [1970, 2100])
def test_what_the_calendar_says_gives_nothing_up_over_restarts(services: Services, year: int) -> None:
    """A board without a battery begins in 1970, and is set right later; age is time that the daemon ran."""
    bench.add_task(services, [("sr", "1.1", b"a")])
    services.journal.write(lambda c: c.execute("UPDATE delivery SET created = ?", (f"{year}-01-01T00:03:00.000000Z",)))
    clock, courier = Clock(), Scripted(lambda parcel: Outcome("later", "no"))
    for minutes in (20, 20, 10**6, 19):
        lane = lane_of(services, courier, clock)
        lane.step(always)
        if minutes < 60:
            for _ in range(minutes):
                clock.advance(60)
                lane.step(always)
            assert bench.states(services) == ["pending"]
        else:  # without power
            clock.advance(60 * minutes)
    for _ in range(3):
        clock.advance(60)
        lane.step(always)
    assert bench.states(services) == ["failed"]


def test_the_wish_of_the_peer_counts(services: Services) -> None:
    bench.add_task(services, [("sr", "1.1", b"a")])

    def answer(parcel: Parcel) -> Outcome:
        raise Unavailable("It answers HTTP 503.", parcel, 30_000_000_000)

    clock = Clock()
    courier = Scripted(answer)
    lane = lane_of(services, courier, clock)
    lane.step(always)
    clock.advance(29)
    lane.step(always)
    assert len(courier.carried) == 1
    clock.advance(1.1)
    lane.step(always)
    assert len(courier.carried) == 2


def test_a_bug_with_one_result_keeps_none_of_the_others(services: Services) -> None:
    for uid in ("1.1", "1.2"):
        bench.add_task(services, [("sr", uid, uid.encode())])

    def answer(parcel: Parcel) -> Outcome:
        if parcel.sop_instance == "1.1":
            raise KeyError("x")
        return OK

    lane = lane_of(services, Scripted(answer, most=1), Clock())
    lane.step(always)
    assert bench.states(services) == ["pending", "delivered"]


def test_a_journal_that_takes_nothing_stops_no_delivery_and_repeats_none(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uid in ("1.1", "1.2"):
        bench.add_task(services, [("sr", uid, uid.encode())])
    courier = Scripted(lambda parcel: OK)
    lane = lane_of(services, courier, Clock())

    def full(work: object) -> None:
        raise ResourceError("The disk is full.", "Free some space.")

    with monkeypatch.context() as patched:
        patched.setattr(services.journal, "submit", full)
        lane.step(always)
        lane.step(always)
    assert numbers(courier.carried) == [1, 2]
    assert bench.states(services) == ["pending"] * 2
    lane.step(always)
    assert numbers(courier.carried) == [1, 2]
    assert bench.states(services) == ["delivered"] * 2


def test_a_result_that_was_made_again_while_it_was_sent_is_sent_again(services: Services) -> None:
    task = bench.add_task(services, [("sr", "1.1", b"a")])

    def answer(parcel: Parcel) -> Outcome:
        if len(courier.carried) == 1:
            services.journal.write(lambda c: c.execute("UPDATE result SET sha256 = 'other' WHERE task = ?", (task,)))
        return OK

    courier = Scripted(answer)
    lane = lane_of(services, courier, Clock())
    lane.step(always)
    lane.step(always)
    assert [parcel.sha256 == "other" for parcel in courier.carried] == [False, True]
    assert bench.states(services) == ["delivered"]


# storage commitment


def test_sent_is_not_delivered_before_it_is_committed(services: Services) -> None:
    for uid in ("1.1", "1.2", "1.3"):
        bench.add_task(services, [("sr", uid, uid.encode())])
    courier = Scripted(lambda parcel: Outcome("sent"))
    clock = Clock()
    lane = lane_of(services, courier, clock, commitment=True)
    lane.step(always)
    assert bench.states(services) == ["sent"] * 3
    ((transaction, parcels),) = courier.requests
    assert numbers(parcels) == [1, 2, 3]
    lane.step(always)
    assert len(courier.requests) == 1  # it waits for the answer
    assert take_report(services, "OTHER", report(transaction, ["1.1", "1.2", "1.3"])) == 0x0115
    assert take_report(services, "PACS", report("1.2.3", ["1.1", "1.2", "1.3"])) == 0x0115
    assert bench.states(services) == ["sent"] * 3
    assert take_report(services, "PACS", report(transaction, ["1.1", "9.9"], ["1.2"])) == 0
    assert bench.states(services) == ["delivered", "pending", "sent"]
    assert bench.states(services, "task") == ["delivered", "delivering", "delivering"]
    lane.step(always)
    assert numbers(courier.carried) == [1, 2, 3]  # what was not kept waits a while, as after every failure
    clock.advance(1.01)
    lane.step(always)
    assert numbers(courier.carried) == [1, 2, 3, 2]
    assert bench.states(services) == ["delivered", "sent", "sent"]
    assert take_report(services, "PACS", report(transaction, ["1.1", "1.2", "1.3"])) == 0  # of the first request
    assert bench.states(services) == ["delivered"] * 3
    assert take_report(services, "PACS", report(transaction, ["1.1", "1.2", "1.3"])) == 0  # told twice


def test_without_a_report_it_is_sent_again(services: Services) -> None:
    bench.add_task(services, [("sr", "1.1", b"a")])
    courier = Scripted(lambda parcel: Outcome("sent"))
    clock = Clock()
    lane = lane_of(services, courier, clock, commitment=True)
    lane.step(always)
    clock.advance(61)
    lane.step(always)
    assert bench.states(services) == ["pending"]
    clock.advance(1.01)
    lane.step(always)
    assert len(courier.carried) == len(courier.requests) == 2
    assert courier.requests[0][0] != courier.requests[1][0]


def test_a_restart_asks_again_at_once(services: Services) -> None:
    bench.add_task(services, [("sr", "1.1", b"a")])
    courier = Scripted(lambda parcel: Outcome("sent"))
    lane_of(services, courier, Clock(), commitment=True).step(always)
    lane_of(services, courier, Clock(), commitment=True).step(always)
    assert len(courier.carried) == 1
    assert len(courier.requests) == 2


def test_a_peer_that_takes_no_request_for_commitment_is_late_not_lost(services: Services) -> None:
    bench.add_task(services, [("sr", "1.1", b"a")])
    courier = Scripted(lambda parcel: Outcome("sent"))

    def refuse(*_: object) -> None:
        raise Unavailable("It does not do storage commitment.")

    courier.on_confirm = refuse
    clock = Clock()
    lane = lane_of(services, courier, clock, commitment=True)
    for _ in range(10):
        lane.step(always)
        clock.advance(5)
    assert bench.states(services) == ["sent"]
    assert bench.alarms(services) == {"delivery-late"}
    assert len(courier.carried) == 1
