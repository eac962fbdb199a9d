"""Messages: what was sent is read; whatever else comes is an error of the sender, and no other kind of error."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import ChildError, GpuError, GpuMemoryError, InputError
from edgemed.base.runner import RunnerInfo, RunnerSpecs, TensorSpec
from edgemed.runtime.contained import protocol
from edgemed.runtime.contained.loaded import Loaded
from edgemed.runtime.contained.protocol import Channel, Kind, Message, ProtocolError, decode, encode

WHOLE = Message(Kind.DONE, 3, 2, 1 << 40, b"body")
LOADED = Loaded(
    RunnerSpecs((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y/z:0", "int64", ()),)),
    RunnerInfo("onnxruntime", "int8", "cpu", "0" * 64),
)


def test_messages_read_back_equal() -> None:
    assert decode(encode(WHOLE)) == WHOLE


def test_a_message_that_no_socket_takes_is_not_sent() -> None:
    with pytest.raises(ValueError, match="60000 bytes"):
        encode(Message(Kind.DONE, 1, body=bytes(protocol.MAX_MESSAGE)))
    assert len(encode(Message(Kind.DONE, 1, body=bytes(protocol.MAX_MESSAGE - 20)))) == protocol.MAX_MESSAGE


@given(st.binary(max_size=64) | st.builds(lambda tail: encode(WHOLE)[:8] + tail, st.binary(max_size=40)))
def test_any_other_bytes_are_a_protocol_error(data: bytes) -> None:
    try:
        message = decode(data)
    except ProtocolError:
        return
    assert encode(message) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode(WHOLE)[:10],
        encode(WHOLE) + bytes(protocol.MAX_MESSAGE),
        b"\x78" + encode(WHOLE)[1:],  # another magic
        encode(WHOLE)[:2] + b"\x02" + encode(WHOLE)[3:],  # another version
        encode(WHOLE)[:3] + b"\xff" + encode(WHOLE)[4:],  # an unknown kind
    ],
)
def test_damaged_messages_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


@given(st.lists(st.tuples(st.text("abc-", max_size=32), st.integers(0, 2**40), st.integers(0, 2**40)), max_size=16))
def test_stages_read_back_equal(drawn: list[tuple[str, int, int]]) -> None:
    stages = [(name, start, start + length) for name, start, length in drawn]
    assert protocol.unpack_stages(protocol.pack_stages(stages)) == stages


@given(st.binary(max_size=120))
def test_other_bytes_are_no_stages(data: bytes) -> None:
    try:
        stages = protocol.unpack_stages(data)
    except ProtocolError:
        return
    assert protocol.pack_stages(stages) == data


@pytest.mark.parametrize(
    "error", [InputError("what.", "hint."), GpuError("gpu.", sticky=True), GpuError("gpu."), GpuMemoryError("full.")]
)
def test_errors_arrive_as_what_they_were(error: GpuError | InputError) -> None:
    back = protocol.error_from_json(Message(Kind.FAULT, 1, body=protocol.error_to_json(error)).json())
    assert (type(back), back.what, back.hint) == (type(error), error.what, error.hint)
    assert getattr(back, "sticky", None) == getattr(error, "sticky", None)


def test_an_error_of_no_class_of_ours_is_a_childs_and_its_words_cannot_steer_a_terminal() -> None:
    described = {"error": "SystemExit", "what": "red \x1b[31m", "hint": ""}
    error = protocol.error_from_json(described)
    assert type(error) is ChildError
    assert error.what == r"red \x1b[31m"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["error", "what", "hint", "sticky", "inputs", "outputs", "info"]), JSON))
def test_any_other_json_is_a_protocol_error(described: dict[str, object]) -> None:
    for read in (protocol.error_from_json, Loaded.from_json):
        try:
            read(described)
        except ProtocolError:
            continue
        assert read is protocol.error_from_json
        assert {"error", "what", "hint"} <= described.keys()


def test_what_was_loaded_reads_back_equal() -> None:
    assert Loaded.from_json(Message(Kind.LOADED, 1, body=LOADED.to_body()).json()) == LOADED


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("inputs", []),
        ("inputs", [["x", "float32", [1]], ["x", "float32", [1]]]),
        ("inputs", [["x", "float32", [-1]]]),
        ("inputs", [["x", "float32", [True]]]),
        ("inputs", [["x", "float32", [1 << 40]]]),
        ("outputs", [["y", "float32"]]),
        ("outputs", [["", "float32", [1]]]),
        ("info", ["onnxruntime", "int8", "cpu"]),
        ("info", ["onnxruntime", "int8", "cpu", 5]),
    ],
)
def test_a_model_that_cannot_be_is_not_believed(key: str, value: object) -> None:
    described = Message(Kind.LOADED, 1, body=LOADED.to_body()).json()
    with pytest.raises(ProtocolError):
        Loaded.from_json({**described, key: value})


def test_a_channel_keeps_messages_apart_and_tells_the_end() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        ours, theirs = Channel(one), Channel(other)
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.receive()
        ours.send(WHOLE)
        ours.send(Message(Kind.STOP, 1))
        assert theirs.wait(0)
        assert theirs.receive() == WHOLE
        assert theirs.receive() == Message(Kind.STOP, 1)
        assert not theirs.wait(0)
        one.send(bytes(protocol.MAX_MESSAGE + 1))
        with pytest.raises(ProtocolError):
            theirs.receive()
        ours.close()
        with pytest.raises(EOFError):
            theirs.receive()
