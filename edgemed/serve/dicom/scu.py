"""An association that we ask for: one thread, one message at a time, each step with its deadline."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from edgemed.base.quantity import SECOND
from edgemed.serve.dicom import commands, negotiation, requestor
from edgemed.serve.dicom.inbox import Inbox, Message
from edgemed.serve.dicom.negotiation import Accepted
from edgemed.serve.dicom.requestor import Granted, Wanted
from edgemed.serve.dicom.wire import Closed, Ending, Malformed, TooSlow, Wire

MOST_PDU_BYTES: Final = 1 << 17
_MOST_ANSWER_BYTES: Final = 1 << 20
_PENDING: Final = (0xFF00, 0xFF01)
MOST_MATCHES: Final = 500
_GOODBYE_NS: Final = 5 * SECOND
_PDV: Final = struct.Struct(">LBB")
_HEADER: Final = struct.Struct(">BxL")
_RELEASE: Final = struct.pack(">BxL4x", negotiation.RELEASE_RQ, 4)


class Broken(Exception):
    """There is no association, or no longer.

    Attributes:
        reason: a sentence for people.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Target:
    """A peer, and how it is called."""

    host: str
    port: int
    called: str
    calling: str
    timeout_ns: int
    tls: ssl.SSLContext | None = None


def always() -> bool:
    return True


class Link:
    """Entered, there is an association; left, it was released, or aborted where something went wrong."""

    def __init__(self, target: Target, wanted: Sequence[Wanted], pulse: Callable[[], bool] = always) -> None:
        self._target = target
        self._wanted = wanted
        self._pulse = pulse
        self._contexts: dict[int, Accepted] = {}
        self._messages: deque[Message] = deque()
        self._inbox = Inbox(self._contexts, lambda _: None, self._messages.append)
        self._message = 0
        self.granted = Granted({}, {}, 0)

    def __enter__(self) -> Link:
        """Ask for it.

        Raises:
            Broken: there is no connection, or no association.
        """
        self._wire = Wire(self._connect(), self._target.timeout_ns)
        try:
            self._associate()
        except BaseException:
            self._wire.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._wire.send(_RELEASE)
                with suppress(Closed):  # all is said; a peer that does not answer costs nothing but this
                    self._wire.header(time.monotonic_ns() + min(self._target.timeout_ns, _GOODBYE_NS), self._pulse)
            else:
                self._wire.send(negotiation.abort(0, 0))
        except Closed:
            pass
        finally:
            self._wire.close()

    def store(self, context: Accepted, sop_class: str, sop_instance: str, read: Callable[[int], bytes]) -> int:
        """C-STORE of a data set that is written as the context says; the status that comes back.

        Args:
            context: that was granted.
            sop_class: UID.
            sop_instance: UID.
            read: gives so many bytes of it; fewer at its end, and none after.

        Raises:
            Broken: no valid answer came.
        """
        message = self._next()
        self._send(context, commands.encode_store(message, sop_class, sop_instance))
        self._send_data(context, read)
        return self._answer(commands.C_STORE, message)

    def find(self, context: Accepted, sop_class: str, query: bytes) -> tuple[int, list[bytes]]:
        """C-FIND; the last status that comes back, and the data sets that came before it.

        Args:
            context: that was granted.
            sop_class: UID of the information model.
            query: data set of keys, as the context says.

        Raises:
            Broken: no valid answer came, or too many.
        """
        message = self._next()
        self._send(context, commands.encode_find(message, sop_class))
        self._send_data(context, BytesIO(query).read)
        found: list[bytes] = []
        while True:
            answer = self._response(commands.C_FIND, message)
            assert answer.command is not None
            if answer.command.status not in _PENDING:
                return answer.command.status, found
            if len(found) == MOST_MATCHES:
                raise Broken("It answers a query for one instance by hundreds.")
            found.append(bytes(answer.data))

    def act(self, context: Accepted, sop_class: str, sop_instance: str, action: int, data: bytes) -> int:
        """N-ACTION; the status that comes back. Events that come meanwhile are kept for `event`.

        Raises:
            Broken: no valid answer came.
        """
        message = self._next()
        self._send(context, commands.encode_action(message, sop_class, sop_instance, action))
        self._send_data(context, BytesIO(data).read)
        return self._answer(commands.N_ACTION, message)

    def event(self, within_ns: int) -> Message | None:
        """The next N-EVENT-REPORT, which wants an `answer`; `None` where none comes in time, or never."""
        end_ns = time.monotonic_ns() + within_ns
        try:
            while not self._messages:
                self._receive(end_ns)
        except Broken:
            return None
        return self._messages.popleft()

    def answer(self, message: Message, status: int) -> None:
        """Answer an event.

        Raises:
            Broken: the association is over.
        """
        assert message.command is not None
        self._send(message.context, commands.encode_response(message.command, status))

    def _connect(self) -> socket.socket:
        target = self._target
        try:
            sock = socket.create_connection((target.host, target.port), target.timeout_ns / SECOND)
        except OSError as error:
            raise Broken("It takes no connection.") from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock if target.tls is None else target.tls.wrap_socket(sock, server_hostname=target.host)
        except ssl.SSLCertVerificationError as error:
            sock.close()
            raise Broken(f"Its certificate is not trusted: {error.verify_message}.") from error
        except OSError as error:
            sock.close()
            raise Broken("It does not speak TLS as it should.") from error

    def _associate(self) -> None:
        target = self._target
        self._put(requestor.request(target.calling, target.called, self._wanted, MOST_PDU_BYTES))
        kind, body = self._pdu(time.monotonic_ns() + target.timeout_ns)
        if kind == negotiation.ASSOCIATE_RJ:
            raise Broken(f"It rejects the association: {requestor.why_rejected(body)}.")
        if kind != negotiation.ASSOCIATE_AC:
            raise Broken("It aborts the association at once.")
        try:
            self.granted = requestor.read_answer(_HEADER.pack(kind, len(body)) + body, self._wanted)
        except Malformed as error:
            raise Broken(error.what) from error
        self._contexts.update((context.number, context) for context in self.granted.contexts.values())

    def _next(self) -> int:
        self._message = self._message % 0xFFFF + 1
        return self._message

    @property
    def _fragment(self) -> int:
        limit = self.granted.max_length
        most = min(limit, MOST_PDU_BYTES) if limit else MOST_PDU_BYTES
        return max(most - _PDV.size, 256) & ~1  # fragments of odd length are legal, and trouble

    def _send(self, context: Accepted, command: bytes) -> None:
        self._put(_p_data(context, command, 3))

    def _send_data(self, context: Accepted, read: Callable[[int], bytes]) -> None:
        size = self._fragment
        part = read(size)
        while True:
            after = read(size) if len(part) == size else b""
            self._put(_p_data(context, part, 0 if after else 2))
            self._pulse()
            if not after:
                return
            part = after

    def _put(self, pdu: bytes) -> None:
        try:
            self._wire.send(pdu)
        except TooSlow as error:
            raise Broken("It does not read what is sent.") from error
        except Closed as error:
            raise Broken("It closed the connection.") from error

    def _answer(self, field: int, message: int) -> int:
        command = self._response(field, message).command
        assert command is not None
        return command.status

    def _response(self, field: int, message: int) -> Message:
        end_ns = time.monotonic_ns() + self._target.timeout_ns
        seen = 0
        while True:
            while len(self._messages) <= seen:
                self._receive(end_ns)
            command = self._messages[seen].command
            assert command is not None
            if not command.is_response and command.field == commands.N_EVENT_REPORT:
                seen += 1
                continue
            if command.field != field | commands.RESPONSE or command.message != message:
                raise Broken("It answers something else.")
            response = self._messages[seen]
            del self._messages[seen]
            return response

    def _receive(self, end_ns: int) -> None:
        kind, body = self._pdu(end_ns)
        if kind == negotiation.RELEASE_RQ:
            self._put(negotiation.RELEASE_ANSWER)
        if kind != negotiation.P_DATA:
            raise Broken("It ends the association.")
        try:
            self._inbox.take(memoryview(body))
        except Malformed as error:
            raise Broken(f"It breaks the protocol: {error.what}") from error

    def _pdu(self, end_ns: int) -> tuple[int, bytes]:
        try:
            kind, length = self._wire.header(end_ns, self._pulse)
            if length > _MOST_ANSWER_BYTES:
                raise Broken("It breaks the protocol: a PDU is too long.")
            return kind, bytes(self._wire.body(length))
        except TooSlow as error:
            raise Broken("It does not answer in time.") from error
        except Ending as error:
            raise Broken("The daemon ends.") from error
        except Closed as error:
            raise Broken("It closed the connection.") from error


def _p_data(context: Accepted, data: bytes, control: int) -> bytes:
    return (
        _HEADER.pack(negotiation.P_DATA, len(data) + _PDV.size)
        + _PDV.pack(len(data) + 2, context.number, control)
        + data
    )
