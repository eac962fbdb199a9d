"""One association that was asked of us, in a thread of its own: from the first byte to the last (PS3.8 section 9.2)."""

from __future__ import annotations

import logging
import secrets
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from edgemed.base.errors import EdgemedError
from edgemed.base.quantity import SECOND
from edgemed.serve.config.inlets import DicomSection
from edgemed.serve.dicom import commands, negotiation
from edgemed.serve.dicom.admission import CONTEXT, VERSION, Admission, Denied, Guest
from edgemed.serve.dicom.commands import Command
from edgemed.serve.dicom.contexts import COMMITMENT, VERIFICATION
from edgemed.serve.dicom.inbox import Inbox, Message
from edgemed.serve.dicom.ledger import Ledger
from edgemed.serve.dicom.negotiation import Accepted, OtherVersion, Request
from edgemed.serve.dicom.store import (
    CANNOT_UNDERSTAND,
    CLASS_NOT_SUPPORTED,
    OUT_OF_RESOURCES,
    SUCCESS,
    Reception,
    Sender,
    Status,
)
from edgemed.serve.dicom.strangers import Strangers
from edgemed.serve.dicom.wire import Closed, Ending, Malformed, TooSlow, Wire
from edgemed.serve.services import Services

log = logging.getLogger(__name__)

End = Literal["open", "released", "aborted", "lost", "rejected"]

_PDV: Final = struct.Struct(">LBB")
_P_DATA: Final = struct.Struct(">BxL")
_SPARE_BYTES: Final = 64  # by which some senders misjudge the longest PDU
_LONGEST: Final = 1 << 20  # that we send to who sets no limit


@dataclass(frozen=True)
class Asked:
    """A message that is neither C-ECHO nor C-STORE, and where it came from."""

    guest: Guest
    association: Association
    command: Command
    context: Accepted
    data: bytes


@dataclass(frozen=True)
class Report:
    """An N-EVENT-REPORT that waits for its turn; `answered` is called with the status that comes back."""

    sop_instance: str
    event_type: int
    encode: Callable[[Accepted], bytes]
    answered: Callable[[int], None]


@dataclass(frozen=True)
class House:
    """What all associations share.

    Attributes:
        services: of the daemon.
        section: the inlet's limits.
        admission: who may.
        opened: told of each association on which reports of storage commitment may go.
        others: answers what is neither C-ECHO nor C-STORE.
        ending: set when the daemon ends: what is under way is finished, nothing new is begun.
        strangers: enters who is turned away.
    """

    services: Services
    section: DicomSection
    admission: Admission
    opened: Callable[[str, Association], None]
    others: Callable[[Asked], Status]
    ending: threading.Event
    strangers: Strangers


class Association:
    """An association that a peer asks for.

    Args:
        house: what all share.
        sock: connected; closed at the end.
        address: of the peer, which waits in `house.admission`.
    """

    def __init__(self, house: House, sock: socket.socket, address: str) -> None:
        self.name = secrets.token_hex(8)
        self.address = address
        self.contexts: dict[int, Accepted] = {}
        self._house = house
        self._socket = sock
        self._wire: Wire | None = None
        self._waits = True
        self._guest: Guest | None = None
        self._sender = Sender("", "", self.name, address)
        self._fragment = _LONGEST
        self._inbox = Inbox(self.contexts, self._begin, self._done)
        self._reports: deque[Report] = deque()
        self._awaited: dict[int, Report] = {}
        self._reported = 0
        self._end: End = "open"
        self._ledger = Ledger(house.services, house.strangers, address)

    def run(self, tls: ssl.SSLContext | None = None) -> None:
        """Serve it to its end."""
        try:
            self._serve(tls)
        except Denied as denied:
            self._last_words("rejected", negotiation.reject(*denied.answer))
        except Malformed as error:
            self._ledger.broken(error.what)
            self._last_words("aborted", negotiation.abort(2, error.reason))
        except (TooSlow, Ending) as why:
            self._ledger.broken("It was too slow." if isinstance(why, TooSlow) else "The daemon ends.")
            self._last_words("aborted", negotiation.abort(0, 0))
        except (Closed, OSError):
            self._end = "lost"
        except Exception as error:
            log.error("an association failed: %s", type(error).__name__, exc_info=not isinstance(error, EdgemedError))
            self._last_words("aborted", negotiation.abort(2, 0))
        finally:
            self._close()

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self._end == "open"

    def report(self, report: Report) -> bool:
        """Send a report when no message is under way; `False` where this association will not."""
        if not self.is_open or self._commitment() is None:
            return False
        self._reports.append(report)
        return True

    def interrupt(self) -> None:
        """Let it end now; from another thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _serve(self, tls: ssl.SSLContext | None) -> None:
        section = self._house.section
        deadline_ns = time.monotonic_ns() + section.association_ns
        if tls is not None:
            self._shake_hands(tls)
        wire = self._wire = Wire(self._socket, section.idle_ns)
        request = self._request(wire, deadline_ns)
        if request is None:
            return
        guest = self._admit(request)
        self._stop_waiting()
        answer, contexts = negotiation.accept(request, guest.offer, section.max_pdu_bytes)
        self.contexts.update(contexts)
        wire.send(answer)
        if self._commitment() is not None:
            self._house.opened(guest.ae_title, self)
        while self._end == "open":
            self._next(wire)

    def _shake_hands(self, tls: ssl.SSLContext) -> None:
        self._socket.settimeout(self._house.section.association_ns / SECOND)
        try:
            self._socket = tls.wrap_socket(self._socket, server_side=True)
        except OSError as error:  # of which SSLError is one
            why = getattr(error, "reason", None) or type(error).__name__
            self._ledger.turned_away("tls", str(why))
            raise

    def _request(self, wire: Wire, deadline_ns: int) -> Request | None:
        """Wait for what must come first."""
        keep_on = lambda: not self._house.ending.is_set()  # noqa: E731
        kind, length = wire.header(deadline_ns, keep_on)
        if kind == negotiation.ABORT:
            self._end = "aborted"
            return None
        if kind != negotiation.ASSOCIATE_RQ:
            raise _unexpected(kind)
        if length > negotiation.MOST_REQUEST_BYTES:
            raise Malformed("A request for an association is too long.", Malformed.PARAMETER)
        body = wire.body(length, deadline_ns)
        try:
            return negotiation.parse_request(_P_DATA.pack(kind, length) + bytes(body))
        except OtherVersion as error:
            self._ledger.turned_away("version", error.what)
            raise Denied("version", VERSION) from error

    def _admit(self, request: Request) -> Guest:
        try:
            if request.application_context != negotiation.APPLICATION_CONTEXT:
                raise Denied("context", CONTEXT)
            guest = self._house.admission.admit(request.calling, request.called, self.address)
        except Denied as denied:
            self._ledger.denied(denied.reason, request.calling, request.called)
            raise
        self._guest = guest
        self._sender = Sender(request.calling, request.called, self.name, self.address)
        self._ledger.accepted(request.calling)
        self._fragment = max((request.max_length or _LONGEST) - _PDV.size, 1)
        return guest

    def _next(self, wire: Wire) -> None:
        """One PDU."""
        under_way = self._inbox.message is not None
        if not under_way and not self._between():
            raise Ending
        kind, length = wire.header(keep_on=None if under_way else self._between)
        if kind == negotiation.P_DATA:
            if length > self._house.section.max_pdu_bytes + _SPARE_BYTES:
                raise Malformed("A PDU is longer than was negotiated.", Malformed.PARAMETER)
            self._inbox.take(wire.body(length))
            if (message := self._inbox.message) is not None:
                wire.in_time(message.began_ns, message.received)
        elif kind == negotiation.RELEASE_RQ and length == 4:
            wire.body(length)
            self._last_words("released", negotiation.RELEASE_ANSWER)
        elif kind == negotiation.ABORT:
            self._end = "aborted"
        else:
            raise _unexpected(kind)

    def _between(self) -> bool:
        """No message is under way: whether to wait for one."""
        while self._reports:
            report = self._reports.popleft()
            context = self._commitment()
            assert context is not None
            number = self._reported = self._reported % 0xFFFF + 1
            self._awaited[number] = report
            command = commands.encode_event_report(number, context.sop_class, report.sop_instance, report.event_type)
            self._send(context, command, report.encode(context))
        return not self._house.ending.is_set()

    def _begin(self, message: Message, refusal: Status | None = None) -> Reception | None:
        """Where the data set of a message goes; with a `refusal`, nowhere."""
        command, guest = message.command, self._guest
        assert command is not None
        assert guest is not None
        if command.field != commands.C_STORE:
            return None
        reception = Reception(self._house.services, self._sender, command, message.context, message.began_ns)
        if not guest.rate.take():
            refusal = Status(OUT_OF_RESOURCES, "Busy: too many objects in a minute.")
        reception.begin(self._house.section.max_object_bytes, refusal)
        return reception

    def _done(self, message: Message) -> None:
        """Answer a message that is complete."""
        command = message.command
        assert command is not None
        if command.is_response:
            report = self._awaited.pop(command.message, None)
            if report is not None:
                report.answered(command.status)
            return
        if command.field == commands.C_CANCEL:
            return
        status = self._status(command, message)
        self._send(message.context, commands.encode_response(command, status.code, status.comment, status.error_id))

    def _status(self, command: Command, message: Message) -> Status:
        guest = self._guest
        assert guest is not None
        if command.field == commands.C_STORE:
            without = Status(CANNOT_UNDERSTAND, "There is no data set.")
            return self._stored(command, message.reception or self._begin(message, without))
        if command.field == commands.C_ECHO:
            return Status(SUCCESS if message.context.sop_class == VERIFICATION else CLASS_NOT_SUPPORTED)
        return self._house.others(Asked(guest, self, command, message.context, bytes(message.data)))

    def _stored(self, command: Command, reception: Reception | None) -> Status:
        assert reception is not None
        status = reception.finish()
        if status.success:
            self._ledger.stored()
        else:
            self._ledger.refused(status.code, command.sop_instance)
        return status

    def _commitment(self) -> Accepted | None:
        """The context in which reports of storage commitment go, where there is one."""
        return next((c for c in self.contexts.values() if c.sop_class == COMMITMENT and c.as_scp), None)

    def _send(self, context: Accepted, command: bytes, data: bytes = b"") -> None:
        assert self._wire is not None
        pdus = bytearray()
        for whole, is_command in ((command, 1), (data, 0)):
            for part, control in _parts(whole, self._fragment, is_command):
                pdus += _P_DATA.pack(negotiation.P_DATA, len(part) + _PDV.size)
                pdus += _PDV.pack(len(part) + 2, context.number, control)
                pdus += part
                if len(pdus) >= _LONGEST:  # a peer may want a PDU for each byte of megabytes
                    self._wire.send(bytes(pdus))
                    pdus.clear()
        self._wire.send(bytes(pdus))

    def _last_words(self, end: End, pdu: bytes) -> None:
        """Say the last thing, and let the peer close."""
        self._end = end
        if self._wire is not None:
            with suppress(Closed):
                self._wire.send(pdu)
                self._wire.linger()

    def _stop_waiting(self) -> None:
        if self._waits:
            self._waits = False
            self._house.admission.leave(self.address)

    def _close(self) -> None:
        self._stop_waiting()
        try:
            self._inbox.cancel()
        finally:  # whatever the disk says: a place that is not given back is lost to this peer for good
            with suppress(OSError):
                self._socket.close()
            if self._guest is not None:
                self._house.admission.done(self._guest)
                self._house.services.intake.association_ended(self.name, released=self._end == "released")
            self._ledger.ended(self._end)


def _parts(whole: bytes, size: int, is_command: int) -> Iterator[tuple[bytes, int]]:
    """Fragments with their control headers: bit 0 is of a command, bit 1 of the last one."""
    for at in range(0, len(whole), size):
        yield whole[at : at + size], is_command | (2 if at + size >= len(whole) else 0)


def _unexpected(kind: int) -> Malformed:
    known = negotiation.ASSOCIATE_RQ <= kind <= negotiation.ABORT
    return Malformed(
        "A PDU came that has no place here." if known else "A PDU of an unknown type came.",
        Malformed.UNEXPECTED if known else Malformed.UNRECOGNISED,
    )
