"""Mutated requests over gRPC: frames of HTTP/2 by hand, and good channels with mutated messages.

A target of `benchmarks/fuzz.py`. Every call on a channel is answered by a status, of which INTERNAL and UNKNOWN are
held against us; every connection ends when its client has ended its side. A bug stands in the daemon's log, whichever
way it was found.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import grpc
import numpy as np

from benchmarks.fuzz import Bedside, Hang
from benchmarks.fuzz_http import PATIENCE_S, UNFINISHED_S, mutated
from edgemed.serve.http.proto import SERVICE, Proto

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4
_BUGS = (b"a request failed by", b"Traceback", b"Exception ")
_ENDED = (HEADERS, RST, GOAWAY)


@dataclass(frozen=True)
class Frame:
    """One, with the fields of its head as they are to be sent."""

    kind: int
    payload: bytes = b""
    flags: int = 0
    stream: int = 0
    length: int | None = None

    def encode(self) -> bytes:
        length = len(self.payload) if self.length is None else self.length
        return (
            struct.pack(">L", length & 0xFFFFFF)[1:]
            + struct.pack(">BBL", self.kind, self.flags, self.stream)
            + (self.payload)
        )


Frames = list[Frame]


def field(name: bytes, value: bytes) -> bytes:
    """A header as it is, without any table (RFC 7541 section 6.2.2); both shorter than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def headers(**others: bytes) -> bytes:
    pairs = {
        ":method": b"POST",
        ":scheme": b"http",
        ":path": f"/{SERVICE}/ModelInfer".encode(),
        ":authority": b"localhost",
        "te": b"trailers",
        "content-type": b"application/grpc",
        **others,
    }
    return b"".join(field(name.encode(), value) for name, value in pairs.items())


def message(data: bytes) -> bytes:
    """A message of gRPC: not compressed, so many bytes."""
    return b"\0" + struct.pack(">L", len(data)) + data


def flip(rng: random.Random, frames: Frames) -> Frames:
    """Bytes of a payload."""
    at = rng.randrange(len(frames))
    changed = replace(frames[at], payload=mutated(rng, frames[at].payload or b"\0", 4000))
    return [*frames[:at], changed, *frames[at + 1 :]]


def head(rng: random.Random, frames: Frames) -> Frames:
    """Kind, flags, stream or length of a frame."""
    at = rng.randrange(len(frames))
    old = frames[at]
    size = len(old.payload)
    changed = rng.choice(
        (
            replace(old, kind=rng.randrange(256)),
            replace(old, flags=rng.randrange(256)),
            replace(old, stream=rng.choice((0, 1, 2, 3, 0x7FFFFFFF, 0xFFFFFFFF))),
            replace(old, length=rng.choice((0, 1, max(size - 1, 0), size + 1, 0x4000, 0x4001, 0xFFFFFF))),
        )
    )
    return [*frames[:at], changed, *frames[at + 1 :]]


def fields(rng: random.Random, frames: Frames) -> Frames:
    """Other headers: wrong, missing, long, of other protocols; deadlines, encodings."""
    others = rng.choice(
        (
            {":path": rng.choice((b"/", b"", f"/{SERVICE}/Nothing".encode(), f"/{SERVICE}/ServerLive".encode()))},
            {":method": rng.choice((b"GET", b"PUT", b"\0"))},
            {"content-type": rng.choice((b"text/html", b"application/grpc+json", b""))},
            {"te": b"gzip"},
            {"grpc-timeout": rng.choice((b"1n", b"0S", b"99999999H", b"-1S", b"x"))},
            {"grpc-encoding": rng.choice((b"gzip", b"identity", b"deflate", b"nothing"))},
            {"authorization": rng.choice((b"Bearer x", b"Basic ////", b"\xff\xfe"))},
            {"content-length": rng.choice((b"0", b"99999999999999999999", b"-1"))},
            {"connection": b"close"},
            {"x-bin": rng.randbytes(20), "Upper": b"1"},
            {f"x-{n}": b"a" * 120 for n in range(rng.choice((1, 60, 200)))},
        )
    )
    return [replace(frame, payload=headers(**others)) if frame.kind == HEADERS else frame for frame in frames]


def prefix(rng: random.Random, frames: Frames) -> Frames:
    """What stands before a message: whether it is compressed, and how long it is."""

    def changed(frame: Frame) -> Frame:
        (length,) = struct.unpack(">L", frame.payload[1:5])
        length = rng.choice((0, 1, length - 1, length + 1, 0x7FFFFFFF, 0xFFFFFFFF)) & 0xFFFFFFFF
        return replace(frame, payload=bytes([rng.choice((0, 0, 1, 2, 255))]) + struct.pack(">L", length) + (
            frame.payload[5:]
        ))  # fmt: skip

    return [changed(frame) if frame.kind == DATA and len(frame.payload) > 5 else frame for frame in frames]


def extra(rng: random.Random, frames: Frames) -> Frames:
    """A frame between the others."""
    between = rng.choice(
        (
            Frame(PING, rng.randbytes(rng.choice((0, 8, 9)))),
            Frame(RST, struct.pack(">L", rng.randrange(16)), stream=1),
            Frame(WINDOW, struct.pack(">L", rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF))), stream=rng.choice((0, 1))),
            Frame(SETTINGS, struct.pack(">HL", rng.randrange(10), rng.choice((0, 1, 0xFFFFFF, 0xFFFFFFFF)))),
            Frame(SETTINGS, flags=1),
            Frame(GOAWAY, struct.pack(">LL", 0, 0)),
            Frame(CONTINUATION, headers(), END_HEADERS, 1),
            Frame(PRIORITY, struct.pack(">LB", 1, 255), stream=1),
            Frame(PUSH, struct.pack(">L", 2) + headers(), END_HEADERS, 1),
            Frame(HEADERS, headers(), END_HEADERS | END_STREAM, rng.choice((1, 3, 4))),
            Frame(rng.randrange(256), rng.randbytes(rng.choice((0, 10, 1000)))),
        )
    )
    at = rng.randrange(len(frames) + 1)
    return [*frames[:at], *[between] * rng.choice((1, 1, 1, 50)), *frames[at:]]


def order(rng: random.Random, frames: Frames) -> Frames:
    """Left out, twice, or elsewhere."""
    at = rng.randrange(len(frames))
    return rng.choice(
        (frames[:at] + frames[at + 1 :] or frames, frames[: at + 1] + frames[at:], rng.sample(frames, len(frames)))
    )


MUTATIONS: tuple[Callable[[random.Random, Frames], Frames], ...] = (
    flip, flip, head, head, fields, fields, prefix, extra, extra, order,
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """On a good channel: a method, and the bytes of its message."""

    method: str
    data: bytes


class RpcTarget:
    """See `Target`: half are connections by hand, half calls."""

    name = "grpc"

    def __init__(self) -> None:
        self.answered = 0
        self._failed: list[str] = []
        self._proto = Proto()
        self._read = 0  # of the daemon's log

    def make(self, rng: random.Random) -> Call | bytes:
        if rng.random() < 0.5:
            method = rng.choice(("ModelInfer", "ModelInfer", "ModelInfer", "ModelMetadata", "ModelReady", "Nothing"))
            good = self._request(rng) if method == "ModelInfer" else b"\x0a\x05chest"
            return Call(method, mutated(rng, good, len(good)))
        frames = [
            Frame(SETTINGS),
            Frame(HEADERS, headers(), END_HEADERS, 1),
            Frame(DATA, message(self._request(rng)), END_STREAM, 1),
        ]
        for _ in range(rng.choice((1, 1, 2, 3))):
            frames = rng.choice(MUTATIONS)(rng, frames)
        data = PREFACE + b"".join(frame.encode() for frame in frames)
        return data if rng.random() < 0.9 else data[: rng.randrange(1, len(data))]

    def send(self, bedside: Bedside, data: object) -> None:
        if isinstance(data, Call):
            self._call(bedside.rpc, data)
        else:
            assert isinstance(data, bytes)
            self.answered += any(kind == DATA for kind, _ in frames_of(talk(bedside.rpc, data)))

    def unaccounted(self, bedside: Bedside) -> list[str]:
        failed, self._failed = self._failed, []
        log = (bedside.folder / "log").read_bytes()
        said, self._read = log[self._read :], len(log)
        bugs = [line for line in said.splitlines() if any(bug in line for bug in _BUGS)]
        return failed + [f"the log: {line[:500].decode(errors='replace')}" for line in bugs]

    def _request(self, rng: random.Random) -> bytes:
        request, _ = self._proto.methods["ModelInfer"]
        image = np.full(16, rng.random(), np.float32)
        tensor = {"name": "image", "datatype": "FP32", "shape": [1, 4, 4, 1]}
        parameters = {"timeout": {"int64_param": 10_000_000}, "priority": {"int64_param": rng.randrange(3)}}
        if rng.random() < 0.5:
            made = request(
                model_name="chest", inputs=[tensor], raw_input_contents=[image.tobytes()], parameters=parameters
            )
        else:
            tensor["contents"] = {"fp32_contents": image.tolist()}
            made = request(model_name="chest", model_version="1", id="7", inputs=[tensor])
        return bytes(made.SerializeToString(deterministic=True))

    def _call(self, port: int, call: Call) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                channel.unary_unary(f"/{SERVICE}/{call.method}")(call.data, timeout=PATIENCE_S)
                self.answered += 1
            except grpc.RpcError as error:
                code = error.code()
                if code is grpc.StatusCode.DEADLINE_EXCEEDED and "Deadline" in (error.details() or ""):
                    raise Hang("no answer to a call") from error
                self.answered += code is grpc.StatusCode.INVALID_ARGUMENT
                if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                    self._failed.append(f"{code.name} ({error.details()}) for {call.method} {call.data[:200]!r}")


def frames_of(said: bytes) -> list[tuple[int, int]]:
    """Kind and flags of each whole frame."""
    found, at = [], 0
    while at + 9 <= len(said):
        length = int.from_bytes(said[at : at + 3], "big")
        found.append((said[at + 3], said[at + 4]))
        at += 9 + length
    return found


def talk(port: int, data: bytes) -> bytes:
    """Say it all, listen until there is an end of the stream or nothing more, end our side; what was answered.

    Raises:
        Hang: the connection does not end then.
    """
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        with suppress(OSError):  # it may be closed already
            connection.sendall(data)
        connection.settimeout(UNFINISHED_S)
        try:
            while not any(
                kind in _ENDED and (kind != HEADERS or flags & END_STREAM) for kind, flags in frames_of(said)
            ):
                if not (piece := connection.recv(1 << 16)):
                    return said
                said += piece
        except (TimeoutError, ConnectionError):
            pass
        connection.settimeout(PATIENCE_S)
        try:
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                said += piece
        except TimeoutError as error:
            raise Hang(f"no end after {len(said)} bytes") from error
        except OSError:
            pass
    return said
