"""The way to one destination: which result is tried when, and what its answer means.

Oldest first, but none blocks the others: what failed waits by itself, and the destination as a whole rests only when
it does not answer. All timers are monotonic; ages, over restarts, are time that the daemon ran; and a restart tries at
once.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from edgemed.base.errors import EdgemedError
from edgemed.serve.ages import Ages
from edgemed.serve.config.destinations import Retry
from edgemed.serve.loops import Beat
from edgemed.serve.outlets.backoff import Hold
from edgemed.serve.outlets.courier import Confirming, Courier, Outcome, Parcel, Pulse, Unavailable
from edgemed.serve.outlets.report import Report
from edgemed.serve.outlets.rows import asked, settle, states, waiting
from edgemed.serve.services import Services
from edgemed.serve.states import State

log = logging.getLogger(__name__)

_LOOK_S: Final = 5.0  # the journal may be changed by another process: an operator who asks for another try
_REFUSALS: Final = 3  # in a row, one result each: the destination is full rather than the results bad
ASK_TOGETHER: Final = 200

Clock = Callable[[], int]


class Lane:
    """`step` is all that its loop does; it may be cut off at any point, and another lane goes on from the journal."""

    def __init__(
        self,
        services: Services,
        name: str,
        retry: Retry,
        courier: Courier,
        *,
        confirming: Confirming | None = None,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self.name = name
        self._services = services
        self._retry = retry
        self._courier = courier
        self._confirming = confirming
        self._clock = clock
        self._ages = Ages(services.journal, f"outlet {name}", retry.give_up_ns, clock)
        self._link = Hold()
        self._ask = Hold()
        self._held: dict[int, Hold] = {}
        self._asked: dict[int, int] = {}  # delivery to the end of the wait for its commitment
        self._refusals = 0
        self._writing: list[tuple[Parcel, str, str, Future[tuple[bool, State | None]]]] = []
        self._unwritten: dict[int, tuple[Parcel, str, str]] = {}
        self._report = Report(services, name, courier.address)

    def run(self, beat: Beat) -> None:
        """The loop."""

        def pulse() -> bool:
            beat()
            return not beat.stopping.is_set()

        try:
            while True:
                self.step(pulse)
                if not beat.wait(self.pause_s):
                    return
        finally:
            self._courier.close()

    def step(self, pulse: Pulse) -> None:
        """Bring everything that is due, ask for commitment, give up what took too long."""
        self._write_again()
        self._look()
        while pulse() and self._clock() >= self._link.next_ns and (parcels := self._due()):
            if not self._carry(parcels, pulse):
                break
        if self._confirming is not None:
            self._confirm(self._confirming, pulse)
        self._give_up()
        self._report.standing(self._struggle)

    @property
    def pause_s(self) -> float:
        """Until something is due, but not longer than the journal may go unread."""
        now_ns = self._clock()
        times = [hold.next_ns for hold in (self._link, self._ask, *self._held.values())] + list(self._asked.values())
        return min([_LOOK_S, *(max(0.05, (moment - now_ns) / 1e9) for moment in times if moment > now_ns)])

    def _due(self) -> list[Parcel]:
        """What to carry next: oldest first, but what has failed before after what has not."""
        now_ns, most = self._clock(), self._courier.most
        fresh: list[Parcel] = []
        again: list[Parcel] = []
        with self._services.journal.read() as connection:
            for parcel in waiting(connection, self._services.spool, self.name, "pending"):
                hold = self._held.get(parcel.number)
                if parcel.number in self._unwritten:
                    continue
                if hold is None:
                    fresh.append(parcel)
                elif hold.next_ns <= now_ns:
                    again.append(parcel)
                if len(fresh) == most:
                    return fresh
        again.sort(key=lambda parcel: self._held[parcel.number].next_ns)
        return (fresh + again)[:most]

    def _carry(self, parcels: Sequence[Parcel], pulse: Pulse) -> bool:
        """Whether the destination takes more."""
        left = {parcel.number for parcel in parcels}

        def done(parcel: Parcel, outcome: Outcome) -> None:
            left.discard(parcel.number)
            self._done(parcel, outcome)

        try:
            self._courier.carry(parcels, done, pulse)
        except Unavailable as error:
            self._unavailable(error, parcels[0])
            return False
        except Exception as error:  # a bug of ours with one of them must not keep the others
            log.error("%s: %s", self.name, type(error).__name__)
            bad = next(parcel for parcel in parcels if parcel.number in left or parcel is parcels[-1])
            self._hold(bad, f"An error of ours: {type(error).__name__}.")
            return True
        finally:
            self._collect()
        if self._refusals >= _REFUSALS:
            self._link.failed(self._retry, self._clock(), "It refuses one after the other.")
            self._refusals = 0
            return False
        return not left

    def _done(self, parcel: Parcel, outcome: Outcome) -> None:
        self._report.tried(outcome.verdict)
        if outcome.verdict == "later":
            self._refusals += 1
            self._hold(parcel, outcome.reason, outcome.after_ns)
            self._write(parcel, "pending", outcome.reason)
            return
        self._link.worked()
        self._refusals = 0
        if outcome.verdict == "sent":
            self._asked.pop(parcel.number, None)
            self._write(parcel, "sent", outcome.reason)
            return
        self._forget(parcel)
        self._write(parcel, "delivered" if outcome.verdict == "delivered" else "failed", outcome.reason)

    def _unavailable(self, error: Unavailable, first: Parcel) -> None:
        self._report.tried("unavailable")
        self._link.failed(self._retry, self._clock(), error.reason, error.after_ns)
        if error.parcel is not None:
            self._hold(error.parcel, error.reason, error.after_ns)
        self._write(error.parcel or first, "pending", error.reason)
        self._collect()

    def _hold(self, parcel: Parcel, reason: str, wish_ns: int | None = None) -> None:
        self._held.setdefault(parcel.number, Hold()).failed(self._retry, self._clock(), reason, wish_ns)

    def _forget(self, parcel: Parcel) -> None:
        self._held.pop(parcel.number, None)
        self._asked.pop(parcel.number, None)

    # what the journal is told

    def _write(self, parcel: Parcel, state: str, reason: str) -> None:
        try:
            future = self._services.journal.submit(lambda connection: settle(connection, parcel, state, reason))
        except EdgemedError:
            self._unwritten[parcel.number] = (parcel, state, reason)
            return
        self._writing.append((parcel, state, reason, future))

    def _collect(self) -> None:
        """Wait until everything is on the disk; what could not be written is kept in mind, and not carried again."""
        writing, self._writing = self._writing, []
        for parcel, state, reason, future in writing:
            try:
                written, end = future.result()
            except EdgemedError as error:
                log.error("%s: a delivery could not be entered: %s", self.name, error.what)
                self._unwritten[parcel.number] = (parcel, state, reason)
                continue
            if written:
                self._report.entered(parcel, state, end)
        self._report.sent()

    def _write_again(self) -> None:
        again, self._unwritten = self._unwritten, {}
        for parcel, state, reason in again.values():
            self._write(parcel, state, reason)
        self._collect()

    # commitment

    def _confirm(self, confirming: Confirming, pulse: Pulse) -> None:
        now_ns = self._clock()
        with self._services.journal.read() as connection:
            sent = [
                parcel
                for parcel in waiting(connection, self._services.spool, self.name, "sent")
                if parcel.number not in self._unwritten
            ]
        for parcel in [parcel for parcel in sent if self._asked.get(parcel.number, now_ns + 1) <= now_ns]:
            reason = "It did not say in time whether it keeps it."
            self._asked.pop(parcel.number)
            self._hold(parcel, reason)
            self._write(parcel, "pending", reason)
            sent.remove(parcel)
        self._collect()
        new = [parcel for parcel in sent if parcel.number not in self._asked]
        for start in range(0, len(new), ASK_TOGETHER):
            if not pulse() or self._ask.next_ns > self._clock():
                return
            self._ask_for(confirming, new[start : start + ASK_TOGETHER], pulse)

    def _ask_for(self, confirming: Confirming, parcels: Sequence[Parcel], pulse: Pulse) -> None:
        transaction = f"2.25.{secrets.randbits(128)}"
        try:
            self._services.journal.write(lambda connection: asked(connection, transaction, parcels))
        except EdgemedError as error:
            self._ask.failed(self._retry, self._clock(), error.what)
            return
        end_ns = self._clock() + confirming.within_ns
        self._asked.update((parcel.number, end_ns) for parcel in parcels)
        try:
            confirming.confirm(parcels, transaction, pulse)
        except Unavailable as error:
            self._report.tried("unavailable")
            self._ask.failed(self._retry, self._clock(), error.reason, error.after_ns)
            for parcel in parcels:
                self._asked.pop(parcel.number, None)
        else:
            self._ask.worked()

    def _look(self) -> None:
        """What others have changed: a report of a commitment has come, or somebody asked for another try."""
        known = self._asked.keys() | self._held.keys()
        if not known:
            return
        with self._services.journal.read() as connection:
            found = states(connection, known)
        for number in known - self._unwritten.keys():
            state = found.get(number, "")
            if state == "pending" and self._asked.pop(number, None) is not None:
                reason = "It says that it does not keep it."
                self._held.setdefault(number, Hold()).failed(self._retry, self._clock(), reason)
            elif state not in ("pending", "sent"):
                self._held.pop(number, None)
                self._asked.pop(number, None)

    # the end of patience

    def _give_up(self) -> None:
        """What waits for too long, and was tried in vain since this start, fails; somebody has to look."""
        late: list[tuple[Parcel, str]] = []
        before = self._ages.count()
        for state, whole in (("pending", self._link), ("sent", self._ask)):
            if not before or (not whole.reason and not self._held):
                continue
            with self._services.journal.read() as connection:
                for parcel in waiting(connection, self._services.spool, self.name, state, before):
                    hold = self._held.get(parcel.number)
                    reason = hold.reason if hold is not None else whole.reason
                    if reason and parcel.number not in self._unwritten:
                        late.append((parcel, reason))
        for parcel, reason in late:
            self._forget(parcel)
            self._report.tried("refused")
            self._write(parcel, "failed", f"Given up: {reason}")
        if late:
            self._collect()

    @property
    def _struggle(self) -> str | None:
        """Why it does not take what it should, where that is so for more than one try."""
        if self._link.failures > 1:
            return self._link.reason
        if self._ask.failures > 1:
            return self._ask.reason
        return next((hold.reason for hold in self._held.values() if hold.failures > 1), None)
