"""Whatever a destination answers and whenever we crash: delivered is what the peer said so of, and nothing is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemed.base.errors import ResourceError
from edgemed.serve.dicom.commitments import take_report
from edgemed.serve.outlets.courier import Outcome, Parcel, Unavailable
from edgemed.serve.outlets.lane import Lane
from edgemed.serve.services import Services
from tests.serve.outlets import bench
from tests.serve.outlets.bench import FAST, PACS, Clock, Scripted, always, report
from tests.serve.store import rows

STORES = ("kept", "lied", "later", "refused", "unavailable", "cut off", "crash before", "crash after", "bug")
REPORTS = ("kept", "not kept", "nothing", "other", "unavailable", "crash before", "crash after")


class Crash(BaseException):
    """The power is gone."""


class Peer:
    """A destination that follows a script, then is well.

    Attributes:
        has: UIDs of what it has.
        said: UIDs of what it said it has (or, where commitment is asked for, that it has committed itself to).
        refused: UIDs of what it will never take.
    """

    def __init__(self, services: Services, stores: list[str], reports: list[str], *, commitment: bool) -> None:
        self.services = services
        self.stores = stores
        self.reports = reports
        self.commitment = commitment
        self.has: set[str] = set()
        self.said: set[str] = set()
        self.refused: set[str] = set()

    def store(self, parcel: Parcel) -> Outcome:
        step = self.stores.pop() if self.stores else "kept"
        uid = parcel.sop_instance
        if step == "crash before":
            raise Crash
        if step == "unavailable":
            raise Unavailable("It takes no connection.")
        if step == "cut off":
            raise Unavailable("It was cut off.", parcel)
        if step == "bug":
            raise KeyError
        if step == "later":
            return Outcome("later", "not now")
        if step == "refused":
            self.refused.add(uid)
            return Outcome("refused", "never")
        if step != "lied":
            self.has.add(uid)
        if step == "crash after":
            raise Crash
        if not self.commitment:
            self.said.add(uid)
        return Outcome("sent" if self.commitment else "delivered")

    def confirm(self, transaction: str, parcels: Sequence[Parcel]) -> None:
        step = self.reports.pop() if self.reports else "kept"
        uids = [parcel.sop_instance for parcel in parcels]
        if step == "crash before":
            raise Crash
        if step == "unavailable":
            raise Unavailable("It takes no connection.")
        if step == "nothing":
            return
        if step == "other":
            assert take_report(self.services, "PACS", report("1.2.3.4", uids)) != 0
            return
        kept = [uid for uid in uids if uid in self.has and step != "not kept"]
        self.said.update(kept)
        assert take_report(self.services, "PACS", report(transaction, kept, [u for u in uids if u not in kept])) == 0
        if step == "crash after":
            raise Crash


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with bench.services(tmp_path_factory.mktemp("lane"), PACS) as made:
        yield made


@given(
    count=st.integers(1, 4),
    most=st.integers(1, 3),
    commitment=st.booleans(),
    stores=st.lists(st.sampled_from(STORES), max_size=10),
    reports=st.lists(st.sampled_from(REPORTS), max_size=6),
    disk=st.lists(st.booleans(), max_size=6),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_answers_and_any_crash(
    services: Services,
    count: int,
    most: int,
    commitment: bool,
    stores: list[str],
    reports: list[str],
    disk: list[bool],
) -> None:
    ((before,),) = rows(services.journal, "SELECT coalesce(max(id), 0) FROM delivery")
    for index in range(count):
        bench.add_task(services, [("sr", f"1.{before}.{index}", b"x")])
    peer = Peer(services, stores, reports, commitment=commitment)
    clock = Clock()

    def new_lane() -> Lane:
        courier = Scripted(peer.store, most)
        courier.on_confirm = peer.confirm
        return Lane(services, "pacs", FAST, courier, confirming=courier if commitment else None, clock=clock)

    submit = services.journal.submit
    lane = new_lane()
    try:
        for _ in range(200):
            full = disk.pop() if disk else False
            services.journal.submit = _full if full else submit  # type: ignore[method-assign]
            try:
                lane.step(always)
            except Crash:
                lane = new_lane()
            check(services, before, peer)
            clock.advance(lane.pause_s)
            if not stores and not reports and not disk and done(services, before):
                break
    finally:
        services.journal.submit = submit  # type: ignore[method-assign]
    assert done(services, before)


def _full(work: object) -> None:
    raise ResourceError("The disk is full.", "Free some space.")


def deliveries(services: Services, after: int) -> list[tuple[str, str]]:
    sql = "SELECT sop_instance, delivery.state FROM delivery JOIN result ON result.id = result WHERE delivery.id > ?"
    return [(row[0], row[1]) for row in rows(services.journal, sql, after)]


def check(services: Services, after: int, peer: Peer) -> None:
    for uid, state in deliveries(services, after):
        if state == "delivered":
            assert uid in peer.said
        if state == "failed":
            assert uid in peer.refused


def done(services: Services, after: int) -> bool:
    return {state for _, state in deliveries(services, after)} <= {"delivered", "failed"}
