"""Mutated requests over HTTP: inference, STOW-RS, and whatever else stands in them. Targets of `benchmarks/fuzz.py`.

Each input is the bytes of a whole connection. Every one is answered by HTTP, or the connection is closed; a status of
500 is held against us. Instances that a STOW-RS answer calls stored are in the journal.
"""

from __future__ import annotations

import json
import random
import re
import socket
from contextlib import suppress

import numpy as np
from pydicom.uid import generate_uid

from benchmarks.fuzz import Bedside, Hang
from benchmarks.fuzz_file import damaged

PATIENCE_S = 40  # a request has 30 seconds to come to its end
UNFINISHED_S = 0.5  # then we say that no more will come
BOUNDARY = "b0undary"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_STORED = re.compile(r'"00081155":\{"vr":"UI","Value":\["([0-9.]+)"\]\}(?!,"00081197")')


def request(method: str, path: str, body: bytes, **headers: str) -> bytes:
    own = {"Host": "localhost", "Content-Length": str(len(body)), "Connection": "close", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in own.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def mutated(rng: random.Random, data: bytes, places: int) -> bytes:
    """A few bytes changed, left out, said twice, or cut off, among the first `places`."""
    out = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        at = rng.randrange(max(1, min(len(out), places)))
        match rng.randrange(6):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                out[at:at] = rng.randbytes(rng.randrange(1, 16))
            case 2:
                del out[at : at + rng.randrange(1, 32)]
            case 3:
                out[at:at] = out[at : at + rng.randrange(1, 64)]
            case 4:
                out[at : at + 1] = rng.choice(
                    (b"0", b"9" * 20, b"-1", b"1e999", b"\r\n", b'"', b"]", b"{", b"\0", b"%00")
                )
            case _:
                del out[at:]
    return bytes(out)


def talk(port: int, data: bytes) -> bytes:
    """Send it all, and read to the end.

    Raises:
        Hang: there is no end.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        with suppress(OSError):  # it may be closed already, with an answer
            connection.sendall(data)
        connection.settimeout(UNFINISHED_S)
        for last in (False, True):
            try:
                while piece := connection.recv(1 << 16):
                    answer += piece
                return answer
            except ConnectionError:  # noqa: PERF203 - twice
                return answer
            except TimeoutError as error:  # the server waits for more: there is none
                if last:
                    raise Hang(f"no end after {len(answer)} bytes") from error
                connection.settimeout(PATIENCE_S)
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
    return answer


class HttpTarget:
    """See `Target`: inference, and other paths."""

    name = "http"

    def __init__(self) -> None:
        self.answered = 0
        self._failed: list[str] = []

    def make(self, rng: random.Random) -> bytes:
        path = rng.choice(("/v2/models/chest/infer", "/v2/models/chest/versions/1/infer"))
        image = np.full((1, 4, 4, 1), rng.random(), np.float32)
        tensor = {"name": "image", "shape": [1, 4, 4, 1], "datatype": "FP32"}
        kind = rng.randrange(4)
        if kind == 0:
            body = json.dumps({"id": "1", "inputs": [{**tensor, "data": image.ravel().tolist()}]}).encode()
            return mutated(rng, request("POST", path, mutated(rng, body, len(body))), 4000)
        if kind == 1:
            head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 64}}]}).encode()
            body = mutated(rng, head + image.tobytes(), len(head) + 64)
            return mutated(rng, request("POST", path, body, Inference_Header_Content_Length=str(len(head))), 250)
        if kind == 2:
            return mutated(rng, request("POST", path, image.tobytes(), Inference_Header_Content_Length="0"), 250)
        get = rng.choice(("/v2", "/v2/models/chest", "/metrics", "/trace?seconds=5", "/admin/models", "/openapi.json"))
        return mutated(rng, request(rng.choice(("GET", "POST", "PUT", "HEAD", "OPTIONS")), get, b""), 250)

    def send(self, bedside: Bedside, data: object) -> None:
        assert isinstance(data, bytes)
        answer = talk(bedside.http, data)
        self.answered += answer.startswith(b"HTTP/1.1 2")
        if b"500" in _STATUS.findall(answer):
            self._failed.append(f"500 for {data[:300]!r}")

    def unaccounted(self, bedside: Bedside) -> list[str]:  # noqa: ARG002
        failed, self._failed = self._failed, []
        return failed


class StowTarget:
    """See `Target`: instances by STOW-RS, damaged, in bodies that are damaged, too."""

    name = "stow"

    def __init__(self) -> None:
        self.answered = 0
        self._failed: list[str] = []
        self._stored: set[str] = set()

    def make(self, rng: random.Random) -> bytes:
        parts = b""
        for _ in range(rng.choice((1, 1, 2, 3))):
            _, _, _, meta, body = damaged(rng)
            parts += f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + meta + body + b"\r\n"
        whole = mutated(rng, parts + f"--{BOUNDARY}--\r\n".encode(), 400)
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
        path = rng.choice(("/dicom-web/studies", f"/dicom-web/studies/{generate_uid(entropy_srcs=['study'])}"))
        return mutated(rng, request("POST", path, whole, Content_Type=kind), 300)

    def send(self, bedside: Bedside, data: object) -> None:
        assert isinstance(data, bytes)
        answer = talk(bedside.http, data)
        self.answered += answer.startswith(b"HTTP/1.1 2")
        if b"500" in _STATUS.findall(answer):
            self._failed.append(f"500 for {data[:300]!r}")
        self.answered += b"0008119" in answer  # the module: an instance was stored, or refused
        self._stored |= set(_STORED.findall(answer.decode("latin-1")))

    def unaccounted(self, bedside: Bedside) -> list[str]:
        kept = {str(uid) for (uid,) in bedside.rows("SELECT sop_instance FROM object WHERE state <> 'refused'")}
        failed, self._failed = self._failed, []
        return failed + [f"{uid} was called stored, and is not in the journal." for uid in self._stored - kept]
