"""What parent and worker say to each other: small datagrams on a socket pair; frames travel by shared memory alone.

A message is a header and a body. The header names the worker's generation, a slot and a request number, so that an
answer can be held against what was asked. Bodies of `RUN` and `DONE` are packed integers, all others JSON. Nothing is
pickled. Whatever breaks these rules is a `ProtocolError`, and the fault of the worker that sent it.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from edgemed.base import errors
from edgemed.base.errors import ChildError, EdgemedError, GpuError
from edgemed.base.text import printable
from edgemed.runtime.lane import Stage

VERSION: Final = 1
MAX_MESSAGE: Final = 60_000  # a datagram must fit the socket's buffer, 208 KiB by default
_MAGIC: Final = 0x6577
_HEADER = struct.Struct("<HBBIIQ")
_STAGE = struct.Struct("<qqB")
_MAX_STAGES = 16
_MAX_STAGE_NAME = 32
_MAX_TEXT = 4000


class ProtocolError(Exception):
    """A message that no sound worker sends."""


class Kind(IntEnum):
    """Kinds of messages; the parent sends those below 16."""

    LOAD = 1  # what to build
    MEMORY = 2  # layout of the slots, with the two descriptors of their memory
    RUN = 3  # a slot's inputs are there
    STOP = 4  # answer what was asked, free the device, end
    LOADED = 16  # the Runner stands; what it takes and gives
    DONE = 17  # a slot's outputs are there
    FAILED = 18  # a request failed, and the worker believes itself sound
    FAULT = 19  # the worker is lost, and says no more after this


_KINDS: Final = {kind.value: kind for kind in Kind}


class Message(NamedTuple):
    """One message; `slot` and `request` are 0 where they mean nothing."""

    kind: Kind
    generation: int
    slot: int = 0
    request: int = 0
    body: bytes = b""

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            ProtocolError: it is none.
        """
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"a {self.kind.name} message that is no JSON") from error
        if not isinstance(value, dict):
            raise ProtocolError(f"a {self.kind.name} message that is no object")
        return value


def encode(message: Message) -> bytes:
    """Bytes of a message.

    Raises:
        ValueError: it is larger than any message may be.
    """
    head = _HEADER.pack(_MAGIC, VERSION, message.kind, message.generation, message.slot, message.request)
    if len(head) + len(message.body) > MAX_MESSAGE:
        raise ValueError(f"a {message.kind.name} message of {len(message.body)} bytes")
    return head + message.body


def decode(data: bytes) -> Message:
    """Read a message.

    Raises:
        ProtocolError: it is none, or of another version.
    """
    if not _HEADER.size <= len(data) <= MAX_MESSAGE:
        raise ProtocolError(f"a message of {len(data)} bytes")
    magic, version, kind, generation, slot, request = _HEADER.unpack_from(data)
    if (magic, version) != (_MAGIC, VERSION):
        raise ProtocolError("bytes that are no message of ours")
    if kind not in _KINDS:
        raise ProtocolError(f"a message of kind {kind}")
    return Message(_KINDS[kind], generation, slot, request, data[_HEADER.size :])


class Channel:
    """One end of the socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send one message whole.

        Raises:
            OSError: the other side is gone, or (`BlockingIOError`) does not read.
        """
        data = encode(message)
        if descriptors:
            socket.send_fds(self._end, [data], descriptors)
        else:
            self._end.send(data)

    def receive(self) -> Message:
        """The next message.

        Raises:
            EOFError: the other side is gone.
            BlockingIOError: none is there, on a socket that does not block.
            ProtocolError: it is no message of ours.
        """
        try:
            data = self._end.recv(MAX_MESSAGE + 1)
        except ConnectionResetError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        return decode(data)

    def receive_descriptors(self, count: int) -> tuple[Message, list[int]]:
        """The next message and the descriptors that come with it."""
        data, descriptors, _, _ = socket.recv_fds(self._end, MAX_MESSAGE + 1, count)
        if not data:
            raise EOFError
        return decode(data), descriptors

    def wait(self, milliseconds: int | None) -> bool:
        """Whether a message, or the end, is there within that time; `None`: for as long as it takes."""
        return bool(self._poll.poll(milliseconds))

    def close(self) -> None:
        self._end.close()


def pack_stages(stages: Sequence[Stage]) -> bytes:
    """Bytes of the stages of one frame; beyond 16 they are left out."""
    parts = [bytes([min(len(stages), _MAX_STAGES)])]
    for name, start_ns, end_ns in stages[:_MAX_STAGES]:
        text = name.encode("ascii", "replace")[:_MAX_STAGE_NAME]
        parts += [_STAGE.pack(start_ns, end_ns, len(text)), text]
    return b"".join(parts)


def unpack_stages(data: bytes) -> list[Stage]:
    """Read what `pack_stages` wrote, to the last byte.

    Raises:
        ProtocolError: it is not that.
    """
    try:
        count, place, stages = data[0], 1, []
        for _ in range(count):
            start_ns, end_ns, length = _STAGE.unpack_from(data, place)
            place += _STAGE.size
            name = data[place : place + length].decode("ascii")
            place += length
            stages.append((name, start_ns, end_ns))
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ProtocolError("stages that cannot be read") from error
    if place != len(data) or count > _MAX_STAGES:
        raise ProtocolError("stages that cannot be read")
    if any(end < start or not name.isprintable() for name, start, end in stages):
        raise ProtocolError("stages that cannot be")
    return stages


def error_to_json(error: EdgemedError) -> bytes:
    """An error of ours for the other side."""
    described = {
        "error": type(error).__name__,
        "what": error.what[:_MAX_TEXT],
        "hint": error.hint[:_MAX_TEXT],
        "sticky": isinstance(error, GpuError) and error.sticky,
    }
    return json.dumps(described).encode()


def error_from_json(described: dict[str, Any]) -> EdgemedError:
    """The error that `error_to_json` described; its words are made safe to show.

    Raises:
        ProtocolError: it describes none.
    """
    texts = [described.get(key) for key in ("error", "what", "hint")]
    if not all(isinstance(text, str) and len(text) <= _MAX_TEXT for text in texts):
        raise ProtocolError("an error without words")
    name, what, hint = (printable(str(text)) for text in texts)
    leaf = getattr(errors, name, None)
    if not (isinstance(leaf, type) and issubclass(leaf, EdgemedError)):
        return ChildError(what, hint)
    if issubclass(leaf, GpuError):
        return leaf(what, hint, sticky=described.get("sticky") is True)
    return leaf(what, hint)
