"""Conversations of the DICOM upper layer, mutated where it hurts: lengths, types, contexts, headers, commands."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable
from contextlib import closing, suppress

from pydicom.uid import generate_uid

from benchmarks.fuzz import Bedside, Hang
from tests.serve import kit
from tests.serve.dicom import rig

PATIENCE_S = 30
EXPLICIT = "1.2.840.10008.1.2.1"
PDUS = list[bytes]

_REQUEST = rig.associate(
    (kit.CT, [EXPLICIT]), ("1.2.840.10008.1.1", [EXPLICIT]), ("1.2.840.10008.1.20.1", [EXPLICIT]), calling="FUZZER"
)
_RELEASE = rig.RELEASE


def whole(rng: random.Random) -> tuple[PDUS, str]:
    """A good conversation: an image, an echo, a release; and the UID of the image."""
    uid = str(generate_uid(entropy_srcs=[str(rng.random())]))
    body = small_image(uid)
    size = rng.choice((50, 300, 16000))
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    data = [rig.p_data((1, 2 if n == len(pieces) - 1 else 0, piece)) for n, piece in enumerate(pieces)]
    return [
        _REQUEST,
        rig.p_data((1, 3, rig.store_command(kit.CT, uid))),
        *data,
        rig.p_data((3, 3, rig.echo_command())),
    ], uid


def small_image(uid: str) -> bytes:
    """The data set of a 4x4 CT, explicit little endian, as short as it can be."""
    out = b""
    for group, element, vr, value in (
        (0x0008, 0x0016, b"UI", kit.CT.encode()),
        (0x0008, 0x0018, b"UI", uid.encode()),
        (0x0008, 0x0060, b"CS", b"CT"),
        (0x0020, 0x000D, b"UI", b"1.2.3"),
        (0x0020, 0x000E, b"UI", b"1.2.3.4"),
        (0x0028, 0x0002, b"US", b"\x01\x00"),
        (0x0028, 0x0004, b"CS", b"MONOCHROME2"),
        (0x0028, 0x0010, b"US", b"\x04\x00"),
        (0x0028, 0x0011, b"US", b"\x04\x00"),
        (0x0028, 0x0100, b"US", b"\x08\x00"),
        (0x0028, 0x0101, b"US", b"\x08\x00"),
        (0x0028, 0x0102, b"US", b"\x07\x00"),
        (0x0028, 0x0103, b"US", b"\x00\x00"),
    ):
        padded = value + (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
        out += struct.pack("<HH2sH", group, element, vr, len(padded)) + padded
    return out + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 16) + bytes(range(0, 256, 16))


def flip(rng: random.Random, pdus: PDUS) -> PDUS:
    """Bytes anywhere."""
    at = rng.randrange(len(pdus))
    data = bytearray(pdus[at])
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return [*pdus[:at], bytes(data), *pdus[at + 1 :]]


def header(rng: random.Random, pdus: PDUS) -> PDUS:
    """Type and length of a PDU."""
    at = rng.randrange(len(pdus))
    kind, length = struct.unpack(">BxL", pdus[at][:6])
    length = rng.choice((0, 1, length - 1, length + 1, length * 2, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)) & 0xFFFFFFFF
    kind = rng.choice((kind, kind, rng.randrange(256)))
    return [*pdus[:at], struct.pack(">BxL", kind, length) + pdus[at][6:], *pdus[at + 1 :]]


def item(rng: random.Random, pdus: PDUS) -> PDUS:
    """Type or length of an item of the request: contexts, syntaxes, user information."""
    data = bytearray(pdus[0])
    places = [
        at
        for at in range(74, len(data) - 4)
        if data[at] in (0x10, 0x20, 0x30, 0x40, 0x50, 0x51, 0x52) and not data[at + 1]
    ]
    at = rng.choice(places)
    if rng.random() < 0.3:
        data[at] = rng.randrange(256)
    else:
        (length,) = struct.unpack_from(">H", data, at + 2)
        struct.pack_into(">H", data, at + 2, rng.choice((0, 1, 3, length + 1, max(length - 1, 0), 0x7FFF, 0xFFFF)))
    return [bytes(data), *pdus[1:]]


def request(rng: random.Random, pdus: PDUS) -> PDUS:
    """Another request: many contexts, odd syntaxes, roles, lengths, titles."""
    uid = rng.choice((kit.CT, "1.2.840.10008.1.20.1", "1.2.3", "1." + "9" * 60, "1.2.840.10008.5.1.4.1.1.88.11"))
    syntaxes = rng.sample([EXPLICIT, "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.90", "1.2.3.4"], rng.randint(1, 4))
    contexts = [(uid, syntaxes)] * rng.choice((1, 2, 64, 128))
    roles = [(uid, rng.random() < 0.5, rng.random() < 0.5)] if rng.random() < 0.5 else []
    made = rig.associate(
        *contexts, calling="FUZZER", roles=roles, max_length=rng.choice((0, 1, 7, 64, 16384, 0xFFFFFFFF))
    )
    return [made, *pdus[1:]]


def title(rng: random.Random, pdus: PDUS) -> PDUS:
    """Titles and version."""
    data = bytearray(pdus[0])
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(6, 74)] = rng.randrange(256)
    return [bytes(data), *pdus[1:]]


def value(rng: random.Random, pdus: PDUS) -> PDUS:
    """Length, context or control header of a presentation data value."""
    at = rng.randrange(1, len(pdus))
    data = bytearray(pdus[at])
    (length,) = struct.unpack_from(">L", data, 6)
    what = rng.randrange(3)
    if what == 0:
        struct.pack_into(">L", data, 6, rng.choice((0, 1, 2, length - 1, length + 1, 0xFFFFFFFF)))
    elif what == 1:
        data[10] = rng.choice((0, 1, 2, 3, 5, 255))
    else:
        data[11] = rng.randrange(256)
    return [*pdus[:at], bytes(data), *pdus[at + 1 :]]


def command(rng: random.Random, pdus: PDUS) -> PDUS:
    """An element of the command set: its tag, its length, its value."""
    data = bytearray(pdus[1][12:])
    starts, at = [], 0
    while at + 8 <= len(data):
        starts.append(at)
        at += 8 + struct.unpack_from("<L", data, at + 4)[0]
    at = rng.choice(starts)
    what = rng.randrange(4)
    (length,) = struct.unpack_from("<L", data, at + 4)
    if what == 0:
        struct.pack_into(
            "<HH", data, at, rng.choice((0, 0, 8)), rng.choice((0x0100, 0x0110, 0x0800, 0x1000, 0x0002, 0xFFFF))
        )
    elif what == 1:
        struct.pack_into("<L", data, at + 4, rng.choice((0, 1, length + 2, 0xFFFFFFFF)))
    elif what == 2 and length:
        for place in range(at + 8, at + 8 + length):
            data[place] = rng.randrange(256)
    else:
        field = rng.choice(
            (0x0001, 0x8001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0100, 0x0110, 0x0130, 0x0140, 0x0150, 0x0FFF)
        )
        old = rig.element(0x0100, b"\x01\x00")
        data = bytearray(bytes(data).replace(old, rig.element(0x0100, struct.pack("<H", field))))
    return [pdus[0], rig.p_data((1, 3, bytes(data))), *pdus[2:]]


def order(rng: random.Random, pdus: PDUS) -> PDUS:
    """Left out, twice, elsewhere, or with something between."""
    at = rng.randrange(len(pdus))
    what = rng.randrange(4)
    if what == 0:
        return pdus[:at] + pdus[at + 1 :]
    if what == 1:
        return pdus[: at + 1] + pdus[at:]
    if what == 2:
        return rng.sample(pdus, len(pdus))
    extra = rng.choice((_RELEASE, b"\x07\0\0\0\0\x04\0\0\0\0", b"\x06\0\0\0\0\x04\0\0\0\0", pdus[0], rng.randbytes(40)))
    return [*pdus[:at], extra, *pdus[at:]]


def cut(rng: random.Random, pdus: PDUS) -> PDUS:
    """The connection ends somewhere."""
    stream = b"".join(pdus)
    return [stream[: rng.randrange(1, len(stream))]]


def noise(rng: random.Random, _: PDUS) -> PDUS:
    """Anything."""
    return [rng.randbytes(rng.choice((1, 6, 74, 2000)))]


MUTATIONS: tuple[Callable[[random.Random, PDUS], PDUS], ...] = (
    flip, flip, header, item, item, request, title, value, value, command, command, order, cut, noise,
)  # fmt: skip


class PduTarget:
    """See `Target`: what is answered Success is in the journal, what is refused is, too, and nothing else is."""

    name = "pdu"

    def __init__(self) -> None:
        self.answered = 0
        self._answers: dict[str, list[int]] = {}

    def make(self, rng: random.Random) -> PDUS:
        pdus, _ = whole(rng)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            with suppress(ValueError, IndexError, struct.error):  # what was mutated already may have no such place
                pdus = rng.choice(MUTATIONS)(rng, pdus)
        return [pdu for pdu in pdus if pdu] + [_RELEASE]

    def send(self, bedside: Bedside, data: object) -> None:
        assert isinstance(data, list)
        for uid, status in talk(bedside.dicom, data):
            self._answers.setdefault(uid, []).append(status)

    def unaccounted(self, bedside: Bedside) -> list[str]:
        self.answered = sum(map(len, self._answers.values()))
        return held_against(bedside, self._answers)


def talk(port: int, pdus: PDUS) -> list[tuple[str, int]]:
    """Say it all, then nothing more; what was answered to C-STORE: UID and status.

    Raises:
        Hang: the connection does not end.
    """
    with closing(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)) as sock:
        try:
            sock.sendall(b"".join(pdus))
            sock.shutdown(socket.SHUT_WR)
        except OSError:  # it has closed already, which is an answer
            pass
        said = bytearray()
        end_ns = time.monotonic_ns() + PATIENCE_S * 1_000_000_000
        try:
            while more := sock.recv(1 << 16):
                said += more
                if time.monotonic_ns() > end_ns:
                    raise Hang("the answer does not end")
        except TimeoutError as error:
            raise Hang("the connection does not end") from error
        except ConnectionError:
            pass
    return answers(bytes(said))


def answers(said: bytes) -> list[tuple[str, int]]:
    """UIDs and statuses of the C-STORE responses in a stream of PDUs."""
    found, at = [], 0
    while at + 6 <= len(said):
        kind, length = struct.unpack_from(">BxL", said, at)
        body = said[at + 6 : at + 6 + length]
        at += 6 + length
        if kind == 4 and len(body) > 6:
            fields = _elements(body[6:])
            if fields.get(0x0100) == b"\x01\x80" and 0x0900 in fields:
                uid = fields.get(0x1000, b"").decode("ascii", "replace").rstrip("\0 ")
                found.append((uid, int.from_bytes(fields[0x0900], "little")))
    return found


def held_against(bedside: Bedside, said: dict[str, list[int]]) -> list[str]:
    """What the senders were told, against the journal."""
    kept, refused = (
        {str(row[0]) for row in bedside.rows(f"SELECT sop_instance FROM object WHERE state {sign} 'refused'")}
        for sign in ("<>", "=")
    )
    lost = []
    for uid, statuses in said.items():
        if 0 in statuses and uid not in kept:
            lost.append(f"{uid} was acknowledged and is not in the journal.")
        if any(statuses) and uid not in refused:
            lost.append(f"{uid} was refused with {statuses} and the journal does not know.")
    return lost


def _elements(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 8 <= len(data):
        _, element, length = struct.unpack_from("<HHL", data, at)
        found[element] = data[at + 8 : at + 8 + length]
        at += 8 + length
    return found
