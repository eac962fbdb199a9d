"""Messages put together from P-DATA (PS3.8 annex E). The data set of a C-STORE is not: it flows on to the disk."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from edgemed.serve.dicom.commands import Command, parse_command
from edgemed.serve.dicom.negotiation import Accepted
from edgemed.serve.dicom.store import Reception
from edgemed.serve.dicom.wire import Malformed

_PDV: Final = struct.Struct(">LBB")
_IS_COMMAND, _IS_LAST = 1, 2
MOST_COMMAND_BYTES: Final = 1 << 16
MOST_DATA_BYTES: Final = 16 << 20  # of what is not an image: a request for storage commitment, a procedure step


@dataclass
class Message:
    """One under way, or complete.

    Attributes:
        context: presentation context that it came in.
        began_ns: `time.monotonic_ns` of its first byte.
        command: once it is complete.
        data: its data set; of a C-STORE, it went to `reception`.
        received: bytes of it.
    """

    context: Accepted
    began_ns: int = field(default_factory=time.monotonic_ns)
    command: Command | None = None
    data: bytearray = field(default_factory=bytearray)
    reception: Reception | None = None
    received: int = 0


Begin = Callable[[Message], "Reception | None"]
Done = Callable[[Message], None]


class Inbox:
    """Takes P-DATA.

    Args:
        contexts: that were accepted, by their numbers.
        begin: called when the command of a message that has a data set is complete; says where the data set goes.
        done: called with each message that is complete.
    """

    def __init__(self, contexts: Mapping[int, Accepted], begin: Begin, done: Done) -> None:
        self._contexts = contexts
        self._begin = begin
        self._done = done
        self._command = bytearray()
        self.message: Message | None = None

    def take(self, body: memoryview) -> None:
        """The presentation data values of one PDU.

        Raises:
            Malformed: the protocol is broken.
        """
        position, end = 0, len(body)
        if not end:
            raise Malformed("A P-DATA PDU is empty.", Malformed.PARAMETER)
        while position < end:
            if position + _PDV.size > end:
                raise Malformed("A presentation data value is cut short.", Malformed.PARAMETER)
            length, context, control = _PDV.unpack_from(body, position)
            after = position + 4 + length
            if length < 2 or after > end:
                raise Malformed("A presentation data value is longer than its PDU.", Malformed.PARAMETER)
            self._fragment(context, control, body[position + _PDV.size : after])
            position = after

    def cancel(self) -> None:
        """What is under way will not be complete."""
        if self.message is not None and self.message.reception is not None:
            self.message.reception.cancel()
        self.message = None

    def _fragment(self, number: int, control: int, data: memoryview) -> None:
        context = self._contexts.get(number)
        if context is None:
            raise Malformed("A message is in a presentation context that was not accepted.", Malformed.PARAMETER)
        message = self.message
        if message is None:
            message = self.message = Message(context)
            self._command.clear()
        if message.context is not context or bool(control & _IS_COMMAND) is (message.command is not None):
            raise Malformed("Fragments of messages are out of order.")
        message.received += len(data)
        if control & _IS_COMMAND:
            self._take_command(message, data, last=bool(control & _IS_LAST))
        else:
            self._take_data(message, data, last=bool(control & _IS_LAST))

    def _take_command(self, message: Message, data: memoryview, *, last: bool) -> None:
        self._command += data
        if len(self._command) > MOST_COMMAND_BYTES:
            raise Malformed("A command set is too long.", Malformed.PARAMETER)
        if not last:
            return
        message.command = parse_command(bytes(self._command))
        if message.command.has_data:
            message.reception = self._begin(message)
        else:
            self._complete(message)

    def _take_data(self, message: Message, data: memoryview, *, last: bool) -> None:
        if message.reception is not None:
            message.reception.write(data)
            if message.reception.hopeless:
                raise Malformed("An object that is refused goes on and on.", Malformed.PARAMETER)
        elif len(message.data) + len(data) > MOST_DATA_BYTES:
            raise Malformed("A message that is no image is too long.", Malformed.PARAMETER)
        else:
            message.data += data
        if last:
            self._complete(message)

    def _complete(self, message: Message) -> None:
        self.message = None
        self._done(message)
