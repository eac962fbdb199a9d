"""Command sets (PS3.7 annex E): a dozen elements, implicit VR little endian, read and written without a data set.

A command comes with each image; that it costs microseconds is why it is not parsed as any data set is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from edgemed.serve.dicom.wire import Malformed

C_STORE, C_FIND, C_ECHO, C_CANCEL = 0x0001, 0x0020, 0x0030, 0x0FFF
N_EVENT_REPORT, N_SET, N_ACTION, N_CREATE = 0x0100, 0x0120, 0x0130, 0x0140
RESPONSE: Final = 0x8000
NO_DATA_SET: Final = 0x0101
HAS_DATA_SET: Final = 0x0001

_GROUP_LENGTH, _AFFECTED_CLASS, _REQUESTED_CLASS = 0x0000, 0x0002, 0x0003
_FIELD, _MESSAGE, _ANSWERED, _PRIORITY, _DATA_SET = 0x0100, 0x0110, 0x0120, 0x0700, 0x0800
_STATUS, _COMMENT, _ERROR_ID, _AFFECTED_INSTANCE, _REQUESTED_INSTANCE = 0x0900, 0x0902, 0x0903, 0x1000, 0x1001
_EVENT_TYPE, _ACTION_TYPE = 0x1002, 0x1008
_ELEMENT: Final = struct.Struct("<HHL")
_DIGITS: Final = frozenset("0123456789.")


@dataclass(frozen=True)
class Command:
    """What a message asks or answers. UIDs and numbers are '' and 0 where the message has none."""

    field: int
    message: int = 0
    sop_class: str = ""
    sop_instance: str = ""
    has_data: bool = False
    status: int = 0
    kind: int = 0
    comment: str = ""

    @property
    def is_response(self) -> bool:
        return bool(self.field & RESPONSE)


def parse_command(data: bytes) -> Command:
    """Read a command set.

    Raises:
        Malformed: it is none.
    """
    values: dict[int, bytes] = {}
    position, last = 0, -1
    while position < len(data):
        if position + _ELEMENT.size > len(data):
            raise Malformed("A command set ends inside an element.", Malformed.PARAMETER)
        group, element, length = _ELEMENT.unpack_from(data, position)
        position += _ELEMENT.size
        if group != 0 or element <= last or position + length > len(data):
            raise Malformed("A command set is damaged.", Malformed.PARAMETER)
        values[element] = data[position : position + length]
        position, last = position + length, element
    field = _number(values, _FIELD)
    if field is None:
        raise Malformed("A command set does not say what it is.", Malformed.PARAMETER)
    answered = bool(field & RESPONSE)
    return Command(
        field=field,
        message=_number(values, _ANSWERED if answered else _MESSAGE) or 0,
        sop_class=_uid(values, _AFFECTED_CLASS) or _uid(values, _REQUESTED_CLASS),
        sop_instance=_uid(values, _AFFECTED_INSTANCE) or _uid(values, _REQUESTED_INSTANCE),
        has_data=(_number(values, _DATA_SET) or 0) != NO_DATA_SET,
        status=_number(values, _STATUS) or 0,
        kind=_number(values, _EVENT_TYPE) or _number(values, _ACTION_TYPE) or 0,
    )


def encode_response(request: Command, status: int, comment: str = "", error_id: int = 0) -> bytes:
    """The command set that answers a request, without a data set."""
    elements = {
        _AFFECTED_CLASS: _text(request.sop_class, "\0"),
        _FIELD: _us(request.field | RESPONSE),
        _ANSWERED: _us(request.message),
        _DATA_SET: _us(NO_DATA_SET),
        _STATUS: _us(status),
        _COMMENT: _text(comment[:64], " "),
        _AFFECTED_INSTANCE: _text(request.sop_instance, "\0"),
    }
    if error_id:
        elements[_ERROR_ID] = _us(error_id)
    if request.field == N_EVENT_REPORT:
        elements[_EVENT_TYPE] = _us(request.kind)
    if request.field == N_ACTION:
        elements[_ACTION_TYPE] = _us(request.kind)
    return _encode({tag: value for tag, value in elements.items() if value})


def encode_event_report(message: int, sop_class: str, sop_instance: str, event_type: int) -> bytes:
    """The command set of an N-EVENT-REPORT-RQ, which has a data set."""
    return _encode(
        {
            _AFFECTED_CLASS: _text(sop_class, "\0"),
            _FIELD: _us(N_EVENT_REPORT),
            _MESSAGE: _us(message),
            _DATA_SET: _us(HAS_DATA_SET),
            _AFFECTED_INSTANCE: _text(sop_instance, "\0"),
            _EVENT_TYPE: _us(event_type),
        }
    )


def encode_store(message: int, sop_class: str, sop_instance: str) -> bytes:
    """The command set of a C-STORE-RQ of medium priority."""
    return _encode(
        {
            _AFFECTED_CLASS: _text(sop_class, "\0"),
            _FIELD: _us(C_STORE),
            _MESSAGE: _us(message),
            _PRIORITY: _us(0),
            _DATA_SET: _us(HAS_DATA_SET),
            _AFFECTED_INSTANCE: _text(sop_instance, "\0"),
        }
    )


def encode_find(message: int, sop_class: str) -> bytes:
    """The command set of a C-FIND-RQ of medium priority."""
    return _encode(
        {
            _AFFECTED_CLASS: _text(sop_class, "\0"),
            _FIELD: _us(C_FIND),
            _MESSAGE: _us(message),
            _PRIORITY: _us(0),
            _DATA_SET: _us(HAS_DATA_SET),
        }
    )


def encode_action(message: int, sop_class: str, sop_instance: str, action_type: int) -> bytes:
    """The command set of an N-ACTION-RQ, which has a data set."""
    return _encode(
        {
            _REQUESTED_CLASS: _text(sop_class, "\0"),
            _FIELD: _us(N_ACTION),
            _MESSAGE: _us(message),
            _DATA_SET: _us(HAS_DATA_SET),
            _REQUESTED_INSTANCE: _text(sop_instance, "\0"),
            _ACTION_TYPE: _us(action_type),
        }
    )


def _encode(elements: dict[int, bytes]) -> bytes:
    body = b"".join(_ELEMENT.pack(0, tag, len(value)) + value for tag, value in sorted(elements.items()))
    return _ELEMENT.pack(0, _GROUP_LENGTH, 4) + struct.pack("<L", len(body)) + body


def _number(values: dict[int, bytes], element: int) -> int | None:
    value = values.get(element)
    if value is None:
        return None
    if len(value) != 2:
        raise Malformed("A number of a command set is none.", Malformed.PARAMETER)
    return int.from_bytes(value, "little")


def _uid(values: dict[int, bytes], element: int) -> str:
    text = values.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace")
    if len(text) > 64 or not _DIGITS.issuperset(text):
        raise Malformed("A UID of a command set is none.", Malformed.PARAMETER)
    return text


def _us(number: int) -> bytes:
    return number.to_bytes(2, "little")


def _text(text: str, padding: str) -> bytes:
    return (text + padding * (len(text) % 2)).encode("ascii", "replace")
