"""Who may have an association, and how many. What is not named in the configuration is denied."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from edgemed.base.quantity import SECOND
from edgemed.serve.config import Config
from edgemed.serve.config.destinations import DicomDestination
from edgemed.serve.config.inlets import DicomSection, Peer
from edgemed.serve.dicom.contexts import contexts_for, contexts_for_reports
from edgemed.serve.dicom.names import Names
from edgemed.serve.dicom.negotiation import Offer

WAITING: Final = 64  # connections that have not yet asked for their association
WAITING_EACH: Final = 16  # of them from one address


class Denied(Exception):
    """No association.

    Attributes:
        reason: one of a fixed list, for metrics: 'version', 'context', 'called', 'calling', 'address', 'limit',
            'peer-limit'.
        answer: result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21).
    """

    def __init__(self, reason: str, answer: tuple[int, int, int]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


VERSION: Final = (1, 2, 2)
CONTEXT: Final = (1, 1, 2)
CALLED: Final = (1, 1, 7)
CALLING: Final = (1, 1, 3)
BUSY: Final = (2, 3, 2)


class Rate:
    """At most so many a minute, and no more than so many at once."""

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._left = float(per_minute or 0)
        self._at_ns = time.monotonic_ns()

    def take(self) -> bool:
        """Whether one more may come now."""
        if self._per_minute is None:
            return True
        with self._lock:
            now_ns = time.monotonic_ns()
            since_ns, self._at_ns = now_ns - self._at_ns, now_ns
            self._left = min(self._per_minute, self._left + self._per_minute * since_ns / (60 * SECOND))
            if self._left < 1:
                return False
            self._left -= 1
            return True


@dataclass(frozen=True)
class Guest:
    """A peer of the configuration, or a destination that reports.

    Attributes:
        ae_title: of it.
        offer: what may be negotiated.
        peer: its section; `None` where it is a destination only.
        destination: its section; `None` where nothing is sent to it.
        rate: of its objects.
        limit: of its associations.
    """

    ae_title: str
    offer: Offer
    peer: Peer | None = None
    destination: DicomDestination | None = None
    rate: Rate = field(default_factory=lambda: Rate(None))
    limit: int = 4

    @property
    def may_commit(self) -> bool:
        return self.peer is not None and "commit" in self.peer.may


class Admission:
    """The list of who may, and the count of who is there.

    Raises:
        UsageError: a SOP class of a peer is none.
    """

    def __init__(self, section: DicomSection, config: Config) -> None:
        self._section = section
        self._lock = threading.Lock()
        self._there: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._guests = _guests(section, config)
        self._names = Names(guest.destination.host for guest in self._guests.values() if guest.destination is not None)

    def enter(self, address: str) -> bool:
        """Let a connection wait for its association; `False`: it is nobody's address, or too many wait."""
        if not any(self._is_of(guest, address) for guest in self._guests.values()):
            return False
        with self._lock:
            if self._waiting.total() >= WAITING or self._waiting[address] >= WAITING_EACH:
                return False
            self._waiting[address] += 1
            return True

    def leave(self, address: str) -> None:
        """A connection waits no more."""
        with self._lock:
            self._waiting -= Counter((address,))

    def admit(self, calling: str, called: str, address: str) -> Guest:
        """Whether there may be an association; `done` ends it.

        Raises:
            Denied: it may not.
        """
        if called != self._section.ae_title:
            raise Denied("called", CALLED)
        guest = self._guests.get(calling)
        if guest is None:
            raise Denied("calling", CALLING)
        if not self._is_of(guest, address):
            raise Denied("address", CALLING)
        with self._lock:
            if self._there.total() >= self._section.associations:
                raise Denied("limit", BUSY)
            if self._there[calling] >= guest.limit:
                raise Denied("peer-limit", BUSY)
            self._there[calling] += 1
        return guest

    def done(self, guest: Guest) -> None:
        """An association has ended."""
        with self._lock:
            self._there -= Counter((guest.ae_title,))

    def _is_of(self, guest: Guest, address: str) -> bool:
        if _is_peer(guest, address):
            return True
        return guest.destination is not None and address in self._names.addresses(guest.destination.host)


def _is_peer(guest: Guest, address: str) -> bool:
    return guest.peer is not None and any(ip_address(address) in network for network in guest.peer.networks)


def _guests(section: DicomSection, config: Config) -> dict[str, Guest]:
    """By their AE titles: who may send, and who is sent to and tells whether it keeps that."""
    reporters = {
        destination.ae_title: destination
        for destination in config.destinations
        if isinstance(destination, DicomDestination) and destination.commitment
    }
    guests = {
        name: Guest(name, Offer(tuple(contexts_for_reports())), None, reporter) for name, reporter in reporters.items()
    }
    for peer in section.peers:
        name, contexts = peer.ae_title, contexts_for(peer)
        reporter = reporters.get(name)
        if reporter is not None:
            have = {context.abstract_syntax for context in contexts}
            contexts += [context for context in contexts_for_reports() if context.abstract_syntax not in have]
        guests[name] = Guest(name, Offer(tuple(contexts)), peer, reporter, Rate(peer.per_minute), peer.associations)
    return guests
