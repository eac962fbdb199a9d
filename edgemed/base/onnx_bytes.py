"""Serialized ONNX models and the files they read: none, or exactly those that are known.

ONNX lets a tensor name a file, which the loader opens relative to the model or, for a model in memory, to the working
directory. The hashes of a bundle do not cover such a file. This walks the Protocol Buffers wire format by itself:
the bedside has no `onnx`, and both ONNX Runtime and TensorRT are handed the same bytes.

Field numbers: onnx.proto3 of ONNX 1.19. Wire format: Protocol Buffers, "Encoding".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from edgemed.base.errors import IntegrityError

# message -> {field number: message in that field}, as far as tensors lie below
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _TRAINING = range(8)
_NESTED: Final[dict[int, dict[int, int]]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of TensorProto
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_REBUILD = "Build the bundle anew."

Field = tuple[int, int, int, int]  # number, wire type, begin and end of the value


def require_whole(model: bytes, beside: Collection[str] = ()) -> None:
    """Refuse a serialized model that reads tensors from other files than those beside it, wherever they stand in it.

    Args:
        model: the bytes.
        beside: names of files that it may read.

    Raises:
        IntegrityError: it does, or is no Protocol Buffers message.
    """
    queue = [(_MODEL, 0, len(model))]
    while queue:
        message, begin, end = queue.pop()
        nested = _NESTED[message]
        outside, places = False, []
        for number, wire, start, stop in _fields(model, begin, end):
            if wire == _LENGTH and number in nested:
                queue.append((nested[number], start, stop))
            elif message == _TENSOR and number == _EXTERNAL_DATA and wire == _LENGTH:
                outside = True
                places += _location(model, start, stop)
            elif message == _TENSOR and number in (_EXTERNAL_DATA, _DATA_LOCATION):
                outside |= wire != _VARINT or bool(_varint(model, start, stop)[0])
        if outside and (len(places) != 1 or places[0] not in beside):
            raise IntegrityError("The graph reads tensors from a file that the bundle does not hold.", _REBUILD)


def _location(model: bytes, begin: int, end: int) -> list[str]:
    """The file that an entry of `external_data` names: none where its key is another; keys and values are strings."""
    entry = {n: model[start:stop] for n, wire, start, stop in _fields(model, begin, end) if wire == _LENGTH}
    return [entry.get(2, b"").decode("utf-8", "replace")] if entry.get(1) == b"location" else []


def _fields(data: bytes, position: int, end: int) -> Iterator[Field]:
    while position < end:
        key, position = _varint(data, position, end)
        wire, start = key & 7, position
        if wire == _VARINT:
            position = _varint(data, position, end)[1]
        elif wire == _LENGTH:
            length, start = _varint(data, position, end)
            position = start + length
        elif wire in (_FIXED32, _FIXED64):
            position += 4 if wire == _FIXED32 else 8
        else:
            raise _damaged()
        if position > end or not 0 < key >> 3 < 1 << 29:
            raise _damaged()
        yield key >> 3, wire, start, position


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Value, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _damaged()


def _damaged() -> IntegrityError:
    return IntegrityError("The graph is damaged: it is not an ONNX model.", _REBUILD)
